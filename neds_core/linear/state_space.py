"""Linear decoders with a state: a velocity Kalman filter in its steady state, and all others of its form.

    y_t = A y_{t-1} + B c_t + b

y (V,) are the outputs, c (U,) the counts of the bin. A Kalman filter with transition F, observation H and steady gain
K (Wu et al., Neural Computation 18, 2006) is A = (I - K H) F, B = K; one that takes z-scores (c - m) / s is
B = K / s, b = -K m / s.

A segment begins with `start`, or with where its marker says that the outputs stand. A bin without live data leaves
them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from msgspec import Struct
from torch import Tensor

PARTS = ("a", "b", "offset", "start")
PREFIX = "state_space/"
LARGEST = float(np.finfo(np.float32).max)  # as which outputs are published


class Brought(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a decoder that was not trained here comes from: its file, the SHA-256 of that, and what it says."""

    source: str
    source_sha: str
    licence: str = ""
    citation: str = ""


@dataclass(frozen=True, slots=True)
class StateSpace:
    """a (V, V), b (V, U), offset (V,), start (V,): float64, in the outputs' units; see above."""

    a: np.ndarray
    b: np.ndarray
    offset: np.ndarray
    start: np.ndarray

    @property
    def radius(self) -> float:
        """The share of a state that is left after a bin, in the long run: below 1, or it never forgets how it began."""
        return float(np.abs(np.linalg.eigvals(self.a)).max(initial=0.0))

    def left_bins(self, share: float) -> int:
        """After so many bins no more than a share of a state is left, whichever it was: |a^n| in the maximum norm.

        A state may grow before it falls, so that its radius alone does not say. Raises `ValueError` where none falls.
        """
        powers = [self.a]
        with np.errstate(all="ignore"):
            while not _size(powers[-1]) <= share:
                if len(powers) > 60 or not np.isfinite(powers[-1]).all():
                    raise ValueError("A grows a state beyond all numbers before it forgets it; correct it")
                powers.append(powers[-1] @ powers[-1])
            n, left = 0, np.eye(len(self.a))
            for power in reversed(range(len(powers))):  # the last n at which more is left
                further = left @ powers[power]
                if not _size(further) <= share:
                    n, left = n + 2**power, further
        return n + 1

    def begin(self, stands: np.ndarray | None) -> np.ndarray:
        """(V,) before the first bin of a segment; stands (V,): what its marker says, NaN = nothing."""
        return self.start if stands is None else np.where(np.isnan(stands), self.start, stands)

    def decode(self, counts: np.ndarray, valid: np.ndarray, reset: np.ndarray, stands: np.ndarray) -> np.ndarray:
        """(T, V) float64 of counts (T, U); valid, reset (T,) bool; stands (T, V), read where reset."""
        driven = counts.astype(np.float64) @ self.b.T + self.offset
        out, y = np.zeros_like(driven), self.start
        for t in range(len(counts)):
            y = self.begin(stands[t]) if reset[t] else y
            y = self.a @ y + driven[t] if valid[t] else y
            out[t] = y
        return out

    def refuse_unfit(self, n_outputs: int, n_units: int) -> None:
        """Raise `ValueError` with the remedy for matrices that are of other sizes, not finite, or never forget."""
        shapes = {"A": (n_outputs, n_outputs), "B": (n_outputs, n_units), "b": (n_outputs,), "start": (n_outputs,)}
        for (name, shape), matrix in zip(shapes.items(), (self.a, self.b, self.offset, self.start), strict=True):
            if matrix.shape != shape:
                raise ValueError(f"{name} is {matrix.shape}, not {shape}, of {n_outputs} outputs and {n_units} units")
            if not (np.abs(matrix) <= LARGEST).all():  # NaN fails this too
                raise ValueError(f"{name} holds a number that is not finite in float32; correct it")
        if not self.b.any():
            raise ValueError("B is all zeros, so that no spike counts; give its weights")
        if self.radius >= 1.0:
            raise ValueError(
                f"A has an eigenvalue of size {self.radius:.4g}, so the decoder never forgets how it began; bring its "
                "velocities alone, and sum them up in the task"
            )
        self.left_bins(0.5)

    def tensors(self) -> dict[str, np.ndarray]:
        """As a checkpoint keeps it."""
        return {f"{PREFIX}{part}": np.ascontiguousarray(getattr(self, part)) for part in PARTS}


def _size(matrix: np.ndarray) -> float:
    """The maximum norm: the largest sum of a row's sizes."""
    return float(np.abs(matrix).sum(axis=1).max(initial=0.0))


def of_tensors(tensors: dict[str, Tensor]) -> StateSpace:
    """What `StateSpace.tensors` gave. Raises `KeyError` where a part is missing, `ValueError` for another type."""
    parts = [tensors[f"{PREFIX}{part}"].numpy() for part in PARTS]
    if any(part.dtype != np.float64 for part in parts):
        raise ValueError("a matrix of its state space is not float64")
    return StateSpace(*parts)
