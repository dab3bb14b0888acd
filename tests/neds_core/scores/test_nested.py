"""The classifier is scikit-learn's, nothing leaks, and chance looks like chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, confusion_matrix
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neds_core.scores import nested


def clusters(n: int, n_classes: int, n_columns: int, gap: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """x (n, F) around class centres `gap` apart, and labels of unequal shares."""
    rng = np.random.default_rng(seed)
    share = np.arange(1, n_classes + 1) / np.arange(1, n_classes + 1).sum()
    label = rng.choice(n_classes, n, p=share)
    return rng.normal(size=(n, n_columns)) + gap * rng.normal(size=(n_classes, n_columns))[label], label


@pytest.mark.parametrize(("n", "n_columns"), [(60, 5), (40, 70)])  # more rows than columns, and fewer
@pytest.mark.parametrize("n_classes", [2, 4])
def test_classes_are_scikit_learns(n: int, n_columns: int, n_classes: int) -> None:
    """RidgeClassifier with balanced weights on z-scored columns, at every penalty."""
    x, label = clusters(n, n_classes, n_columns, 0.7, seed=n + n_classes)
    x[:, 0] = 3.0  # a constant column is no fault
    held, _ = clusters(50, n_classes, n_columns, 0.7, seed=1)

    got = nested.ridge_classes(x, label, held, n_classes, (1.0, 30.0, 1e4))

    for row, penalty in zip(got, (1.0, 30.0, 1e4), strict=True):
        theirs = make_pipeline(StandardScaler(), RidgeClassifier(alpha=penalty, class_weight="balanced"))
        np.testing.assert_array_equal(row, theirs.fit(x, label).predict(held))


def test_a_class_without_training_rows_is_never_given() -> None:
    """Class 1 of three is missing."""
    x, label = clusters(80, 2, 4, 1.0, seed=0)

    got = nested.ridge_classes(x, label * 2, x, 3)

    assert set(np.unique(got)) == {0, 2}


@given(seed=st.integers(0, 2**31), n=st.integers(10, 80), n_folds=st.integers(2, 6))
def test_folds_are_even_in_every_class(seed: int, n: int, n_folds: int) -> None:
    """The sizes of two folds differ by one at most in each class; groups are never cut."""
    rng = np.random.default_rng(seed)
    label, group = rng.integers(0, 3, n), rng.integers(0, 7, n)

    fold = nested.stratified_folds(label, n_folds, rng)
    whole = nested.group_folds(group, n_folds, rng)

    for c in np.unique(label):
        assert np.ptp(np.bincount(fold[label == c], minlength=n_folds)) <= 1
    for g in np.unique(group):
        assert len(np.unique(whole[group == g])) == 1


def test_a_row_is_predicted_by_others_only() -> None:
    """1-of-n columns tell a classifier everything about rows it has seen and nothing about others."""
    label = np.arange(60) % 3
    guess = nested.predict(np.eye(60), label, 3)

    assert nested.balanced(label, (guess == label).astype(float)) < 0.45


def test_a_group_is_predicted_by_other_groups_only() -> None:
    """Classes whose columns mean something else in every session are told within sessions, not across them."""
    rng = np.random.default_rng(0)
    label, session = rng.integers(0, 3, 360), np.arange(360) // 60
    own = rng.normal(size=(6, 3, 40))[session, label] + 0.1 * rng.normal(size=(360, 40))

    mixed = nested.predict(own, label, 3)
    left_out = nested.predict(own, label, 3, group=session)
    shared = nested.predict(own + 3 * rng.normal(size=(3, 40))[label], label, 3, group=session)

    assert nested.balanced(label, (mixed == label).astype(float)) > 0.6
    assert nested.balanced(label, (left_out == label).astype(float)) < 0.5
    assert nested.balanced(label, (shared == label).astype(float)) > 0.9


def test_permuted_labels_give_chance_and_real_ones_do_not() -> None:
    """Shares of classes within each session stay, so a session that tells the class is part of the null."""
    x, label = clusters(150, 3, 6, 1.2, seed=2)
    session = (label == 0).astype(np.int64)  # class 0 has a session of its own
    tells = np.column_stack([x, 50.0 * session])
    observed = nested.balanced(label, (nested.predict(tells, label, 3) == label).astype(float))

    within = nested.permutation_null(tells, label, 3, session, False, 20)
    across = nested.permutation_null(tells, label, 3, np.zeros(150, np.int64), False, 20)

    assert abs(across.mean() - 1 / 3) < 0.05
    assert abs(within.mean() - 2 / 3) < 0.1  # class 0 is told by its session, the others by nothing
    assert nested.p_value(observed, within) == pytest.approx(1 / 21)
    assert nested.p_value(within.min(), within) == 1.0


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_balanced_accuracy_and_confusion_are_scikit_learns(seed: int) -> None:
    """Over repeats, counts are means."""
    rng = np.random.default_rng(seed)
    label, guesses = np.arange(40) % 4, [rng.integers(0, 4, 40) for _ in range(3)]

    one = nested.balanced(label, (guesses[0] == label).astype(float))
    matrix = nested.confusion(label, guesses, 4)

    assert one == pytest.approx(balanced_accuracy_score(label, guesses[0]))
    np.testing.assert_allclose(matrix, np.mean([confusion_matrix(label, g) for g in guesses], 0), atol=1e-12)


def test_the_interval_covers_the_long_run() -> None:
    """Of 100 intervals of 200 units with true hit rates 0.8 and 0.5 in two classes, about 95 hold 0.65; 85 leaves room
    for chance. The gap between a classifier and itself has no width."""
    rng = np.random.default_rng(5)
    label = (np.arange(200) % 4 == 0).astype(np.int64)
    covered, hit = 0, label.astype(float)
    for _ in range(100):
        hit = (rng.random(200) < np.where(label == 1, 0.5, 0.8)).astype(float)
        _, low, high = nested.interval(label, hit, 0.0, np.arange(200))
        covered += low < 0.65 < high

    assert covered >= 85
    assert nested.interval(label, hit, hit, np.arange(200)) == (0.0, 0.0, 0.0)


def test_sessions_that_disagree_widen_the_interval() -> None:
    """Ten sessions, half of them wholly right: far less certain than 200 units of which half are right."""
    label = np.zeros(200, np.int64)
    hit = (np.arange(200) // 20 % 2).astype(float)

    _, low, high = nested.interval(label, hit, 0.0, np.arange(200))
    _, wide_low, wide_high = nested.interval(label, hit, 0.0, np.arange(200) // 20)

    assert wide_high - wide_low > 3 * (high - low)
