"""The encoding direction, one bin at a time: measured behaviour in, the rates expected of the units out."""

from __future__ import annotations

import numpy as np

from kernels import numba_pack
from runtime import stream_weights
from runtime.observed import Observed
from runtime.stream_engine import StreamEngine
from runtime.token import Token


class RateEngine:
    """One cached token for each observed behaviour and one query for the spikes; no spike is seen.

    Over the packed weights of a `StreamEngine`, with a cache of its own. Twin: `directions.encode`.
    """

    def __init__(self, decoder: StreamEngine, observed: tuple[str, ...] | None = None) -> None:
        """observed: behaviours that a token may show; None = all of the model's."""
        self.name = decoder.name.replace("stream", "rates", 1)
        model, every = decoder.model, tuple(spec.name for spec in decoder.checkpoint.specs)
        self.observed = Observed(decoder.checkpoint, every if observed is None else observed)
        self.weights = decoder.weights
        weight, bias = stream_weights.arrays(model.rate_head())
        n = len(bias)
        self.rates, self._no_counts = np.zeros(n, np.float32), np.zeros(n, np.uint16)
        w = self.weights
        ends = numba_pack.Ends(
            w.rows, w.constants, w.codes, w.asked[:1], weight, bias, np.zeros(n, np.int64), np.zeros((0, 2), np.int64),
            np.ones(n, np.float32), np.zeros(n, np.float32), self.rates,
        )  # fmt: skip
        self.stepper = stream_weights.Stepper(w, model.config.band, max(1, len(self.observed)), 1, ends)

    def reset(self, position: int = 0) -> None:
        """Start cold at a position."""
        self.stepper.reset(position)

    def skip(self, n_bins: int) -> None:
        """Bins that were never seen."""
        self.stepper.skip(n_bins)

    def step(self, token: Token) -> np.ndarray:
        """Take in what a bin shows of behaviour; returns rates (U,) float32, spikes a bin, reused by the next step."""
        w = self.weights
        row = w.clock_row(token.clock)
        n_seen = self.observed.write(token.observed, w.codes[row], self.stepper.work.x) if token.valid else 0
        self.stepper.step(self._no_counts, False, n_seen, row)
        return np.exp(self.rates, out=self.rates)
