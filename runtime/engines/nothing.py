"""A decoder that decodes nothing: of a run that only takes in, before there is a checkpoint."""

from __future__ import annotations

import numpy as np

from neds_core.data.session import UnitTable
from runtime.core.engine import Decoder
from runtime.core.values import Layout, Token


class Nothing:
    """An engine without outputs (V = 0)."""

    name = "nothing"
    window_bins = 0

    def __init__(self) -> None:
        self.values = np.zeros(0, np.float32)
        self.layout = Layout((), {}, self.values, self.values)

    def reset(self, position: int = 0) -> None: ...

    def step(self, token: Token) -> np.ndarray:
        """No value."""
        return self.values

    def skip(self, n_bins: int) -> None: ...

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        """(T, 0)."""
        return np.zeros((len(counts), 0), np.float32)


def decoder(units: UnitTable, bin_ns: int) -> Decoder:
    """It takes in bins of a stream with these units."""
    return Decoder(Nothing(), "nothing", "none", "", "", units.sha256, len(units), bin_ns)
