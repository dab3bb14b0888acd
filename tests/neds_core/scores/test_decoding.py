"""Curves of a decoder against time, on relations that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score

from neds_core.scores import decoding as decoding_scores


def trials(n: int, n_bins: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise of n trials joined, and the trial of each bin."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=n * n_bins), np.repeat(np.arange(n), n_bins)


@pytest.mark.parametrize("delay", [-3, 0, 7])
def test_the_best_delay_is_that_of_the_decoder(delay: int) -> None:
    """A decoder that says at bin t + delay what happened at bin t is perfect there, and nowhere else."""
    target, trial = trials(20, 50)
    value = np.roll(target, delay)

    curve = decoding_scores.delay_curve(target, value, trial)

    assert curve.delay_bins.tolist() == list(range(-5, 26))
    assert curve.best() == delay
    assert curve.r2[curve.delay_bins == delay] == 1.0
    assert (curve.r2[curve.delay_bins != delay] < 0).all()
    assert curve.n == 20 * (50 - 5 - 25)


@pytest.mark.parametrize(("n_bins", "delays"), [(1, (0, 0)), (4, (-1, 2)), (20, (-5, 10)), (41, (-5, 25))])
def test_a_short_trial_has_fewer_delays(n_bins: int, delays: tuple[int, int]) -> None:
    """Zero is always among them, and a quarter of the trial is left to score."""
    target, trial = trials(30, n_bins)
    curve = decoding_scores.delay_curve(target, target, trial)

    assert (curve.delay_bins[0], curve.delay_bins[-1]) == delays
    assert curve.n == 30 * (n_bins - len(curve.delay_bins) + 1)
    assert curve.best() == 0


def test_delays_never_join_trials_nor_meet_the_unknown() -> None:
    """At delay 2 of trials of 3 bins only their first bin has a partner; what is NaN on either side has none."""
    target, trial = np.array([1.0, 2.0, 3.0, np.nan, 5.0, 6.0, 7.0, 8.0, 9.0]), np.repeat([0, 1, 2], 3)
    value = np.arange(9.0) * 10
    value[3] = np.nan

    def pairs(delay: int) -> list[tuple[float, float]]:
        later, known = decoding_scores.at_delay(target, value, trial, delay)
        return list(zip(target[known].tolist(), later[known].tolist(), strict=True))

    assert pairs(2) == [(1.0, 20.0), (7.0, 80.0)]
    assert pairs(-1) == [(2.0, 0.0), (3.0, 10.0), (6.0, 40.0), (8.0, 60.0), (9.0, 70.0)]
    assert pairs(20) == []


def test_r2_by_position_is_scikit_learns_in_every_column() -> None:
    """Trials of 10 bins; a bin where the target is the same in every trial has no R2."""
    rng = np.random.default_rng(3)
    target = rng.normal(480.0, 1.0, (30, 10))
    value = target + rng.normal(0, np.linspace(0, 2, 10), (30, 10))
    target[:, 4] = 480.1
    value[2, 6] = np.nan

    found = decoding_scores.r2_by_position(target.ravel(), value.ravel(), np.tile(np.arange(10), 30), 10)

    others = [p for p in range(10) if p not in (4, 6)]
    assert np.isnan(found[4])
    # 1e-6: sums of squares about 480 lose six digits
    assert found[others] == pytest.approx([r2_score(target[:, p], value[:, p]) for p in others], abs=1e-6)
    kept = np.arange(30) != 2
    assert found[6] == pytest.approx(r2_score(target[kept, 6], value[kept, 6]), abs=1e-6)


@given(seed=st.integers(0, 2**31), n_values=st.integers(1, 9))
def test_auc_and_accuracy_are_scikit_learns(seed: int, n_values: int) -> None:
    """Ties included, down to a score that never varies."""
    rng = np.random.default_rng(seed)
    label = np.r_[0, 1, rng.integers(0, 2, 20)]
    score = rng.integers(0, n_values, 22).astype(float)

    assert decoding_scores.auc(label, score) == pytest.approx(roc_auc_score(label, score))
    guess = (score > n_values / 2).astype(int)
    assert decoding_scores.accuracy(label, guess) == accuracy_score(label, guess)


def test_auc_needs_both_classes() -> None:
    """There is nothing to tell apart."""
    assert np.isnan(decoding_scores.auc(np.ones(4), np.arange(4.0)))


def test_class_curves_are_aligned_to_the_event() -> None:
    """Evidence that appears at each trial's event, and is noise before, is found there and not before."""
    rng = np.random.default_rng(5)
    label = np.r_[rng.integers(0, 2, 200), -1]
    event = np.r_[rng.integers(4, 12, 199), -1, 5]  # one trial without an event, one without a label
    score = rng.normal(size=(201, 16))
    after = np.arange(16) >= event[:, None]
    score = np.where(after, 2.0 * label[:, None] - 1.0, score)
    score[0, event[0] - 2] = np.nan

    curve = decoding_scores.class_curve(label, score, event, -6, 2)

    assert curve.offset_bins.tolist() == list(range(-6, 3))
    assert (curve.auc[6:] == 1.0).all()
    assert (curve.accuracy[6:] == 1.0).all()
    assert np.abs(curve.balanced_accuracy[:6] - 0.5).max() < 0.18  # five standard errors over 199 trials
    assert curve.n[6:].tolist() == [199] * 3
    assert curve.n[4] == 198
    assert curve.n[0] == int(((event >= 6) & (label >= 0)).sum())


def test_class_curves_without_both_classes_have_no_balanced_accuracy() -> None:
    """Accuracy alone is defined."""
    curve = decoding_scores.class_curve(np.array([1, 1]), np.array([[1.0], [-1.0]]), np.array([0, 0]), 0, 1)

    assert curve.accuracy[0] == 0.5
    assert np.isnan([curve.balanced_accuracy[0], curve.auc[0], curve.accuracy[1]]).all()
    assert curve.n.tolist() == [2, 0]


def test_movement_starts_where_it_lasts() -> None:
    """A twitch of two bins is none; unknown speed is no movement."""
    speed = np.array([[0, 3, 3, 0, 3, 3, 3, 0], [0, 0, 1, 0, 0, 0, 0, 0], [np.nan, -2, -2, -2, 0, 0, 0, 0]], float)

    assert decoding_scores.movement_onset(speed, 2.0).tolist() == [4, -1, 1]
    assert decoding_scores.movement_onset(speed[:, :2], 2.0).tolist() == [-1, -1, -1]
