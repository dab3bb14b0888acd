"""Intervals that cover what they should, at each level of resampling."""

from __future__ import annotations

import numpy as np
import pytest

from neds_core.scores import bootstrap


def mean(sums: np.ndarray) -> np.ndarray:
    """Mean of a quantity whose rows are (n, sum)."""
    return sums[..., 1] / sums[..., 0]


def rows(values: np.ndarray) -> np.ndarray:
    """(n, 2) sums of trials of one bin each."""
    return np.stack([np.ones_like(values), values], axis=1)


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    """Standard error sd / sqrt(n), for a statistic whose interval is known."""
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)

    value, low, high = bootstrap.interval(rows(values), mean)

    assert value == pytest.approx(values.mean())
    # 10 %: a percentile of 2000 resamples has a standard error of about 3 % of the width
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20.0, rel=0.1)


def test_a_trial_counts_by_its_bins() -> None:
    """A trial of 30 bins weighs as 30 of one bin in the score, and is drawn whole."""
    sums = np.array([[30.0, 30.0], [1.0, 0.0], [1.0, 0.0]])

    value, low, high = bootstrap.interval(sums, mean)

    assert value == pytest.approx(30 / 32)
    assert (low, high) == (0.0, 1.0)  # 8 of 27 resamples lack the long trial, 1 of 27 the short ones


def test_segments_are_drawn_whole_and_blocks_where_they_are_few() -> None:
    """Five trials are enough to draw from; of four, or one, a draw takes 10 s: 500 bins of 20 ms."""
    rules, bin_ns = bootstrap.Resampling(), 20_000_000

    trials, few = np.repeat(np.arange(5), 300), np.repeat(np.arange(4), 300)

    np.testing.assert_array_equal(rules.groups(trials, bin_ns), trials)
    np.testing.assert_array_equal(rules.groups(few, bin_ns), np.repeat([0, 1, 2], [500, 500, 200]))
    assert rules.enough(trials)
    assert not rules.enough(few)


def test_pairing_takes_away_what_two_decoders_share() -> None:
    """Unlike trials, and a gain that is the same in each: the paired interval has no width, the single ones have."""
    values = np.random.default_rng(1).normal(0.0, 5.0, 60)

    gain = bootstrap.paired([rows(values + 0.1)], rows(values), mean)

    assert gain == pytest.approx((0.1, 0.1, 0.1))
    assert np.ptp(bootstrap.interval(rows(values), mean)[1:]) > 2.0


def test_mice_that_differ_widen_the_interval() -> None:
    """Twenty trials in each of three sessions of five mice: the spread between mice, not between trials, decides."""
    rng = np.random.default_rng(2)
    mouse, session = np.arange(300) // 60, np.arange(300) // 20
    offset = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])[mouse]
    values = offset + 0.1 * rng.normal(size=300)

    flat = bootstrap.interval(rows(values), mean)
    nested = bootstrap.hierarchical(rows(values), session, mouse, mean)

    assert nested.value == pytest.approx(flat.value)
    # of five mice: standard error sqrt(2 / 5); 10 %: the resampling's own noise
    assert nested.high - nested.low == pytest.approx(2 * 1.96 * np.sqrt(2 / 5), rel=0.1)
    assert flat.high - flat.low < 0.5 * (nested.high - nested.low)


def test_sessions_weigh_alike_however_long() -> None:
    """Two sessions of one mouse, 5 and 500 trials."""
    session = np.repeat([7, 3], [5, 500])
    values = np.where(session == 7, 1.0, 0.0)

    value, low, high = bootstrap.hierarchical(rows(values), session, np.zeros(505, int), mean)

    assert value == 0.5
    assert (low, high) == (0.0, 1.0)


def test_trials_are_resampled_inside_their_session() -> None:
    """One mouse, one session: the hierarchical interval is that of its trials."""
    values = np.random.default_rng(3).normal(size=100)
    one = np.zeros(100, int)

    nested = bootstrap.hierarchical(rows(values), one, one, mean)
    flat = bootstrap.interval(rows(values), mean)

    assert nested.value == pytest.approx(flat.value)
    assert nested.high - nested.low == pytest.approx(flat.high - flat.low, rel=0.1)


def test_the_paired_hierarchical_gain_is_paired() -> None:
    """Mice differ by far more than decoders do, and the gain's interval knows nothing of it."""
    mouse = np.arange(120) // 30
    values = 10.0 * mouse + np.random.default_rng(4).normal(size=120)

    gain = bootstrap.hierarchical_paired(rows(values + 0.25), rows(values), np.arange(120) // 15, mouse, mean)

    assert gain == pytest.approx((0.25, 0.25, 0.25))


def test_resamples_without_a_score_are_left_out() -> None:
    """A ratio whose denominator is missing from some resamples keeps a finite interval."""
    sums = np.array([[1.0, 2.0], [0.0, 0.0]])

    def ratio(total: np.ndarray) -> np.ndarray:
        return np.where(total[..., 0] > 0, total[..., 1] / np.maximum(total[..., 0], 1.0), np.nan)

    assert bootstrap.interval(sums, ratio) == (2.0, 2.0, 2.0)


def test_seeds_of_either_side_widen_the_paired_interval() -> None:
    """The same trials twice: no doubt but that about the training seeds, on whichever side they disagree."""
    one, other = rows(np.ones(40)), rows(np.full(40, 2.0))

    assert bootstrap.paired([one], [one], mean) == (0.0, 0.0, 0.0)
    assert bootstrap.paired([one, other], one, mean) == (0.5, 0.0, 1.0)
    assert bootstrap.paired([one], [one, other], mean) == (-0.5, -1.0, 0.0)
    assert bootstrap.pooled([one, other], mean) == (1.5, 1.0, 2.0)
