"""Causal exponential filters of spike counts, which a token may hold beside the counts of its own bin.

state = keep state + (1 - keep) counts, keep = exp(-bin / tau), from 0 at a segment's start; what is read is its square
root. A bin whose spikes are not seen (hidden, or not valid) enters as one without spikes. States are those of
`linear.BankState`, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neds_core.data.session import Session

AT_ONCE = 1024  # bins whose states are held at once
EVERY = 32  # bins between two states of a session that are kept


def shares(taus_ms: tuple[float, ...], bin_ns: int) -> np.ndarray:
    """(K,) float32: what a filter of each time constant keeps of its state from one bin to the next."""
    return np.array([np.exp(-bin_ns * 1e-6 / tau) for tau in taus_ms], np.float32)


@dataclass(frozen=True, slots=True)
class Filters:
    """keep (K,), see `shares`; mean, gain (K, U) float32 of the filters' square roots in a training part, gain 0 where
    a unit is left out."""

    keep: np.ndarray
    mean: np.ndarray
    gain: np.ndarray


def checked(found: Filters | None, taus_ms: tuple[float, ...], bin_ns: int) -> Filters | None:
    """The filters of a file. Raises `ValueError` where they have other time constants."""
    if found is not None and not np.allclose(found.keep, shares(taus_ms, bin_ns), rtol=1e-6, atol=0.0):
        raise ValueError("its filters are not those of filter_taus_ms")
    return found


def run(counts: Tensor, keep: Tensor, start: Tensor | None = None) -> Tensor:
    """States (B, T, K, U) after each bin of counts (B, T, U) float32, 0 in bins that are not seen; keep (K,).

    start (B, K, U): the states before the first bin; None = cold.
    """
    n_batch, n_bins, n_units = counts.shape
    kept = keep[:, None]
    added = (1.0 - kept) * counts[:, :, None]
    state = counts.new_zeros((n_batch, len(keep), n_units)) if start is None else start
    out = counts.new_empty((n_batch, n_bins, len(keep), n_units))
    for t in range(n_bins):
        torch.mul(state, kept, out=out[:, t])
        state = out[:, t].add_(added[:, t])
    return out


def seen(session: Session, start: int, stop: int) -> Tensor:
    """(stop - start, U) float32: the counts of a session's bins, 0 where a bin is not valid."""
    counts = session.counts[start:stop] * session.valid[start:stop, None]
    return torch.from_numpy(counts.astype(np.float32))


def fit(train: Session, kept: np.ndarray, taus_ms: tuple[float, ...]) -> Filters:
    """Mean and gain over the valid bins of a training part, cold at each segment; kept (U,) bool: units that enter."""
    keep = shares(taus_ms, train.bin_ns)
    total, square, n = np.zeros((len(keep), len(kept))), np.zeros((len(keep), len(kept))), 0
    for first, last in train.segments.tolist():
        state = None
        for start in range(first, last, AT_ONCE):
            stop = min(start + AT_ONCE, last)
            states = run(seen(train, start, stop)[None], torch.from_numpy(keep), state)
            state = states[:, -1]
            root = states[0].sqrt().numpy()[train.valid[start:stop]].astype(np.float64)
            total, square, n = total + root.sum(0), square + (root**2).sum(0), n + len(root)
    mean = total / n
    sd = np.sqrt(np.maximum(square / n - mean**2, 0.0))
    gain = np.where(kept, 1.0 / np.maximum(sd, 1e-6), 0.0)
    return Filters(keep, mean.astype(np.float32), gain.astype(np.float32))


class States:
    """The states before any bin of a session's segments, each cold at its start: some are kept, the rest computed."""

    def __init__(self, session: Session, keep: np.ndarray) -> None:
        """keep (K,)."""
        self.session, self.keep = session, torch.from_numpy(keep)
        self.kept = [self._of(first, last) for first, last in session.segments.tolist()]

    def _of(self, first: int, last: int) -> Tensor:
        """(n, K, U): before every `EVERY`-th bin of a segment."""
        state = torch.zeros(1, len(self.keep), self.session.counts.shape[1])
        found = [state]
        for start in range(first, last - EVERY, EVERY):
            state = run(seen(self.session, start, start + EVERY)[None], self.keep, state)[:, -1]
            found.append(state)
        return torch.cat(found)

    def before(self, at: int) -> Tensor:
        """(K, U) before a bin."""
        s = int(self.session.segment_of(np.array([at]))[0])
        n, rest = divmod(at - int(self.session.segments[s, 0]), EVERY)
        if not rest:
            return self.kept[s][n]
        return run(seen(self.session, at - rest, at)[None], self.keep, self.kept[s][n : n + 1])[0, -1]
