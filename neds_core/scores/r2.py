"""Scores of a decoder, each with its formula, and intervals by bootstrap over trials."""

from __future__ import annotations

import numpy as np

from neds_core.scores import bootstrap

ROUNDING = 1e-12  # of a sum of squares: a difference of float64 sums below it is nothing but rounding


def _centred(target: np.ndarray) -> np.ndarray:
    """(n,) float64 about the mean; exactly 0 where the target is constant, which a rounded mean would not give."""
    out = target.astype(np.float64)
    out = out - out[:1].sum()
    return out - out.mean() if len(out) else out


def r2(target: np.ndarray, value: np.ndarray, reference: np.ndarray | None = None) -> float:
    """1 - SSE / sum of squares about `reference` (default: the target's own mean), pooled over bins.

    NaN for a target without spread.
    """
    about = _centred(target) if reference is None else target.astype(np.float64) - reference
    spread = float((about**2).sum())
    return 1.0 - float(((target.astype(np.float64) - value) ** 2).sum()) / spread if spread > 0 else float("nan")


def r2_sums(target: np.ndarray, value: np.ndarray, trial: np.ndarray) -> np.ndarray:
    """Rows of (n, sum y, sum y^2, SSE) for each trial: enough for the R2 of any resample.

    y is the target about its overall mean: the spread is a difference of sums, and a place of 480 +- 5 pixels
    would lose digits in it.
    """
    _, index = np.unique(trial, return_inverse=True)
    y = _centred(target)
    columns = (np.ones_like(y), y, y**2, (target.astype(np.float64) - value) ** 2)
    return np.stack([np.bincount(index, c) for c in columns], axis=1)


def r2_of_sums(sums: np.ndarray) -> np.ndarray:
    """R2 about the target's own mean, of rows as `r2_sums` makes them, added up (..., 4); NaN without spread."""
    n, total, square, error = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    spread = square - total**2 / n
    spread = np.where(spread > ROUNDING * square, spread, np.nan)
    return 1.0 - error / spread


def r2_interval(target: np.ndarray, value: np.ndarray, trial: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of R2, resampling whole trials (or blocks)."""
    found = bootstrap.interval(r2_sums(target, value, trial), r2_of_sums, seed)
    return found.low, found.high


def paired_interval(
    target: np.ndarray, first: list[np.ndarray], second: np.ndarray, trial: np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """Mean R2 of `first` (one array a training seed) minus R2 of `second`: value and 95 % interval.

    Trials and seeds are resampled together, the same trials for both decoders.
    """
    ours = [r2_sums(target, f, trial) for f in first]
    return bootstrap.paired(ours, r2_sums(target, second, trial), r2_of_sums, seed)


def peak_lag(target: np.ndarray, value: np.ndarray, trial: np.ndarray, max_lag: int = 25) -> int:
    """Bins by which the decoded trace trails the target: the peak of their correlation within trials."""
    best, best_lag = -np.inf, 0
    max_lag = min(max_lag, len(target) - 1)
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


def recall_sums(label: np.ndarray, choice: np.ndarray, n_classes: int) -> np.ndarray:
    """Rows of (is class c, is class c and guessed so) for each trial (n, 2C)."""
    occurs = label[:, None] == np.arange(n_classes)
    return np.concatenate([occurs, occurs & (choice == label)[:, None]], axis=1).astype(np.float64)


def balanced_accuracy_of_sums(sums: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that occur, of rows as `recall_sums` makes them, added up (..., 2C)."""
    occurs, right = np.split(sums, 2, axis=-1)
    return (right / np.maximum(occurs, 1.0)).sum(-1) / (occurs > 0).sum(-1)


def accuracy_interval(label: np.ndarray, choice: np.ndarray, n_classes: int, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of balanced accuracy, one trial a row."""
    found = bootstrap.interval(recall_sums(label, choice, n_classes), balanced_accuracy_of_sums, seed)
    return found.low, found.high


def guess(probs: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(n,) int64: the class that the spikes speak for most in each row of probs (n, C), -1 where there is no value.

    prior (C,): the class shares in training, which probabilities are divided by.
    """
    known, out = np.isfinite(probs).all(1), np.full(len(probs), -1, np.int64)
    out[known] = (probs[known] / prior).argmax(1)
    return out


def contrast(
    probs: np.ndarray, prior: np.ndarray, classes: tuple[str, ...], pair: tuple[tuple[str, ...], tuple[str, ...]]
) -> np.ndarray:
    """0 or 1 per row of probs (n, C): which side of a two-class contrast has more evidence; -1 where there is no value.

    Posteriors are divided by the training prior of their side, so that the frequent side does
    not win by being frequent.
    """
    sides = [[classes.index(c) for c in side] for side in pair]
    evidence = [probs[:, s].sum(1) / prior[s].sum() for s in sides]
    return np.where(np.isfinite(probs).all(1), evidence[1] > evidence[0], -1)
