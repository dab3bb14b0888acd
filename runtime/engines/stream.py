"""The stream engine on CPU: causal NEDS, one bin at a time, through the Numba step."""

from __future__ import annotations

import numpy as np

from kernels.cpu.pack import Precision
from neds_core.checkpoint import Checkpoint
from runtime.core.values import Token
from runtime.engines.layout import layout
from runtime.engines.observed import Observed
from runtime.engines.stream_offline import StreamDecoder
from runtime.engines.stream_weights import Heads, Stepper, arrays, pack


class StreamEngine(StreamDecoder):
    """One cached spike token a bin and one query for each output; a step allocates nothing."""

    window_bins = 0

    def __init__(self, checkpoint: Checkpoint, weights: Precision = "float32", observed: tuple[str, ...] = ()) -> None:
        """weights: how they are stored; fewer bits pay where the model does not fit the L3 cache.

        observed: behaviours that a token may show. In a bin that shows them they are cached tokens beside
        its spikes, and their values are what was observed.
        """
        self.name = "stream-numba-cpu" if weights == "float32" else f"stream-numba-cpu-{weights}"
        self.checkpoint, self.layout = checkpoint, layout(checkpoint)
        self.observed = Observed(checkpoint, observed)
        model = self.model = checkpoint.model
        self.weights = pack(model, weights)
        slots = 1 + len(self.observed)
        self.stepper = Stepper(self.weights, model.config.band, slots, self.weights.asked[1:], self._heads())
        self.values = self.stepper.values

    def _heads(self) -> Heads:
        """One head for each behaviour, read from its own query; classes are softmaxes."""
        heads = [arrays(self.model.head(spec.name)) for spec in self.model.specs]
        classes = [self.layout.columns[spec.name] for spec in self.model.specs if spec.kind == "class"]
        return Heads(
            weight=np.concatenate([weight for weight, _ in heads]),
            bias=np.concatenate([bias for _, bias in heads]),
            query=np.concatenate([np.full(len(bias), m) for m, (_, bias) in enumerate(heads)]),
            groups=np.array([(c.start, c.stop) for c in classes], np.int64).reshape(-1, 2),
            scale=self.layout.scale,
            offset=self.layout.offset,
        )

    def reset(self, position: int = 0) -> None:
        self.stepper.reset(position)

    def skip(self, n_bins: int) -> None:
        self.stepper.skip(n_bins)

    def taken(self, token: Token) -> tuple[np.ndarray, int]:
        """A token's counts and clock row as compiled code, which does not check them, may have them."""
        counts, w = token.counts, self.weights
        if counts.dtype != np.uint16 or counts.shape != (w.n_units,):
            raise ValueError(f"counts are {counts.dtype} {counts.shape}; this decoder takes uint16 ({w.n_units},)")
        if not counts.flags.carray:  # another type, for which Numba would compile the step again
            counts = counts.copy()
        row = w.clock_row(token.clock)
        _ = w.codes[row]  # raises where there is no such row
        return counts, row

    def rehearse(self) -> None:
        """See `Stepper.rehearse`."""
        self.stepper.rehearse()

    def step(self, token: Token) -> np.ndarray:
        counts, row = self.taken(token)
        code, n_seen = self.weights.codes[row], 0
        if token.valid:
            n_seen = self.observed.write_tokens(token.observed, code, self.stepper.work.x[1:])
        self.stepper.step(counts, token.valid, n_seen, row)
        if token.valid:
            self.observed.write_outputs(token.observed, self.values)
        return self.values
