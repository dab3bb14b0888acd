"""The stream engine on CPU: causal NEDS, one bin at a time, through the Numba step."""

from __future__ import annotations

import numpy as np

from kernels.cpu import pack as numba_pack
from neds_core.checkpoint import Checkpoint
from neds_core.model import offline
from neds_core.model.model import NEDS
from runtime.core.values import Layout, Token
from runtime.engines import stream_weights
from runtime.engines.layout import layout
from runtime.engines.observed import Observed


def decoded(
    model: NEDS,
    place: Layout,
    counts: np.ndarray,
    valid: np.ndarray,
    clock: np.ndarray,
    reset: np.ndarray,
    shown: Observed | None = None,
    observed: np.ndarray | None = None,
) -> np.ndarray:
    """Values (T, V) of the offline forward over a log of what was stepped, observed (T, M) as its tokens had it."""
    seen = None
    if shown is not None and observed is not None:
        seen = np.empty_like(observed)
        shown.as_seen(observed, seen)
    found = offline.decode(model, counts, valid, clock, offline.spans(reset), observed=seen)
    columns = [v[:, None] if v.ndim == 1 else v for v in found.values()]
    values = np.concatenate(columns, axis=1) * place.scale + place.offset
    if shown is not None and observed is not None:
        for t in np.flatnonzero(valid):
            shown.say(observed[t], values[t])
    return values


class StreamEngine:
    """One cached spike token a bin and one query for each output; a step allocates nothing."""

    window_bins = 0

    def __init__(
        self, checkpoint: Checkpoint, weights: numba_pack.Precision = "float32", observed: tuple[str, ...] = ()
    ) -> None:
        """weights: how they are stored; fewer bits pay where the model does not fit the processor's cache.

        observed: behaviours that a token may show. In a bin that shows them they are cached tokens beside
        its spikes, and their values are what was observed.
        """
        self.name = "stream-numba-cpu" if weights == "float32" else f"stream-numba-cpu-{weights}"
        self.checkpoint, self.layout = checkpoint, layout(checkpoint)
        self.observed = Observed(checkpoint, observed)
        model = self.model = checkpoint.model
        specs = model.specs
        self.weights = stream_weights.pack(model, weights)
        heads = [stream_weights.arrays(model.head(spec.name)) for spec in specs]
        classes = [self.layout.columns[spec.name] for spec in specs if spec.kind == "class"]
        self.values = np.zeros(self.layout.n_values, np.float32)
        self.stepper = stream_weights.Stepper(
            self.weights, model.config.band, 1 + len(self.observed), self.weights.asked[1:],
            (np.concatenate([weight for weight, _ in heads]), np.concatenate([bias for _, bias in heads])),
            query=np.concatenate([np.full(len(bias), m) for m, (_, bias) in enumerate(heads)]),
            groups=np.array([(c.start, c.stop) for c in classes], np.int64).reshape(-1, 2),
            scale=self.layout.scale, offset=self.layout.offset, values=self.values,
        )  # fmt: skip

    def reset(self, position: int = 0) -> None:
        self.stepper.reset(position)

    def skip(self, n_bins: int) -> None:
        self.stepper.skip(n_bins)

    def step(self, token: Token) -> np.ndarray:
        w, counts, n_seen = self.weights, token.counts, 0
        if counts.dtype != np.uint16 or counts.shape != w.rows.shape[:1]:  # compiled code does not ask
            raise ValueError(f"counts are {counts.dtype} {counts.shape}; this decoder takes uint16 {w.rows.shape[:1]}")
        if not counts.flags.carray:  # another type, for which the step would be compiled anew
            counts = counts.copy()
        row = w.clock_row(token.clock)
        code = w.codes[row]  # asks whether there is such a row
        if token.valid:
            n_seen = self.observed.write(token.observed, code, self.stepper.work.x[1:])
        self.stepper.step(counts, token.valid, n_seen, row)
        if token.valid:
            self.observed.say(token.observed, self.values)
        return self.values

    def offline(
        self,
        counts: np.ndarray,
        valid: np.ndarray,
        clock: np.ndarray,
        reset: np.ndarray,
        observed: np.ndarray | None = None,
    ) -> np.ndarray:
        """The same values (T, V) computed at once from a log; observed (T, M) as in its tokens."""
        return decoded(self.model, self.layout, counts, valid, clock, reset, self.observed, observed)
