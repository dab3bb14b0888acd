"""The engine of a linear decoder with a state that was brought: its recursion, a bin at a time in compiled code."""

from __future__ import annotations

import math

import numpy as np

from kernels.cpu import linear as kernel
from neds_core.checkpoint import Checkpoint
from neds_core.linear.state_space import StateSpace
from runtime.core.values import Token
from runtime.engines.layout import layout


class StateSpaceEngine:
    """y_t = A y_{t-1} + B c_t + b in float64, published as float32. Twin: `StateSpace.decode`.

    A cold start is the file's `start`, or where the marker of a segment says that the outputs stand. A bin without live
    data, or one that is skipped, leaves them as they are.
    """

    name = "state-space-numba-cpu"
    window_bins = 0

    def __init__(self, checkpoint: Checkpoint, space: StateSpace) -> None:
        self.layout, self.space = layout(checkpoint), space
        self.state, self.scratch = space.start.copy(), np.zeros(len(space.start))
        self.values = np.zeros(self.layout.n_values, np.float32)

    def reset(self, position: int = 0) -> None:
        self.state[:] = self.space.start

    def skip(self, n_bins: int) -> None: ...

    def step(self, token: Token) -> np.ndarray:
        space, state = self.space, self.state
        if token.stands is not None and token.reset:
            for v in range(len(state)):
                if not math.isnan(token.stands[v]):
                    state[v] = token.stands[v]
        if token.valid:
            kernel.advance(space.a, space.b, space.offset, token.counts, state, self.scratch)
        self.values[:] = state
        return self.values

    def offline(
        self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray,
        stands: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """The same values (T, V) float32 in NumPy; stands (T, V) float64: what markers said, None = nothing."""
        said = np.full((len(counts), len(self.state)), np.nan) if stands is None else stands
        first = reset.copy()
        first[:1] = True
        return self.space.decode(counts, valid, first, said).astype(np.float32)
