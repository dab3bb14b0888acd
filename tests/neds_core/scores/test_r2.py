"""Scores against scikit-learn, and intervals that say what they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.metrics import balanced_accuracy_score, r2_score

from neds_core.scores import r2

TRIAL = np.arange(600) // 20


def decoded(seed: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """A smooth target of 30 trials of 20 bins, about 480 as a place in pixels is, and a noisy estimate of it."""
    rng = np.random.default_rng(seed)
    target = np.convolve(rng.normal(size=604), np.ones(5), "valid") + 480.0
    return target, target + noise * rng.normal(size=600)


@given(seed=st.integers(0, 2**31), noise=st.floats(0.1, 5.0))
def test_r2_is_scikit_learns(seed: int, noise: float) -> None:
    """Pooled over bins."""
    target, value = decoded(seed, noise)

    assert r2.r2(target, value) == pytest.approx(r2_score(target, value))


def test_r2_against_a_reference() -> None:
    """The reference itself scores 0, the truth 1; a target without spread has no R2."""
    target, value = decoded(0, 1.0)
    other = np.roll(value, 7)

    assert r2.r2(target, other, reference=other) == 0.0
    assert r2.r2(target, target, reference=other) == 1.0
    assert np.isnan(r2.r2(np.ones(4), np.zeros(4)))


def test_sums_of_float32_lose_no_digits() -> None:
    """A place far from 0: squares of float32 values would hold a few digits of the spread, or none."""
    target, value = (x.astype(np.float32) for x in decoded(0, 0.5))
    target, value = target + np.float32(20_000), value + np.float32(20_000)
    expected = r2_score(target.astype(np.float64), value.astype(np.float64))

    assert r2.r2(target, value) == pytest.approx(expected, rel=1e-9)
    assert r2.r2_of_sums(r2.r2_sums(target, value, TRIAL).sum(0)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("level", [0.0, 0.1, 480.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_target_has_no_r2(level: float, dtype: type) -> None:
    """Neither of all trials nor of a resample, and hence no interval; nobody is warned."""
    target = np.full(600, level, dtype)
    value = target + np.linspace(-1, 1, 600)

    assert np.isnan(r2.r2(target, value))
    assert np.isnan(r2.r2_of_sums(r2.r2_sums(target, value, TRIAL).sum(0)))
    assert np.isnan(r2.r2_interval(target, value, TRIAL)).all()
    half = np.where(TRIAL < 15, target, 3.0)
    assert np.isnan(r2.r2_of_sums(r2.r2_sums(half, value, TRIAL)[:15].sum(0)))


def test_the_interval_is_about_the_score_and_narrows_with_trials() -> None:
    """95 % over trials."""
    target, value = decoded(1, 1.5)

    low, high = r2.r2_interval(target, value, TRIAL)
    few_low, few_high = r2.r2_interval(target[:120], value[:120], TRIAL[:120])

    assert low < r2.r2(target, value) < high
    assert few_high - few_low > 1.3 * (high - low)


def test_the_interval_covers_another_recording() -> None:
    """Of 100 intervals about 95 hold the score of a far longer recording; 85 leaves room for chance."""
    truth = np.mean([r2.r2(*decoded(seed, 2.0)) for seed in range(1000, 1400)])
    intervals = [r2.r2_interval(*decoded(seed, 2.0), TRIAL) for seed in range(100)]

    assert sum(low < truth < high for low, high in intervals) >= 85


def test_identical_decoders_differ_by_nothing() -> None:
    """The paired interval has no width, however few trials there are."""
    target, value = decoded(2, 1.0)

    assert r2.paired_interval(target, [value], value, TRIAL) == (0.0, 0.0, 0.0)


def test_the_paired_interval_finds_the_better_decoder() -> None:
    """Seeds are resampled with the trials; the value is the difference of the mean R2."""
    target, worse = decoded(3, 1.5)
    rng = np.random.default_rng(4)
    better = [target + 0.8 * rng.normal(size=600) for _ in range(3)]

    gain, low, high = r2.paired_interval(target, better, worse, TRIAL)
    loss, loss_low, loss_high = r2.paired_interval(target, [worse], better[0], TRIAL)

    expected = np.mean([r2_score(target, b) for b in better]) - r2_score(target, worse)
    assert gain == pytest.approx(expected)
    assert 0 < low < gain < high
    assert loss_low < loss < loss_high < 0


def test_seeds_that_disagree_widen_the_paired_interval() -> None:
    """Three seeds of unlike quality say less than three of the same mean quality."""
    target, worse = decoded(5, 1.5)
    rng = np.random.default_rng(6)
    noise = rng.normal(size=600)
    alike = [target + s * noise for s in (0.8, 0.8, 0.8)]
    unlike = [target + s * noise for s in (0.1, 0.8, 1.4)]

    _, low, high = r2.paired_interval(target, alike, worse, TRIAL)
    _, unlike_low, unlike_high = r2.paired_interval(target, unlike, worse, TRIAL)

    assert unlike_high - unlike_low > 1.5 * (high - low)


@pytest.mark.parametrize("lag", [-6, -1, 0, 1, 9])
def test_peak_lag_recovers_a_known_shift(lag: int) -> None:
    """Positive where the decoded trace trails the target; trials of 60 bins are never joined."""
    rng = np.random.default_rng(7)
    trials = np.stack([np.convolve(rng.normal(size=104), np.ones(5), "valid") for _ in range(30)])  # (30, 100)
    target, value = trials[:, 20:80], trials[:, 20 - lag : 80 - lag]

    assert r2.peak_lag(target.ravel(), value.ravel(), np.arange(30).repeat(60)) == lag


def test_peak_lag_looks_inside_trials() -> None:
    """Trials of 10 bins that repeat the trial before, 10 bins ago, and trail their own target by one bin."""
    rng = np.random.default_rng(9)
    target = rng.normal(size=(200, 11))
    value = 0.5 * target[:, :-1] + np.roll(target[:, 1:], 1, axis=0)

    assert r2.peak_lag(target[:, 1:].ravel(), value.ravel(), np.arange(200).repeat(10)) == 1


@given(
    label=st.lists(st.integers(0, 2), min_size=2, max_size=30).filter(lambda y: len(set(y)) > 1),
    seed=st.integers(0, 2**31),
)
def test_balanced_accuracy_is_scikit_learns(label: list[int], seed: int) -> None:
    """Mean recall of the classes that occur."""
    y = np.array(label)
    guess = np.where(np.random.default_rng(seed).random(len(y)) < 0.5, y, y.max() - y)
    guess = np.where(np.isin(guess, y), guess, y[0])  # scikit-learn warns of a guess that no label has

    assert r2.balanced_accuracy(y, guess, 3) == pytest.approx(balanced_accuracy_score(y, guess))


def test_accuracy_interval_is_about_the_accuracy() -> None:
    """And a decoder that is always right has no doubt."""
    rng = np.random.default_rng(8)
    label = rng.integers(0, 2, 80)
    guess = np.where(rng.random(80) < 0.8, label, 1 - label)

    low, high = r2.accuracy_interval(label, guess, 2)

    assert 0.5 < low < r2.balanced_accuracy(label, guess, 2) < high < 1.0
    assert r2.accuracy_interval(label, label, 2) == (1.0, 1.0)


def test_a_contrast_weighs_evidence_against_the_prior() -> None:
    """The frequent side does not win by being frequent; sides may hold several classes, others are ignored."""
    classes = ("left", "right", "no_go")
    prior = np.array([0.6, 0.2, 0.2])
    probs = np.array([[0.55, 0.25, 0.2], [0.72, 0.1, 0.18], [0.1, 0.1, 0.8], [0.8, 0.05, 0.15]])

    sides = r2.contrast(probs, prior, classes, (("left",), ("right",)))
    go = r2.contrast(probs, prior, classes, (("left", "right"), ("no_go",)))

    assert sides.tolist() == [1, 0, 1, 0]
    assert go.tolist() == [0, 0, 1, 0]


@given(missing=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=6), seed=st.integers(0, 2**31))
def test_a_value_that_is_not_there_is_no_class(missing: set[tuple[int, int]], seed: int) -> None:
    """Neither the first class nor the first side; the other rows are said as without it."""
    probs = np.random.default_rng(seed).dirichlet(np.ones(3), size=6)
    classes, prior, pair = ("left", "right", "no_go"), np.array([0.5, 0.3, 0.2]), (("left",), ("right",))
    holes, gone = probs.copy(), np.zeros(6, bool)
    for row, column in missing:
        holes[row, column], gone[row] = np.nan, True

    sides, guesses = r2.contrast(holes, prior, classes, pair), r2.guess(holes, prior)

    assert sides.tolist() == np.where(gone, -1, r2.contrast(probs, prior, classes, pair)).tolist()
    assert guesses.tolist() == np.where(gone, -1, (probs / prior).argmax(1)).tolist()


@given(
    label=st.lists(st.integers(0, 2), min_size=1, max_size=20),
    seed=st.integers(0, 2**31),
)
def test_balanced_accuracy_of_sums_is_that_of_trials(label: list[int], seed: int) -> None:
    """What the bootstrap adds up is what the score says, also where a class does not occur."""
    y = np.array(label)
    guess = np.random.default_rng(seed).integers(0, 3, len(y))

    found = r2.balanced_accuracy_of_sums(r2.recall_sums(y, guess, 3).sum(0))

    assert found == pytest.approx(r2.balanced_accuracy(y, guess, 3))
