"""A recording is binned, cut in time order, and read by segments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from neds_core.data import session as sessions
from neds_core.data.session import Session, UnitTable, bin_events, ordered_ns
from neds_core.errors import DataError


def sentence(error: pytest.ExceptionInfo[Exception]) -> str:
    """The message, which is one line."""
    text = str(error.value)
    assert "\n" not in text
    assert len(text) > 20
    return text


def test_unit_table_identity(session: Session) -> None:
    """Order, id, region and depth all belong to the table; a depth may be unknown."""
    units = session.units
    swapped = np.array([1, 0, *range(2, len(units))])
    others = [
        replace(units, ids=units.ids[swapped]),
        replace(units, region=units.region[swapped]),
        replace(units, depth_um=units.depth_um + 1),
        replace(units, ids=units.ids[1:], region=units.region[1:], depth_um=units.depth_um[1:]),
    ]

    assert len({units.sha256, *(other.sha256 for other in others)}) == 5
    assert replace(units, ids=units.ids.copy()).sha256 == units.sha256


@given(
    events=st.lists(st.tuples(st.integers(-30, 130), st.integers(-1, 3)), max_size=40),
    bin_ns=st.integers(1, 25),
    n_bins=st.integers(1, 6),
)
def test_a_spike_belongs_to_one_half_open_bin(events: list[tuple[int, int]], bin_ns: int, n_bins: int) -> None:
    """Bin b holds [b, b + 1) * bin_ns; what lies outside the grid or the table is left out."""
    events.sort()
    t_ns, unit = np.array([t for t, _ in events], np.int64), np.array([u for _, u in events], np.int32)

    counts = bin_events(t_ns, unit, bin_ns, n_bins, 3)

    expected = [
        [sum(b * bin_ns <= t < (b + 1) * bin_ns and u == unit_ for t, u in events) for unit_ in range(3)]
        for b in range(n_bins)
    ]
    assert counts.dtype == np.uint16
    assert counts.tolist() == expected


def test_a_burst_is_counted_as_the_rig_counts_it() -> None:
    """Not clipped at 255; more than the rig's uint16 holds is refused."""
    t_ns = np.zeros(65_536, np.int64)
    unit = np.zeros(len(t_ns), np.int32)

    assert bin_events(t_ns[:300], unit[:300], 10, 1, 1).tolist() == [[300]]
    assert bin_events(t_ns[1:], unit[1:], 10, 1, 1).tolist() == [[65_535]]
    with pytest.raises(DataError, match="65536 spikes in a bin, 65535 at most; check the spike times"):
        bin_events(t_ns, unit, 10, 1, 1)


@given(
    times=st.lists(st.integers(0, 2**53), min_size=2, max_size=8),
    dtype=st.sampled_from(["i8", "u8", "f8", ">i8", "u8"]),
)
def test_times_are_in_order_whatever_their_type(times: list[int], dtype: str) -> None:
    """An unsigned difference is never below 0, so order is compared, not subtracted."""
    given_ns, ordered = np.array(times, dtype), times == sorted(times)
    if ordered:
        assert ordered_ns(given_ns).tolist() == times
        assert ordered_ns(given_ns).dtype == np.int64
    else:
        with pytest.raises(DataError, match="decrease; sort and clean them first"):
            ordered_ns(given_ns)


@pytest.mark.parametrize("t_ns", [np.array([0.25, 1.5]), np.array([1, 2**63], np.uint64), np.array([1e30])])
def test_times_that_are_no_whole_nanoseconds_are_refused(t_ns: np.ndarray) -> None:
    """Seconds, most likely."""
    with pytest.raises(DataError, match="give whole nanoseconds"):
        ordered_ns(t_ns)


@pytest.mark.parametrize("ids", [np.array([3.0, 7.0]), np.array([3, 7], np.uint16), np.array([3, 7], ">i4")])
@pytest.mark.parametrize("depth", [np.array([1234.45, 20.0]), np.array([1234.45, 20.0], np.float32)])
def test_a_unit_table_has_one_hash_whatever_its_types(ids: np.ndarray, depth: np.ndarray) -> None:
    """1234.45 is 1234.5 as float64 and 1234.4 as float32: the table is made float32 before it is hashed."""
    units = UnitTable(ids, np.array(["ca1", "ca1"]), depth)
    as_stored = UnitTable(np.array([3, 7]), np.array(["ca1", "ca1"]), np.array([1234.45, 20.0], np.float32))

    assert units.sha256 == as_stored.sha256
    assert (units.ids.dtype, units.depth_um.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize(
    ("ids", "region", "depth", "message"),
    [
        (np.array(["imec0_1", "imec0_2"]), "?", 0.0, "unit_ids are text \\('imec0_1' first\\), not whole numbers"),
        (np.array([1.5, 2.0]), "?", 0.0, "unit_ids hold a fraction"),
        (np.array([np.nan, 2.0]), "?", 0.0, "unit_ids hold a fraction, NaN"),
        (np.array([1, 2**63], np.uint64), "?", 0.0, "a number beyond 64 bits; give whole numbers"),
        (np.array([True, False]), "?", 0.0, "unit_ids are true or false"),
        (np.array([1, None]), "?", 0.0, "unit_ids are object"),
        (np.arange(2), 3, 0.0, "unit_region is int64, not text"),
        (np.arange(2), b"ca1", 0.0, "unit_region is .S3, not text"),
        (np.arange(2), "?", "deep", "unit_depth_um is <U4, not numbers"),
    ],
)
def test_a_unit_table_of_other_things_is_refused(ids: np.ndarray, region: Any, depth: Any, message: str) -> None:
    """When it is made, so before anything is trained on it."""
    with pytest.raises(DataError, match=message):
        UnitTable(ids, np.full(2, region), np.full(2, depth))


@pytest.mark.parametrize("t_ns", [[0.0, np.nan, 2.0], [0.0, 1.0, np.inf], [5, 4], [0, 7, 6]])
def test_bad_spike_times_are_refused(t_ns: list[float]) -> None:
    """NaN, infinite or decreasing times are a fault of the source, not something to sort away."""
    with pytest.raises(DataError) as error:
        bin_events(np.array(t_ns), np.zeros(len(t_ns), np.int32), 10, 3, 1)
    assert "sort and clean" in sentence(error)


def test_bins_are_those_inside_the_segments(session: Session) -> None:
    """In time order, and each knows the row of the segment that holds it, whatever lies between segments."""
    some = replace(session, segments=np.array([[3, 6], [6, 8], [20, 21]]), segment_ids=np.arange(3))

    assert some.bins().tolist() == [3, 4, 5, 6, 7, 20]
    assert some.segment_of(some.bins()).tolist() == [0, 0, 0, 1, 1, 2]


def test_the_clock_counts_from_each_segment(session: Session) -> None:
    """-1 outside of segments."""
    some = replace(session, segments=np.array([[3, 6], [6, 8]]), segment_ids=np.arange(2))

    assert some.clock()[:10].tolist() == [-1, -1, -1, 0, 1, 2, 0, 1, -1, -1]


def test_trials_are_split_in_time_order(session: Session) -> None:
    """70/10/20 of the trials; every trial in one part, and each part keeps the bins of the whole."""
    parts = sessions.split(session)

    assert [len(p.segments) for p in (parts.train, parts.validation, parts.test)] == [42, 6, 12]
    for name in ("segments", "segment_ids"):
        joined = np.concatenate([getattr(p, name) for p in (parts.train, parts.validation, parts.test)])
        np.testing.assert_array_equal(joined, getattr(session, name))
        np.testing.assert_array_equal(getattr(parts.development, name), getattr(session, name)[:48])
    assert parts.test.counts is session.counts


def test_interleaved_parts_join_in_time_order(session: Session) -> None:
    """Every segment with its own id and moments."""
    session = replace(
        session, moments={"first_movement": np.arange(60.0)}, starts={"wheel_speed": np.arange(100.0, 160.0)}
    )
    odd, even = sessions.select(session, slice(1, None, 2)), sessions.select(session, np.arange(0, 60, 2))

    joined = sessions.join(odd, even)

    np.testing.assert_array_equal(joined.moments["first_movement"], np.arange(60.0))
    np.testing.assert_array_equal(joined.starts["wheel_speed"], np.arange(100.0, 160.0))
    np.testing.assert_array_equal(sessions.split(session).test.starts["wheel_speed"], np.arange(148.0, 160.0))
    np.testing.assert_array_equal(sessions.split(session).test.moments["first_movement"], np.arange(48.0, 60.0))

    np.testing.assert_array_equal(joined.segments, session.segments)
    np.testing.assert_array_equal(joined.segment_ids, session.segment_ids)


def test_a_continuous_recording_is_cut_inside(unbroken: Session) -> None:
    """At the same shares; training and validation join to one segment again."""
    parts = sessions.split(unbroken)

    cut = [p.segments.tolist() for p in (parts.train, parts.validation, parts.test)]
    assert cut == [[[0, 280]], [[280, 320]], [[320, 400]]]
    assert parts.development.segments.tolist() == [[0, 320]]
    assert parts.development.continuous


@given(n=st.integers(1, 200), trials=st.booleans())
def test_parts_are_disjoint_and_complete_or_refused(unbroken: Session, n: int, trials: bool) -> None:
    """Whatever the number of trials or bins: no part is ever empty in silence."""
    edges = np.arange(n + 1) * 2 if trials else np.array([0, n])
    segments = np.stack([edges[:-1], edges[1:]], 1)
    one = replace(unbroken, segments=segments, segment_ids=np.arange(len(segments)))
    try:
        parts = sessions.split(one)
    except DataError:
        assert n < 10
        return

    bins = [[b for a, z in p.segments for b in range(a, z)] for p in (parts.train, parts.validation, parts.test)]
    assert all(bins)
    assert [b for each in bins for b in each] == list(range(edges[-1]))
    assert [b for a, z in parts.development.segments for b in range(a, z)] == bins[0] + bins[1]


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=4), rest=st.integers(0, 9), long=st.booleans())
def test_a_few_long_runs_are_cut_inside(unbroken: Session, lengths: list[int], rest: int, long: bool) -> None:
    """By their bins, as one unbroken recording is; the pieces of a run join again. Few short segments are refused."""
    stops = np.cumsum(np.array(lengths) + rest)
    segments = np.stack([stops - lengths, stops], 1)
    minute = 60_000_000_000 // max(lengths) + 1
    one = replace(
        unbroken, bin_ns=minute if long else minute // 2, segments=segments, segment_ids=np.arange(len(lengths))
    )
    try:
        parts = sessions.split(one)
    except DataError:
        assert sum(lengths) < 10 or (not long and len(lengths) > 1)
        return

    assert one.continuous
    bins = [[b for a, z in p.segments for b in range(a, z)] for p in (parts.train, parts.validation, parts.test)]
    assert [b for each in bins for b in each] == one.bins().tolist()
    total = sum(lengths)
    assert [len(each) for each in bins] == [
        round(total * 0.7),
        round(total * 0.8) - round(total * 0.7),
        total - round(total * 0.8),
    ]
    whole = sessions.join(parts.development, parts.test)
    np.testing.assert_array_equal(whole.segments, segments)
    np.testing.assert_array_equal(whole.segment_ids, one.segment_ids)


def test_the_parts_of_trials_are_trials_however_few(unbroken: Session) -> None:
    """Six trials of over a minute each: four of them train, one validates."""
    segments = np.array([[20 * k, 20 * k + 15] for k in range(6)])
    parts = sessions.split(replace(unbroken, bin_ns=5_000_000_000, segments=segments, segment_ids=np.arange(6)))
    assert [len(each.segments) for each in (parts.train, parts.validation, parts.test)] == [4, 1, 1]
    assert not any(each.continuous for each in (parts.train, parts.validation, parts.test, parts.development))


def test_spikes_in_no_segment_are_counted_by_place(unbroken: Session) -> None:
    """Before the recording, after it, and between its segments; whatever is inside a segment is not mentioned."""
    ns = unbroken.bin_ns
    t_ns, unit = np.array([-5, -1, 0, 10 * ns, 390 * ns, 400 * ns]), np.zeros(6, np.int32)
    counts = sessions.bin_events(t_ns, unit, ns, 400, 5)
    one = replace(unbroken, counts=counts, events=(t_ns, unit), segments=np.array([[5, 350]]))

    assert sessions.left_out(one) == "2 before its start, 1 after its end (8 s), 2 outside its segments"
    assert sessions.left_out(replace(one, events=None)) == "2 outside its segments"
    assert sessions.left_out(replace(one, events=None), 100) == "1 outside its segments"
    assert sessions.left_out(unbroken) == ""


def test_an_unknown_behaviour_names_the_known(session: Session) -> None:
    """And a word that names no quantity says which ones there are."""
    with pytest.raises(DataError) as error:
        session.spec("lick_rate")
    assert "it has wheel_speed, choice" in sentence(error)
    with pytest.raises(DataError) as error:
        session.spec("wheel")
    assert "wheel_speed (unsigned) or wheel_velocity (signed)" in sentence(error)
