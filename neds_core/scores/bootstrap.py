"""95 % percentile intervals by bootstrap (Efron & Tibshirani 1993, ch. 13) over trials, sessions and mice.

A score is a statistic of sums over bins, so a resample needs no more than the sums of each
trial: `sums` (n, K) float64, one row a trial (or block of a continuous recording), and
`statistic`, which maps summed rows (..., K) to scores (...). Resamples without a score (NaN)
are left out; without any resample that has one the interval is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, slots=True)
class Resampling:
    """The rules by which scores are resampled: what one draw takes, how many make a resample, how many resamples.

    Bins that follow each other are not independent, so a draw takes a whole segment; of a recording
    with fewer than `least` segments it takes a block of `block_s`, and fewer than `least` of either carry no interval.
    """

    times: int = 2000
    block_s: float = 10.0
    least: int = 5

    def groups(self, segment: np.ndarray, bin_ns: int) -> np.ndarray:
        """(n,) int64: what is drawn together, the segment of each of n bins or its block.

        segment (n,) int: of each bin, bins in time order; bin_ns: their width.
        """
        if self.enough(segment):
            return segment
        return np.arange(len(segment)) // round(self.block_s * 1e9 / bin_ns)

    def enough(self, group: np.ndarray) -> bool:
        """Whether there are enough groups (n,) for an interval to mean something."""
        return len(np.unique(group)) >= self.least


RULES = Resampling()

Statistic = Callable[[np.ndarray], np.ndarray]


class Interval(NamedTuple):
    """A score and its interval, of 95 % unless another level is named."""

    value: float
    low: float
    high: float


def percentiles(value: float | np.ndarray, resampled: np.ndarray, level: float = 95.0) -> Interval:
    """The score with the middle `level` % of its resamples (R,), NaN = without a score."""
    scored = resampled[~np.isnan(resampled)]
    tail = (100.0 - level) / 2.0
    low, high = np.percentile(scored, [tail, 100.0 - tail]) if len(scored) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))


def times_drawn(rng: np.random.Generator, n: int, resamples: int) -> np.ndarray:
    """(resamples, n): how often each of n rows is in each resample."""
    draw = rng.integers(0, n, (resamples, n))
    times = np.zeros(draw.shape)
    np.add.at(times, (np.arange(resamples)[:, None], draw), 1.0)
    return times


def interval(sums: np.ndarray, statistic: Statistic, seed: int = 0) -> Interval:
    """The score of all trials, and its interval over resampled trials; sums (n, K) as the module says."""
    times = times_drawn(np.random.default_rng(seed), len(sums), RULES.times)
    return percentiles(statistic(sums.sum(0)), statistic(times @ sums))


def over_seeds(rng: np.random.Generator, each_seed: np.ndarray) -> np.ndarray:
    """(R,) mean score of each resample over resampled training seeds; each_seed (K, R)."""
    seeds = rng.integers(0, len(each_seed), each_seed.shape[::-1])
    return np.take_along_axis(each_seed, seeds.T, axis=0).mean(0)


class Drawn(NamedTuple):
    """A score of all trials, and of each resample (`RULES.times`,), NaN where it has none."""

    value: float
    resampled: np.ndarray

    def interval(self, level: float = 95.0) -> Interval:
        """What covers so many percent of the resamples."""
        return percentiles(self.value, self.resampled, level)

    def minus(self, other: Drawn) -> Drawn:
        """The difference, paired where both were drawn together."""
        return Drawn(self.value - other.value, self.resampled - other.resampled)


def together(sums: Mapping[str, np.ndarray], statistic: Statistic, seed: int = 0) -> dict[str, Drawn]:
    """Several decoders' sums (n, K) over the same resampled trials: as `interval` and, of differences, `paired`."""
    times = times_drawn(np.random.default_rng(seed), len(next(iter(sums.values()))), RULES.times)
    return {name: Drawn(float(statistic(s.sum(0))), statistic(times @ s)) for name, s in sums.items()}


def _over_seeds(
    rng: np.random.Generator, times: np.ndarray, each_seed: list[np.ndarray], statistic: Statistic
) -> np.ndarray:
    """(`RULES.times`,) mean score of each resample's trials over resampled training seeds."""
    return over_seeds(rng, np.stack([statistic(times @ sums) for sums in each_seed]))


def _mean(each_seed: list[np.ndarray], statistic: Statistic) -> float:
    return float(np.mean([statistic(sums.sum(0)) for sums in each_seed]))


def pooled(each_seed: list[np.ndarray], statistic: Statistic, seed: int = 0) -> Interval:
    """Mean score over training seeds (one array of sums each); trials and seeds are resampled together."""
    rng = np.random.default_rng(seed)
    times = times_drawn(rng, len(each_seed[0]), RULES.times)
    return percentiles(_mean(each_seed, statistic), _over_seeds(rng, times, each_seed, statistic))


def paired(
    first: list[np.ndarray],
    second: np.ndarray | list[np.ndarray],
    statistic: Statistic,
    seed: int = 0,
    level: float = 95.0,
) -> Interval:
    """Mean score of `first` (one array of sums a training seed) minus that of `second`, of one seed or several.

    The same trials are drawn for both, and the training seeds of either are resampled with them. level: percent that
    the interval covers.
    """
    theirs = [second] if isinstance(second, np.ndarray) else second
    rng = np.random.default_rng(seed)
    times = times_drawn(rng, len(theirs[0]), RULES.times)
    gain = _over_seeds(rng, times, first, statistic) - _over_seeds(rng, times, theirs, statistic)
    return percentiles(_mean(first, statistic) - _mean(theirs, statistic), gain, level)


def hierarchical(
    sums: np.ndarray, session: np.ndarray, mouse: np.ndarray, statistic: Statistic, seed: int = 0
) -> Interval:
    """Mean over sessions of each session's score; mice are drawn, then their sessions, then those's trials.

    Saravanan et al. 2020, "Application of the hierarchical bootstrap to multi-level data in
    neuroscience". session and mouse (n,): of each trial; a session belongs to one mouse.
    """
    rng = np.random.default_rng(seed)
    _, place = np.unique(session, return_inverse=True)
    rows = [sums[place == s] for s in range(int(place.max()) + 1)]
    litters = [np.unique(place[mouse == m]) for m in np.unique(mouse)]
    mice = rng.integers(0, len(litters), (RULES.times, len(litters))).ravel()
    drawn = [rng.choice(litters[m], len(litters[m])) for m in mice]
    resample = np.repeat(np.arange(len(mice)) // len(litters), [len(each) for each in drawn])
    slot = np.concatenate(drawn)
    totals = np.empty((len(slot), sums.shape[1]))
    for s, trials in enumerate(rows):
        mine = slot == s
        totals[mine] = times_drawn(rng, len(trials), int(mine.sum())) @ trials
    resampled = np.bincount(resample, statistic(totals)) / np.bincount(resample)
    return percentiles(statistic(np.stack([trials.sum(0) for trials in rows])).mean(), resampled)


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
