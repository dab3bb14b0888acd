"""Scores and paired intervals from sums over trials: what a finished row keeps instead of its predictions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neds_core.bootstrap import N_BOOTSTRAP

Statistic = Callable[[np.ndarray], np.ndarray]


def interval(sums: list[np.ndarray], statistic: Statistic, seed: int = 0) -> tuple[float, float, float]:
    """Mean over training seeds and its 95 % percentile interval over trials and seeds."""
    return paired(sums, None, statistic, seed)


def paired(
    first: list[np.ndarray], second: list[np.ndarray] | None, statistic: Statistic, seed: int = 0
) -> tuple[float, float, float]:
    """Statistic of `first` minus that of `second` (sums of one array a training seed): value, low, high.

    Trials are resampled together for both; of each resample the seeds of either are resampled too.
    """
    rng = np.random.default_rng(seed)
    draw = rng.integers(0, len(first[0]), (N_BOOTSTRAP, len(first[0])))

    def resampled(rows: list[np.ndarray]) -> np.ndarray:
        each = np.stack([statistic(r[draw].sum(1)) for r in rows])  # (seeds, resamples)
        seeds = rng.integers(0, len(rows), (N_BOOTSTRAP, len(rows)))
        return np.take_along_axis(each, seeds.T, axis=0).mean(0)

    point = np.mean([statistic(r.sum(0)) for r in first])
    gain = resampled(first)
    if second is not None:
        point, gain = point - np.mean([statistic(r.sum(0)) for r in second]), gain - resampled(second)
    low, high = np.percentile(gain, [2.5, 97.5])
    return float(point), float(low), float(high)
