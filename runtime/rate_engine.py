"""The encoding direction, one bin at a time: measured behaviour in, the rates expected of the units out."""

from __future__ import annotations

import numpy as np

from kernels import numba_step as kernel
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
        slots = max(1, len(self.observed))
        self.stepper = stream_weights.Stepper(self.weights, model.config.band, slots, n_asked=1)
        self.head = stream_weights.arrays(model.rate_head())
        self.asker = np.zeros(len(self.head[1]), np.int64)
        self.groups = np.zeros((0, 2), np.int64)
        self.rates = np.zeros(len(self.head[1]), np.float32)

    def reset(self, position: int = 0) -> None:
        """Start cold at a position."""
        self.stepper.reset(position)

    def skip(self, n_bins: int) -> None:
        """Bins that were never seen."""
        self.stepper.skip(n_bins)

    def step(self, token: Token) -> np.ndarray:
        """Take in what a bin shows of behaviour; returns rates (U,) float32, spikes a bin, reused by the next step."""
        w, x = self.weights, self.stepper.work.x
        code = w.codes[w.clock_row(token.clock)]
        n_keys = self.observed.write(token.observed, code, x) if token.valid else 0
        np.add(w.asked[0], code, out=x[n_keys, : len(code)])
        self.stepper.step(n_keys, n_keys + 1)
        kernel.read(x, n_keys, *self.head, self.asker, self.groups, self.rates)
        return np.exp(self.rates, out=self.rates)
