"""The encoding direction, one bin at a time: measured behaviour in, expected rates of the units out."""

from __future__ import annotations

import numpy as np

from neds_core.model.model import NEDS
from runtime.core.values import Token
from runtime.engines.observed import Observed
from runtime.engines.stream import StreamEngine
from runtime.engines.stream_weights import NO_COUNTS, Heads, Stepper, arrays


def _heads(model: NEDS) -> Heads:
    """The rate head as it is: every unit read from the one query."""
    weight, bias = arrays(model.rate_head())
    n = len(bias)
    ones, zeros = np.ones(n, np.float32), np.zeros(n, np.float32)
    return Heads(weight, bias, np.zeros(n, np.int64), np.zeros((0, 2), np.int64), scale=ones, offset=zeros)


class RateEngine:
    """One cached token for each observed behaviour and one query for the spikes, which are always hidden.

    Over the packed weights of a `StreamEngine`, with a cache of its own. Twin: `directions.encode`.
    """

    def __init__(self, decoder: StreamEngine, observed: tuple[str, ...] | None = None) -> None:
        """observed: behaviours that a token may show; None = all of the model's."""
        self.name = decoder.name.replace("stream", "rates", 1)
        model, every = decoder.model, tuple(spec.name for spec in decoder.checkpoint.specs)
        self.observed = Observed(decoder.checkpoint, every if observed is None else observed)
        self.weights = decoder.weights
        self.stepper = Stepper(
            self.weights, model.config.band, max(1, len(self.observed)), self.weights.asked[:1], _heads(model)
        )
        self.rates = self.stepper.values

    def reset(self, position: int = 0) -> None:
        """Start cold at a position."""
        self.stepper.reset(position)

    def skip(self, n_bins: int) -> None:
        """Bins that were never seen: no key."""
        self.stepper.skip(n_bins)

    def step(self, token: Token) -> np.ndarray:
        """Take in a bin's observed behaviour; returns rates (U,) float32, spikes a bin, reused by the next step."""
        w = self.weights
        row = w.clock_row(token.clock)
        code = w.codes[row]  # raises where there is no such row
        n_seen = self.observed.write_tokens(token.observed, code, self.stepper.work.x) if token.valid else 0
        self.stepper.step(NO_COUNTS, False, n_seen, row)  # spikes are always hidden
        return np.exp(self.rates, out=self.rates)
