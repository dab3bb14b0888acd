"""Scores of a decoder, each with its formula, and intervals by bootstrap over trials."""

from __future__ import annotations

import numpy as np

N_BOOTSTRAP = 2000


def r2(target: np.ndarray, value: np.ndarray, reference: np.ndarray | None = None) -> float:
    """1 - SSE / sum of squares about `reference` (default: the target's own mean), pooled over bins."""
    about = target.mean() if reference is None else reference
    spread = float(((target - about) ** 2).sum())
    return 1.0 - float(((target - value) ** 2).sum()) / spread if spread > 0 else float("nan")


def _by_trial(target: np.ndarray, value: np.ndarray, trial: np.ndarray) -> np.ndarray:
    """Rows of (n, sum y, sum y^2, SSE) for each trial: enough for the R2 of any resample."""
    _, index = np.unique(trial, return_inverse=True)
    columns = (np.ones_like(target), target, target**2, (target - value) ** 2)
    return np.stack([np.bincount(index, c) for c in columns], axis=1)


def _r2_of_sums(sums: np.ndarray) -> np.ndarray:
    n, total, square, error = np.moveaxis(sums, -1, 0)
    return 1.0 - error / np.maximum(square - total**2 / n, 1e-12)


def r2_interval(target: np.ndarray, value: np.ndarray, trial: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of R2, resampling whole trials (or blocks)."""
    rows = _by_trial(target, value, trial)
    draw = np.random.default_rng(seed).integers(0, len(rows), (N_BOOTSTRAP, len(rows)))
    low, high = np.percentile(_r2_of_sums(rows[draw].sum(1)), [2.5, 97.5])
    return float(low), float(high)


def paired_interval(
    target: np.ndarray, first: list[np.ndarray], second: np.ndarray, trial: np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """Mean R2 of `first` (one array a training seed) minus R2 of `second`: value and 95 % interval.

    Trials and seeds are resampled together, the same trials for both decoders.
    """
    ours = np.stack([_by_trial(target, f, trial) for f in first])
    theirs = _by_trial(target, second, trial)
    rng = np.random.default_rng(seed)
    draw = rng.integers(0, len(theirs), (N_BOOTSTRAP, len(theirs)))
    seeds = rng.integers(0, len(ours), (N_BOOTSTRAP, len(ours)))
    each = np.stack([_r2_of_sums(o[draw].sum(1)) for o in ours])
    gain = np.take_along_axis(each, seeds.T, axis=0).mean(0) - _r2_of_sums(theirs[draw].sum(1))
    point = np.mean([_r2_of_sums(o.sum(0)) for o in ours]) - _r2_of_sums(theirs.sum(0))
    low, high = np.percentile(gain, [2.5, 97.5])
    return float(point), float(low), float(high)


def peak_lag(target: np.ndarray, value: np.ndarray, trial: np.ndarray, max_lag: int = 25) -> int:
    """Bins by which the decoded trace trails the target: the peak of their correlation within trials."""
    best, best_lag = -np.inf, 0
    for lag in range(-max_lag, max_lag + 1):
        a, b = (target[: len(target) - lag], value[lag:]) if lag >= 0 else (target[-lag:], value[:lag])
        ta, tb = (trial[: len(trial) - lag], trial[lag:]) if lag >= 0 else (trial[-lag:], trial[:lag])
        same = ta == tb
        if same.sum() > 2 and a[same].std() > 0 and b[same].std() > 0:
            correlation = float(np.corrcoef(a[same], b[same])[0, 1])
            if correlation > best:
                best, best_lag = correlation, lag
    return best_lag


def balanced_accuracy(label: np.ndarray, choice: np.ndarray, n_classes: int) -> float:
    """Mean recall over the classes that occur."""
    return float(np.mean([(choice[label == c] == c).mean() for c in range(n_classes) if (label == c).any()]))


def accuracy_interval(label: np.ndarray, choice: np.ndarray, n_classes: int, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of balanced accuracy, one trial a row."""
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, len(label), len(label)) for _ in range(N_BOOTSTRAP))
    values = [balanced_accuracy(label[d], choice[d], n_classes) for d in draws]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def contrast(
    probs: np.ndarray, prior: np.ndarray, classes: tuple[str, ...], pair: tuple[tuple[str, ...], tuple[str, ...]]
) -> np.ndarray:
    """0 or 1 per row of probs (n, C): which side of a two-class contrast has more evidence.

    Posteriors are divided by the training prior of their side, so that the frequent side does
    not win by being frequent.
    """
    sides = [[classes.index(c) for c in side] for side in pair]
    evidence = [probs[:, s].sum(1) / prior[s].sum() for s in sides]
    return (evidence[1] > evidence[0]).astype(np.int64)
