"""Spike times of any source: their order, their unit of time, and who they are of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from neds_core.errors import ConfigError, DataError
from neds_core.io.importing import spikes


@given(each=st.lists(st.lists(st.integers(0, 50), max_size=30), max_size=5), at_once=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_units_are_merged_as_one_stable_sort_would(each: list[list[int]], at_once: int) -> None:
    """However many are sorted at once."""
    times = [np.array(some, np.float64) for some in each]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spikes, "CHUNK", at_once)
        t_s, unit, unsorted = spikes.of_units(times)
    pairs = sorted((t, u) for u, some in enumerate(each) for t in some)
    assert list(zip(t_s.tolist(), unit.tolist(), strict=True)) == pairs
    assert unsorted == sum(some != sorted(some) for some in each)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=30))
def test_what_is_there_twice_is_counted_also_with_others_in_between(events: list[tuple[int, int]]) -> None:
    t, unit = np.array(sorted(events, key=lambda event: event[0]), np.int64).reshape(-1, 2).T
    assert spikes.repeated(t, unit) == len(events) - len(set(events))


@pytest.mark.parametrize("ids", [[4, 9], [0, 1], [-3, 2], [5, spikes.SMALL_IDS + 1]])
def test_events_get_rows_in_the_order_of_their_ids(ids: list[int]) -> None:
    """Also where ids are negative or too large for a table."""
    low, high = ids
    t_s, unit, known = spikes.of_events(np.array([0.3, 0.1, 0.2]), np.array([high, low, high]))
    assert (t_s.tolist(), unit.tolist(), known.tolist()) == ([0.1, 0.2, 0.3], [0, 1, 1], ids)
    assert (unit.dtype, known.dtype) == (np.int32, np.int64)


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (
            np.array([3, 60]),
            "whole numbers .the last is 60., which looks like samples; .* with --rate-hz .1000 for ms, 1",
        ),
        (np.arange(30) * 100.0, "looks like samples"),
        (np.array([0.1, np.nan]), "1 of 2 times are NaN"),
        (np.array([0.5, 90_000.5]), "more than a day of seconds"),
        (np.array(["a"]), "not numbers"),
    ],
)
def test_times_that_are_no_seconds_are_refused(times: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        spikes.seconds(times, None, "file")


def test_samples_become_seconds_by_their_rate() -> None:
    np.testing.assert_array_equal(spikes.seconds(np.array([0, 30_000], np.uint64), 30_000.0, "f"), [0.0, 1.0])


def test_a_library_that_is_missing_is_named_with_its_extra() -> None:
    with pytest.raises(ConfigError, match=r"needs not_there, which is not installed; pip install 'neds-rt\[xdf\]'"):
        spikes.library("not_there.sub", "xdf")


def test_a_quality_that_no_unit_has_is_refused_with_those_there() -> None:
    labels = np.array(["good", "mua"])
    assert spikes.kept(labels, "", "f").all()
    assert spikes.kept(labels, "good", "f").tolist() == [True, False]
    with pytest.raises(DataError, match="no unit has the quality 'best'; there is 'good', 'mua'"):
        spikes.kept(labels, "best", "f")
