"""Nested cross-validation of a linear classifier, its permutation null, and paired intervals.

The classifier is ridge regression on one-against-all targets with classes weighted to equal share
(Hastie, Tibshirani & Friedman, Elements of Statistical Learning, sec. 4.2; scikit-learn's
RidgeClassifier with class_weight="balanced"): one eigendecomposition serves every penalty, which
is what makes hundreds of permutations affordable. Scaling and penalty are chosen on training rows only.
"""

from __future__ import annotations

import numpy as np

from neds_core.scores import bootstrap

PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)


def ridge_classes(
    x: np.ndarray, label: np.ndarray, held: np.ndarray, n_classes: int, penalties: tuple[float, ...] = PENALTIES
) -> np.ndarray:
    """Fit on x (n, F), label (n,) int; returns classes (P, m) of held (m, F), one row for each penalty.

    Columns are z-scored by the training rows' mean and sd. A class without training rows is never given.
    """
    mean, sd = x.mean(0), x.std(0)
    scale = np.where(sd > 1e-9, sd, 1.0)
    z, z_held = (x - mean) / scale, (held - mean) / scale
    n = np.bincount(label, minlength=n_classes)
    weight = (len(label) / ((n > 0).sum() * np.maximum(n, 1)))[label]
    target = np.where(label[:, None] == np.arange(n_classes), 1.0, -1.0)
    z_mean, y_mean = (weight @ v / weight.sum() for v in (z, target))
    root = np.sqrt(weight)[:, None]
    a, b = (z - z_mean) * root, (target - y_mean) * root
    value, vector = np.linalg.eigh(a.T @ a)
    cross, reach = vector.T @ (a.T @ b), (z_held - z_mean) @ vector
    out = np.empty((len(penalties), len(held)), np.int64)
    for p, penalty in enumerate(penalties):
        score = reach @ (cross / (value.clip(min=0.0) + penalty)[:, None]) + y_mean
        out[p] = np.where(n > 0, score, -np.inf).argmax(1)
    return out


def stratified_folds(label: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of each row (n,) int64: the rows of each class are dealt out evenly, at random."""
    fold = np.empty(len(label), np.int64)
    for c in np.unique(label):
        rows = rng.permutation(np.flatnonzero(label == c))
        fold[rows] = (np.arange(len(rows)) + rng.integers(n_folds)) % n_folds
    return fold


def group_folds(group: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of each row (n,) int64: whole groups (sessions) are dealt out at random."""
    names = rng.permutation(np.unique(group))
    place = {name: k % n_folds for k, name in enumerate(names.tolist())}
    return np.array([place[g] for g in group.tolist()], np.int64)


def predict(
    x: np.ndarray, label: np.ndarray, n_classes: int, group: np.ndarray | None = None, seed: int = 0, n_folds: int = 5
) -> np.ndarray:
    """Class of each row (n,), predicted by a classifier that never saw the row, nor its group if groups are given.

    x (n, F); label (n,) int64; group (n,) int64: leave one group out, whole groups inside as well.
    The penalty is chosen by an inner cross-validation of the training rows (balanced accuracy).
    """
    rng = np.random.default_rng(seed)
    outer = stratified_folds(label, n_folds, rng) if group is None else np.unique(group, return_inverse=True)[1]
    out = np.empty(len(label), np.int64)
    for f in np.unique(outer):
        train, test = outer != f, outer == f
        x_in, y_in = x[train], label[train]
        inner = stratified_folds(y_in, n_folds, rng) if group is None else group_folds(group[train], n_folds, rng)
        guess = np.empty((len(PENALTIES), len(y_in)), np.int64)
        for g in np.unique(inner):
            rows = inner == g
            guess[:, rows] = ridge_classes(x_in[~rows], y_in[~rows], x_in[rows], n_classes)
        skill = [balanced(y_in, (row == y_in).astype(np.float64)) for row in guess]
        out[test] = ridge_classes(x_in, y_in, x[test], n_classes, (PENALTIES[int(np.argmax(skill))],))[0]
    return out


def balanced(label: np.ndarray, hit: np.ndarray) -> float:
    """Mean over the classes that occur of their rows' mean hit (n,), 0 to 1: balanced accuracy."""
    n = np.bincount(label)
    return float((np.bincount(label, hit)[n > 0] / n[n > 0]).mean())


def permutation_null(
    x: np.ndarray,
    label: np.ndarray,
    n_classes: int,
    session: np.ndarray,
    leave_out: bool,
    n_permutations: int,
    seed: int = 0,
) -> np.ndarray:
    """Balanced accuracies (P,) of the whole procedure with labels shuffled within each session (n,)."""
    found = []
    for p in range(n_permutations):
        rng = np.random.default_rng((seed, p))
        shuffled = label.copy()
        for s in np.unique(session):
            rows = np.flatnonzero(session == s)
            shuffled[rows] = label[rng.permutation(rows)]
        guess = predict(x, shuffled, n_classes, session if leave_out else None, seed)
        found.append(balanced(shuffled, (guess == shuffled).astype(np.float64)))
    return np.array(found)


def p_value(observed: float, null: np.ndarray) -> float:
    """(1 + permutations that reach the observed value) / (1 + permutations): Phipson & Smyth 2010."""
    return float((1 + (null >= observed).sum()) / (1 + len(null)))


def interval(
    label: np.ndarray, first: np.ndarray, second: np.ndarray | float, group: np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """Balanced accuracy of hits `first` (n,) minus that of `second`: value and 95 % percentile interval.

    Groups (n,) are resampled whole: units where each row is its own group, else sessions. Hits may be
    shares over repeats. Classes that a resample lost are left out of its mean. second = 0.0: `first` alone.
    """
    gap = first - second
    _, row = np.unique(group, return_inverse=True)
    n_classes = int(label.max()) + 1
    n, hits = np.zeros((row.max() + 1, n_classes)), np.zeros((row.max() + 1, n_classes))
    np.add.at(n, (row, label), 1.0)
    np.add.at(hits, (row, label), gap)
    times = bootstrap.RULES.times
    drawn = np.random.default_rng(seed).integers(0, len(n), (times, len(n)))
    drawn += np.arange(times)[:, None] * len(n)
    draw = np.bincount(drawn.ravel(), minlength=times * len(n)).reshape(times, len(n)).astype(np.float64)
    total, gained = draw @ n, draw @ hits
    with np.errstate(invalid="ignore"):
        values = np.nanmean(np.where(total > 0, gained / total, np.nan), axis=1)
    low, high = np.percentile(values, [2.5, 97.5])
    return balanced(label, gap), float(low), float(high)


def confusion(label: np.ndarray, guesses: list[np.ndarray], n_classes: int) -> np.ndarray:
    """Mean counts (C, C) over repeats: rows are true classes, columns are given ones."""
    total = np.zeros((n_classes, n_classes))
    for guess in guesses:
        np.add.at(total, (label, guess), 1.0 / len(guesses))
    return total
