"""Two-way logistic regression on counts in wide windows, solved among trials instead of among units.

With more columns than trials the solution lies in the span of the trials, so everything it needs are the
inner products of the trials: the same minimum as `neds_core.linear.linear.logistic_fit`, which is its slow twin, and
hundreds of fits a second.
"""

from __future__ import annotations

import numpy as np

from neds_core.data.session import Session
from neds_core.linear import linear

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # for a column: kernels are means over columns
FOLDS = 5
NEWTON_STEPS = 30
SMALLEST_SHARE = 1e-6  # of a trial's curvature: a trial that is told with certainty must not make a step infinite


def windows(session: Session, width_ms: float = 100.0) -> np.ndarray:
    """(S, W, U) float32: square root of the counts in windows of a trial; segments of one length."""
    size = round(width_ms * 1e6 / session.bin_ns)
    starts, stops = session.segments[:, 0], session.segments[:, 1]
    n_windows = int((stops - starts).min()) // size
    bins = starts[:, None] + np.arange(n_windows * size)
    counts = session.counts[bins].reshape(len(starts), n_windows, size, -1)
    return np.sqrt(counts.sum(2, dtype=np.float32))


def inner(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(S, S) inner products, a column, of the rows of x (S, F) z-scored with mean and sd of the rows `train` (S,)."""
    mean, sd = x[train].mean(0, dtype=np.float64), x[train].std(0, dtype=np.float64)
    varies = sd > 1e-6
    z = ((x[:, varies] - mean[varies]) / sd[varies]).astype(np.float32)
    return (z @ z.T).astype(np.float64) / max(1, z.shape[1])


def fit(
    kernel: np.ndarray, label: np.ndarray, penalty: float, start: tuple[np.ndarray, float] | None = None
) -> tuple[np.ndarray, float]:
    """Weights (n,) and offset: evidence for class 1 is kernel @ weights + offset.

    kernel (n, n), label (n,) 0 or 1, both there. Minimises the cross-entropy of trials weighted to equal classes plus
    penalty / 4 * |w|^2, as a two-way `linear.logistic_fit` does, by Newton's method. start: the solution for another
    penalty.
    """
    n = len(label)
    weight = (n / (2.0 * np.maximum(np.bincount(label, minlength=2), 1)))[label]
    ridge = penalty / 2.0
    alpha, offset = start or (np.zeros(n), 0.0)

    def objective(alpha: np.ndarray, offset: float) -> float:
        said = kernel @ alpha
        signed = (1 - 2 * label) * (said + offset)
        return float((weight * np.logaddexp(0.0, signed)).sum() + 0.5 * ridge * alpha @ said)

    now = objective(alpha, offset)
    for _ in range(NEWTON_STEPS):
        said = kernel @ alpha + offset
        p = 1.0 / (1.0 + np.exp(-said))
        curve = np.maximum(weight * p * (1.0 - p), SMALLEST_SHARE)
        goal = said - weight * (p - label) / curve
        solved = np.linalg.solve(kernel + np.diag(ridge / curve), np.stack([np.ones(n), goal], 1))
        b = solved[:, 1].sum() / solved[:, 0].sum()
        a, share = solved[:, 1] - b * solved[:, 0], 1.0
        step_a, step_b = a - alpha, b - offset
        while (then := objective(alpha + share * step_a, offset + share * step_b)) > now and share > 1e-4:
            share /= 2.0
        if share <= 1e-4:
            break
        alpha, offset = alpha + share * step_a, offset + share * step_b
        gained, now = now - then, then
        if gained < 1e-8 * n:
            break
    return alpha, float(offset)


def evidence(
    kernels: list[np.ndarray], label: np.ndarray, train: np.ndarray, penalties: tuple[float, ...] = PENALTIES
) -> np.ndarray:
    """(S,) evidence for class 1 of every trial from the trials `train` (S,) bool; label (S,), -1 = left out.

    Of `kernels` (S, S) each and of the ascending penalties, the pair with the least class-balanced cross-entropy over
    contiguous blocks of the training trials is fitted on all of them. A class that training lacks is never said.
    """
    rows = np.flatnonzero(train & (label >= 0))
    y = label[rows]
    if len(np.unique(y)) < 2:
        return np.full(len(label), 1.0 if y.any() else -1.0)
    weight = (1.0 / np.bincount(y))[y]
    loss = np.zeros((len(kernels), len(penalties)))
    for held in linear.folds(np.arange(len(rows)), min(FOLDS, len(rows))):
        signed = (1 - 2 * y[held])[:, None]
        for k, kernel in enumerate(kernels):
            said = _path(kernel, y[~held], rows[~held], rows[held], penalties)
            loss[k] += (weight[held, None] * np.logaddexp(0.0, signed * said)).sum(0)
    k, p = np.unravel_index(int(loss.argmin()), loss.shape)
    return _path(kernels[k], y, rows, np.arange(len(label)), penalties[p:])[:, 0]


def _path(
    kernel: np.ndarray, y: np.ndarray, train: np.ndarray, held: np.ndarray, penalties: tuple[float, ...]
) -> np.ndarray:
    """(held, P) evidence for each of the ascending penalties, each fit started from that of the next stronger one."""
    if y.min() == y.max():
        return np.full((len(held), len(penalties)), 1.0 if y[0] else -1.0)
    inside, across = kernel[np.ix_(train, train)], kernel[np.ix_(held, train)]
    said = np.empty((len(held), len(penalties)))
    found: tuple[np.ndarray, float] | None = None
    for p in reversed(range(len(penalties))):
        found = fit(inside, y, penalties[p], found)
        said[:, p] = across @ found[0] + found[1]
    return said
