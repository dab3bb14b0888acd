"""A calibration session is cut into what fits, selects and judges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from neds_core.data import parts as cutting, scalers
from neds_core.data.parts import GAP_S, GAP_SEGMENTS, LEAST, LEAST_SEGMENTS, Parts
from neds_core.data.session import Session, UnitTable
from neds_core.errors import DataError

BIN_NS = 100_000_000  # 0.1 s


def recording(lengths: list[int], pauses: list[int]) -> Session:
    """Segments of so many bins, each after a pause."""
    start = np.cumsum(np.array(pauses) + np.r_[0, lengths[:-1]])
    segments = np.stack([start, start + lengths], 1).astype(np.int64)
    n = int(segments[-1, 1]) + 1
    units = UnitTable(np.arange(2), np.array(["a", "b"]), np.full(2, np.nan, np.float32))
    return Session(
        "made", BIN_NS, units, np.ones((n, 2), np.uint8), np.ones(n, bool), (), {}, segments, np.arange(len(lengths))
    )


def disjoint_in_order(session: Session, found: Parts) -> list[np.ndarray]:
    """The bins of each part, which are of the session, apart and in time order."""
    each = [part.bins() for part in (found.fit, found.select, found.judge)]
    assert len(np.unique(np.concatenate(each))) == sum(map(len, each))
    assert all(np.isin(bins, session.bins()).all() for bins in each)
    assert each[0].max() < each[1].min() <= each[1].max() < each[2].min()
    return each


@given(data=st.data(), n=st.integers(LEAST_SEGMENTS, 70))
def test_segments_are_cut_with_two_between(data: st.DataObject, n: int) -> None:
    """No bin in two parts, none of the gap in any; 60 % fits, and 20 % each selects and judges."""
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))
    session = recording(lengths, data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))

    found = cutting.cut(session)

    disjoint_in_order(session, found)
    rows = [part.segment_ids for part in (found.fit, found.select, found.judge)]
    np.testing.assert_array_equal(rows[1][0] - rows[0][-1], GAP_SEGMENTS + 1)
    np.testing.assert_array_equal(rows[2][0] - rows[1][-1], GAP_SEGMENTS + 1)
    assert (rows[0][0], rows[2][-1]) == (0, n - 1)
    left = n - 2 * GAP_SEGMENTS
    assert [len(r) / left for r in rows] == pytest.approx([0.6, 0.2, 0.2], abs=1.0 / left)
    assert min(map(len, rows)) >= LEAST


@given(data=st.data(), n=st.integers(1, 6))
def test_few_segments_are_cut_in_time_with_ten_seconds_between(data: st.DataObject, n: int) -> None:
    lengths = data.draw(st.lists(st.integers(2800 // n + 1, 6000), min_size=n, max_size=n))
    session = recording(lengths, data.draw(st.lists(st.integers(0, 50), min_size=n, max_size=n)))

    found = cutting.cut(session)

    fits, selects, judges = (np.searchsorted(session.bins(), b) for b in disjoint_in_order(session, found))
    gap = round(GAP_S * 1e9 / BIN_NS)
    assert (selects[0] - fits[-1], judges[0] - selects[-1]) == (gap + 1, gap + 1)
    assert (fits[0], judges[-1]) == (0, len(session.bins()) - 1)
    assert all((np.diff(r) == 1).all() for r in (fits, selects, judges))
    assert (np.diff(found.select.segments) > 0).all()


@pytest.mark.parametrize("lengths", [[10] * (LEAST_SEGMENTS - 1), [2600], [1]])
def test_a_short_session_is_refused_with_what_is_missing(lengths: list[int]) -> None:
    with pytest.raises(DataError, match=f"collect {LEAST_SEGMENTS - len(lengths)} more segments"):
        cutting.cut(recording(lengths, [1] * len(lengths)))


def test_scalers_and_unit_filters_know_the_fitting_part_alone(session: Session) -> None:
    """Other counts and labels in the rest change nothing of them."""
    found = cutting.cut(session)
    rest = np.setdiff1d(np.arange(session.n_bins), found.fit.bins())
    counts, wheel = session.counts.copy(), session.values["wheel_speed"].copy()
    counts[rest], wheel[rest] = 9, 100.0
    other = cutting.cut(replace(session, counts=counts, values=session.values | {"wheel_speed": wheel}))

    ours, theirs = (scalers.fit(p.fit, session.specs, 0.5, (100.0,)) for p in (found, other))

    np.testing.assert_array_equal(ours.kept, theirs.kept)
    np.testing.assert_array_equal(ours.spike_mean, theirs.spike_mean)
    assert (ours.mean, ours.sd) == (theirs.mean, theirs.sd)
    assert ours.filters is not None
    assert theirs.filters is not None
    np.testing.assert_array_equal(ours.filters.mean, theirs.filters.mean)
