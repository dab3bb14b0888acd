"""What the rehearsal plays: units that its base has never seen, and every trial as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibration.rehearsal import halves
from neds_core.data.session import Session


def test_the_halves_share_no_unit_and_split_each_region(session: Session) -> None:
    a, b = (halves.half(session, which) for which in (0, 1))
    assert set(a.units.ids) & set(b.units.ids) == set()
    assert set(a.units.ids) | set(b.units.ids) == set(session.units.ids)
    for region in np.unique(session.units.region):
        n = [int((half.units.region == region).sum()) for half in (a, b)]
        assert 0 <= n[0] - n[1] <= 1
    for half in (a, b):
        columns = np.searchsorted(session.units.ids, half.units.ids)
        np.testing.assert_array_equal(half.counts, session.counts[:, columns])


def test_trials_are_played_in_another_order_and_otherwise_as_they_were(session: Session) -> None:
    order = np.r_[40:60, 0:40]
    found = halves.laid_out(session, order)
    for k, of in enumerate(order):
        own, theirs = slice(*found.segments[k]), slice(*session.segments[of])
        np.testing.assert_array_equal(found.counts[own], session.counts[theirs])
        np.testing.assert_array_equal(found.valid[own], session.valid[theirs])
        for name, values in session.values.items():
            np.testing.assert_array_equal(found.values[name][own], values[theirs])
    np.testing.assert_array_equal(found.segment_ids, session.segment_ids[order])


def test_what_is_played_begins_where_the_base_ends(session: Session) -> None:
    """And has no class, so that every trial counts."""
    found = halves.today(_long(session))
    assert found.segment_ids[0] == halves.BEFORE
    assert sorted(found.segment_ids) == list(range(len(found.segments)))
    assert [spec.name for spec in found.specs] == ["wheel_speed"]
    assert halves.before(_long(session), 0).segment_ids.tolist() == list(range(halves.BEFORE))


def _long(session: Session) -> Session:
    """The planted session three times, its trials numbered through."""
    found = halves.laid_out(session, np.tile(np.arange(len(session.segments)), 3))
    return replace(found, segment_ids=np.arange(len(found.segments)))
