"""The engine of the weighted average of NEDS and the linear decoder."""

from __future__ import annotations

import numpy as np

from neds_core.checkpoint import Checkpoint
from runtime.core.engine import Engine
from runtime.core.values import Token


class BlendEngine:
    """A fixed average of NEDS and the linear decoder, its weights chosen on validation."""

    name = "blend"

    def __init__(self, checkpoint: Checkpoint, network: Engine, linear: Engine) -> None:
        """network, linear: the two engines of this checkpoint that are averaged."""
        self.parts = (network, linear)
        self.layout, self.window_bins = self.parts[0].layout, self.parts[0].window_bins
        self.share = np.zeros(self.layout.n_values, np.float32)
        for name, column in self.layout.columns.items():
            self.share[column] = checkpoint.header.blend[name]
        self.values = np.zeros(self.layout.n_values, np.float32)

    def reset(self, position: int = 0) -> None:
        for part in self.parts:
            part.reset(position)

    def skip(self, n_bins: int) -> None:
        for part in self.parts:
            part.skip(n_bins)

    def step(self, token: Token) -> np.ndarray:
        ours, theirs = (part.step(token) for part in self.parts)
        np.copyto(self.values, self.share * ours + (1.0 - self.share) * theirs)
        return self.values

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        ours, theirs = (part.offline(counts, valid, clock, reset) for part in self.parts)
        return self.share * ours + (1.0 - self.share) * theirs
