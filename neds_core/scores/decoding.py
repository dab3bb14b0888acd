"""How good a decoder is when: against read-out delay, place in the trial, and time from an event."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neds_core.scores.r2 import balanced_accuracy, r2


class DelayCurve(NamedTuple):
    """R2 against read-out delay: (K,) each."""

    delay_bins: np.ndarray  # positive: the decoder is read that much later than the behaviour it is held to
    r2: np.ndarray
    n: int  # bins scored, the same at every delay

    def best(self) -> int:
        """Delay in bins with the largest R2, 0 where none has one. Choose it on training data, score it elsewhere."""
        known = np.isfinite(self.r2)
        return int(self.delay_bins[int(np.nanargmax(self.r2))]) if known.any() else 0


def at_delay(target: np.ndarray, value: np.ndarray, trial: np.ndarray, delay: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) values at bin t + delay, and whether bin t is known and has such a partner in its trial.

    target and value (n,), NaN = unknown; trial (n,), bins in order.
    """
    at = np.arange(len(target)) + delay
    inside = (at >= 0) & (at < len(target))
    at = np.where(inside, at, 0)
    later = value[at]
    return later, inside & (trial[at] == trial) & np.isfinite(target) & np.isfinite(later)


def delay_curve(
    target: np.ndarray, value: np.ndarray, trial: np.ndarray, shortest: int = -5, longest: int = 25
) -> DelayCurve:
    """R2 at every delay from `shortest` to `longest` bins (-100 to 500 ms at 20 ms).

    Every delay is held to the same bins, those that have a partner at all of them: another
    part of the trial would have another variance. Delays are fewer where that would leave
    less than a quarter of a trial.
    """
    n_bins = int(np.unique(trial, return_counts=True)[1].max())
    shortest = max(shortest, -(n_bins // 4))
    longest = min(longest, shortest + 3 * n_bins // 4)
    delays = np.arange(shortest, longest + 1)
    found = [at_delay(target, value, trial, int(d)) for d in delays]
    common = np.all([known for _, known in found], axis=0)
    scored = [r2(target[common], later[common]) if common.sum() > 1 else np.nan for later, _ in found]
    return DelayCurve(delays, np.array(scored), int(common.sum()))


def r2_by_position(target: np.ndarray, value: np.ndarray, position: np.ndarray, n_positions: int) -> np.ndarray:
    """(n_positions,) R2 over trials at each bin of the trial, about that bin's own mean; NaN without spread.

    target and value (n,), NaN = unknown; position (n,) bins since the trial's start.
    """
    known = np.isfinite(target) & np.isfinite(value) & (position >= 0) & (position < n_positions)
    y, v, at = target[known], value[known], position[known]
    n, total, square, error = (np.bincount(at, w, n_positions) for w in (np.ones_like(y), y, y**2, (y - v) ** 2))
    spread = square - total**2 / np.maximum(n, 1.0)
    varies = (n > 1) & (spread > 1e-9 * np.maximum(square, 1e-300))  # below: rounding of equal values
    return np.where(varies, 1.0 - error / np.where(varies, spread, 1.0), np.nan)


def accuracy(label: np.ndarray, guess: np.ndarray) -> float:
    """Share of trials guessed right."""
    return float((label == guess).mean())


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: how often a trial of class 1 scores above one of class 0, a tie counting half.

    The Mann-Whitney statistic (Hanley & McNeil 1982). label (n,) 0 or 1; NaN where one class is missing.
    """
    ordered = np.sort(score)
    rank = (np.searchsorted(ordered, score, "left") + np.searchsorted(ordered, score, "right") + 1) / 2.0
    n_one = int((label == 1).sum())
    n_zero = len(label) - n_one
    if not n_one or not n_zero:
        return float("nan")
    return float((rank[label == 1].sum() - n_one * (n_one + 1) / 2.0) / (n_one * n_zero))


class ClassCurve(NamedTuple):
    """Scores of a two-class decision against time from an event: (K,) each, NaN where a class is missing."""

    offset_bins: np.ndarray
    accuracy: np.ndarray
    balanced_accuracy: np.ndarray
    auc: np.ndarray
    n: np.ndarray  # trials that have that bin


def class_curve(label: np.ndarray, score: np.ndarray, event: np.ndarray, shortest: int, longest: int) -> ClassCurve:
    """A decision read at every offset from each trial's event, `shortest` to `longest` bins.

    label (S,) 0 or 1, -1 = unknown; score (S, T): evidence for class 1 minus that for class 0
    at each bin of the trial, NaN = nothing said; event (S,) bin of the trial, -1 = none.
    """
    offsets = np.arange(shortest, longest + 1)
    rows = []
    for offset in offsets:
        at = event + offset
        there = np.flatnonzero((event >= 0) & (label >= 0) & (at >= 0) & (at < score.shape[1]))
        there = there[np.isfinite(score[there, at[there]])]
        y, evidence = label[there], score[there, at[there]]
        guess = (evidence > 0).astype(np.int64)
        both = len(np.unique(y)) == 2
        balanced = balanced_accuracy(y, guess, 2) if both else np.nan
        rows.append((accuracy(y, guess) if len(y) else np.nan, balanced, auc(y, evidence), len(y)))
    right, balanced, area, n = np.array(rows, float).reshape(-1, 4).T
    return ClassCurve(offsets, right, balanced, area, n.astype(np.int64))


def movement_onset(speed: np.ndarray, threshold: float, bins: int = 3) -> np.ndarray:
    """(S,) first bin from which |speed| (S, T) stays at or above `threshold` for `bins` bins; -1 = never."""
    moving = np.abs(np.nan_to_num(speed)) >= threshold
    if moving.shape[1] < bins:
        return np.full(len(speed), -1)
    held = np.lib.stride_tricks.sliding_window_view(moving, bins, axis=1).all(-1)
    return np.where(held.any(-1), held.argmax(-1), -1)
