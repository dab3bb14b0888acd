"""Errors of points and angles: the short way round, and medians whose resamples are those of the errors themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from neds_core.scores import bootstrap, points

degrees, length = st.floats(-720.0, 720.0), st.floats(0.01, 100.0)


def at(angle: float, radius: float = 1.0) -> np.ndarray:
    """(1, 2) cosine and sine, of that length."""
    return radius * np.array([[np.cos(np.radians(angle)), np.sin(np.radians(angle))]])


@given(first=degrees, second=degrees, radius=length)
def test_an_angle_is_off_by_the_short_way_round(first: float, second: float, radius: float) -> None:
    """Whatever the length of what was decoded, and whichever way."""
    (error,), (back,) = (points.turn_deg(at(a), at(b, radius)) for a, b in ((first, second), (second, first)))

    # 1e-6 degrees: arctan2 of float64 near the axes
    assert error == pytest.approx(abs((second - first + 180.0) % 360.0 - 180.0), abs=1e-6)
    assert error == pytest.approx(back, abs=1e-6)


def test_what_is_not_known_has_no_error() -> None:
    assert np.isnan(points.turn_deg(at(3.0), np.array([[np.nan, 1.0]]))).all()
    assert np.isnan(points.distance(np.array([[np.nan, 1.0]]), at(3.0))).all()
    assert points.distance(np.array([[1.0, 2.0]]), np.array([[4.0, 6.0]])).tolist() == [5.0]


@pytest.mark.parametrize("lacks", [False, True])
def test_a_resamples_median_is_that_of_its_blocks(lacks: bool) -> None:
    """Blocks of odd and even size, each put together as often as it was drawn; one may have no error."""
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(6), [3, 8, 1, 5, 4, 2])
    error = rng.exponential(5.0, len(group)).round(1)
    error[group == 2] = np.nan if lacks else 3.0
    times = bootstrap.times_drawn(np.random.default_rng(0), 6, bootstrap.RULES.times).astype(int)

    found = points.median(error, group)

    assert found.value == np.nanmedian(error)
    for r in range(0, bootstrap.RULES.times, 97):
        drawn = np.concatenate([np.tile(error[group == g], n) for g, n in enumerate(times[r])])
        assert found.resampled[r] == np.nanmedian(drawn)


def test_a_difference_is_paired_and_over_seeds() -> None:
    """The hard blocks are hard for both, so a difference is known better than either score; seeds are averaged."""
    rng, group = np.random.default_rng(0), np.repeat(np.arange(12), 200)
    hard = np.repeat(rng.uniform(2.0, 30.0, 12), 200)
    theirs = points.median(hard * rng.uniform(0.5, 1.5, 2400), group)
    ours = [points.median(hard * rng.uniform(0.4, 1.4, 2400), group) for _ in range(3)]

    alone, gain = points.pooled(ours), points.paired(ours, [theirs])

    assert alone.value == pytest.approx(np.mean([each.value for each in ours]))
    assert gain.value == pytest.approx(alone.value - theirs.value)
    assert gain.low < gain.value < gain.high < 0.0
    assert gain.high - gain.low < 0.5 * (alone.high - alone.low)
    assert points.paired(ours[:1], ours[:1]) == (0.0, 0.0, 0.0)


def test_no_error_has_no_median() -> None:
    """And no interval, rather than a guess."""
    assert np.isnan(points.pooled([points.median(np.full(4, np.nan), np.arange(4))])).all()
