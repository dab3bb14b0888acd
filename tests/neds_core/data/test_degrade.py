"""Worse sorting does to the spikes what it says, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neds_core.data import degrade
from neds_core.data.session import Session, bin_events
from neds_core.data.session_file import check
from neds_core.errors import DataError


def rates(session: Session) -> np.ndarray:
    """Mean counts (U,)."""
    return session.counts.mean(0)


def all_conditions(session: Session) -> dict[str, degrade.Degrade]:
    """Every condition, with the session's own rates."""
    return degrade.conditions(rates(session))


@pytest.mark.parametrize("name", list(degrade.conditions(np.zeros(0))))
def test_only_the_spikes_change_and_by_the_seed(session: Session, unbroken: Session, name: str) -> None:
    """Unit table, behaviours and segments stay; one seed gives one session, another another."""
    for one in (session, replace(unbroken, units=replace(unbroken.units, region=np.full(5, "ca1")))):
        worse = all_conditions(one)[name](one, 1)

        check(worse, name)
        assert worse.units is one.units
        assert worse.values is one.values
        assert worse.segments is one.segments
        again, other = all_conditions(one)[name](one, 1), all_conditions(one)[name](one, 2)
        np.testing.assert_array_equal(worse.counts, again.counts)
        if not (name == "units_merged_10" and len(one.units) == 5):  # 10 % of five units is no pair
            assert (worse.counts != one.counts).any()
            assert (worse.counts != other.counts).any()
        if one.events is not None:
            assert worse.events is not None
            counts = bin_events(*worse.events, one.bin_ns, one.n_bins, len(one.units))
            np.testing.assert_array_equal(worse.counts, counts)


def test_deleted_spikes_are_a_share_of_every_unit(session: Session) -> None:
    """Within 5 standard deviations of a binomial; no unit gains a spike; all deleted leaves none."""
    worse = degrade.delete_spikes(session, 0.2, 0)

    n, kept = session.counts.sum(0).astype(float), worse.counts.sum(0)
    assert (np.abs(kept - 0.8 * n) <= 5 * np.sqrt(n * 0.8 * 0.2) + 1).all()
    assert (worse.counts <= session.counts).all()
    assert degrade.delete_spikes(session, 1.0, 0).counts.sum() == 0
    np.testing.assert_array_equal(degrade.delete_spikes(session, 0.0, 0).counts, session.counts)


def test_merged_units_are_sums_within_a_region(session: Session) -> None:
    """Half of 12 units: three pairs; each sum stands on one row, its partner of the same region is silent."""
    worse = degrade.merge_units(session, 0.5, 3)

    changed = np.flatnonzero((worse.counts != session.counts).any(0))
    silent = [u for u in changed if not worse.counts[:, u].any()]
    assert len(changed) in (5, 6)  # unit 11 is silent but for one spike, so it may gain or lose next to nothing
    for u in silent:
        owner = [v for v in changed if (worse.counts[:, v] == session.counts[:, v] + session.counts[:, u]).all()]
        assert len(owner) == 1
        assert session.units.region[owner[0]] == session.units.region[u]
    assert worse.counts.sum() == session.counts.sum()


def test_too_few_pairs_are_refused(session: Session) -> None:
    """Twelve units in twelve regions cannot be merged, and nobody is told that they were."""
    apart = replace(session.units, region=np.array([f"region {u}" for u in range(12)]))
    one_pair = replace(session.units, region=np.array([f"region {max(u, 1)}" for u in range(12)]))

    with pytest.raises(DataError, match="has 0 pairs of units in one region, not 3"):
        degrade.merge_units(replace(session, units=apart), 0.5, 0)
    with pytest.raises(DataError, match="has 1 pairs of units"):
        degrade.merge_units(replace(session, units=one_pair), 0.5, 0)
    merged = degrade.merge_units(replace(session, units=one_pair), 0.1, 0)
    assert (merged.counts != session.counts).any()


def test_absent_units_are_silent_and_the_others_untouched(session: Session) -> None:
    """A quarter of twelve units."""
    worse = degrade.drop_units(session, 0.25, 0)

    lost = np.flatnonzero(~worse.counts.any(0))
    others = np.setdiff1d(np.arange(12), lost)
    assert len(lost) == 3
    np.testing.assert_array_equal(worse.counts[:, others], session.counts[:, others])


def test_multiunit_keeps_the_region_and_loses_the_unit(session: Session) -> None:
    """Pooled counts of a region are exact; rows follow the training rates; the unit's own share is gone."""
    worse = degrade.regional_multiunit(session, rates(session), 0)

    for region in ("ca1", "vis"):
        members = session.units.region == region
        np.testing.assert_array_equal(worse.counts[:, members].sum(1), session.counts[:, members].sum(1))
    n = session.counts.sum(0).astype(float)
    assert (np.abs(worse.counts.sum(0) - n) <= 5 * np.sqrt(n) + 5).all()
    fake = replace(session, counts=np.where(np.arange(12) == 0, session.counts, 0).astype(np.uint8))
    spread = degrade.regional_multiunit(fake, rates(session), 0).counts.sum(0)
    assert (spread[::2] > 0).all()  # unit 0's spikes went to all of its region
    assert spread[1::2].sum() == 0


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_is_a_share(session: Session, share: float) -> None:
    """And a rate for every unit."""
    for worse in (degrade.delete_spikes, degrade.merge_units, degrade.drop_units):
        with pytest.raises(DataError, match="not between 0 and 1"):
            worse(session, share, 0)
    with pytest.raises(DataError, match="one mean count per unit"):
        degrade.regional_multiunit(session, np.ones(3), 0)
