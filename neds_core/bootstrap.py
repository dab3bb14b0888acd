"""95 % percentile intervals by bootstrap (Efron & Tibshirani 1993, ch. 13) over trials, sessions and mice.

A score is a statistic of sums over bins, so a resample needs no more than the sums of each
trial: `sums` (n, K) float64, one row a trial (or block of a continuous recording), and
`statistic`, which maps summed rows (..., K) to scores (...). Resamples without a score (NaN)
are left out; without any resample that has one the interval is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

N_BOOTSTRAP = 2000

Statistic = Callable[[np.ndarray], np.ndarray]


class Interval(NamedTuple):
    """A score and its 95 % interval."""

    value: float
    low: float
    high: float


def _percentiles(value: float | np.ndarray, resampled: np.ndarray) -> Interval:
    scored = resampled[~np.isnan(resampled)]
    low, high = np.percentile(scored, [2.5, 97.5]) if len(scored) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))


def _times_drawn(rng: np.random.Generator, n: int) -> np.ndarray:
    """(N_BOOTSTRAP, n): how often each of n rows is in each resample."""
    draw = rng.integers(0, n, (N_BOOTSTRAP, n))
    times = np.zeros(draw.shape)
    np.add.at(times, (np.arange(N_BOOTSTRAP)[:, None], draw), 1.0)
    return times


def interval(sums: np.ndarray, statistic: Statistic, seed: int = 0) -> Interval:
    """The score of all trials, and its interval over resampled trials."""
    times = _times_drawn(np.random.default_rng(seed), len(sums))
    return _percentiles(statistic(sums.sum(0)), statistic(times @ sums))


def paired(first: list[np.ndarray], second: np.ndarray, statistic: Statistic, seed: int = 0) -> Interval:
    """Mean score of `first` (one array of sums a training seed) minus that of `second`.

    The same trials are drawn for both, and training seeds are resampled with them.
    """
    rng = np.random.default_rng(seed)
    times = _times_drawn(rng, len(second))
    seeds = rng.integers(0, len(first), (N_BOOTSTRAP, len(first)))
    each = np.stack([statistic(times @ sums) for sums in first])
    gain = np.take_along_axis(each, seeds.T, axis=0).mean(0) - statistic(times @ second)
    point = np.mean([statistic(sums.sum(0)) for sums in first]) - statistic(second.sum(0))
    return _percentiles(point, gain)


def hierarchical(
    sums: np.ndarray, session: np.ndarray, mouse: np.ndarray, statistic: Statistic, seed: int = 0
) -> Interval:
    """Mean over sessions of each session's score; mice are drawn, then their sessions, then those's trials.

    Saravanan et al. 2020, "Application of the hierarchical bootstrap to multi-level data in
    neuroscience". session and mouse (n,): of each trial; a session belongs to one mouse.
    """
    rng = np.random.default_rng(seed)
    rows = {s: sums[session == s] for s in np.unique(session)}
    litters = [np.unique(session[mouse == m]) for m in np.unique(mouse)]
    resampled = np.empty(N_BOOTSTRAP)
    for b in range(N_BOOTSTRAP):
        mice = rng.integers(0, len(litters), len(litters))
        drawn = [rows[s] for m in mice for s in rng.choice(litters[m], len(litters[m]))]
        totals = [trials[rng.integers(0, len(trials), len(trials))].sum(0) for trials in drawn]
        resampled[b] = statistic(np.stack(totals)).mean()
    return _percentiles(statistic(np.stack([trials.sum(0) for trials in rows.values()])).mean(), resampled)


def hierarchical_paired(
    first: np.ndarray,
    second: np.ndarray,
    session: np.ndarray,
    mouse: np.ndarray,
    statistic: Statistic,
    seed: int = 0,
) -> Interval:
    """`hierarchical` of the difference of two decoders, first minus second, on the same trials."""
    n = first.shape[1]

    def difference(total: np.ndarray) -> np.ndarray:
        return statistic(total[..., :n]) - statistic(total[..., n:])

    return hierarchical(np.concatenate([first, second], axis=1), session, mouse, difference, seed)
