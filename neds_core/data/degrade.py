"""Worse spike sorting, made from good: what a decoder keeps when spikes are missed, mixed up or lost.

Every function returns a session with the unit table of the original, so that a checkpoint trained
on it still fits: a lost unit is a silent row. Offline sorting that is made worse is not online
sorting, so no score on such a session is a claim about online-sorted spikes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from neds_core.data.session import Session, bin_events
from neds_core.errors import DataError

Degrade = Callable[[Session, int], Session]  # (session, seed) -> session


def delete_spikes(session: Session, share: float, seed: int) -> Session:
    """Each spike is missed with probability `share`, independently of all others."""
    _check_share(share)
    t_ns, unit = _spikes(session)
    kept = np.random.default_rng(seed).random(len(unit)) >= share
    return _with_spikes(session, t_ns[kept], unit[kept])


def merge_units(session: Session, share: float, seed: int) -> Session:
    """A `share` of the units is taken in pairs of one region, and each pair is sorted as one unit.

    The first of a pair gets the spikes of both, the row of the second is silent: that is what a decoder
    receives that was trained on both. Raises `DataError` where the regions hold fewer pairs than asked.
    """
    _check_share(share)
    n_pairs = round(share * len(session.units) / 2)
    pairs = _pairs(session.units.region, np.random.default_rng(seed))
    if len(pairs) < n_pairs:
        raise DataError(
            f"recording {session.name!r} has {len(pairs)} pairs of units in one region, not {n_pairs}; merge a smaller "
            f"share than {share:g}"
        )
    pairs = pairs[:n_pairs]
    owner = np.arange(len(session.units), dtype=np.int32)
    for first, second in pairs:
        owner[second] = first
    t_ns, unit = _spikes(session)
    return _with_spikes(session, t_ns, owner[unit])


def drop_units(session: Session, share: float, seed: int) -> Session:
    """A `share` of the units falls silent, and nobody tells the decoder."""
    _check_share(share)
    n_units = len(session.units)
    lost = np.random.default_rng(seed).permutation(n_units)[: round(share * n_units)]
    t_ns, unit = _spikes(session)
    kept = ~np.isin(unit, lost)
    return _with_spikes(session, t_ns[kept], unit[kept])


def regional_multiunit(session: Session, rate: np.ndarray, seed: int) -> Session:
    """No sorting at all: of each spike only the region is known.

    A checkpoint has one row per unit, so each spike is given to a unit of its region drawn in proportion
    to `rate` (U,), the units' mean counts in the training part. In the mean over draws, each row gets the
    region's pooled count times the unit's share of it.
    """
    if rate.shape != (len(session.units),):
        raise DataError(f"rate has shape {rate.shape}, not ({len(session.units)},); give one mean count per unit")
    rng = np.random.default_rng(seed)
    t_ns, unit = _spikes(session)
    guess = unit.copy()
    for region in np.unique(session.units.region):
        members = np.flatnonzero(session.units.region == region)
        share = np.maximum(rate[members].astype(np.float64), 1e-12)  # a region silent in training: any unit
        spikes = np.flatnonzero(np.isin(unit, members))
        guess[spikes] = rng.choice(members, size=len(spikes), p=share / share.sum())
    return _with_spikes(session, t_ns, guess)


def conditions(rate: np.ndarray) -> dict[str, Degrade]:
    """The five conditions that a decoder is judged under; `rate` (U,) as in `regional_multiunit`."""
    return {
        "spikes_deleted_10": lambda session, seed: delete_spikes(session, 0.1, seed),
        "spikes_deleted_20": lambda session, seed: delete_spikes(session, 0.2, seed),
        "units_merged_10": lambda session, seed: merge_units(session, 0.1, seed),
        "units_absent_20": lambda session, seed: drop_units(session, 0.2, seed),
        "regional_multiunit": lambda session, seed: regional_multiunit(session, rate, seed),
    }


def _check_share(share: float) -> None:
    if not 0.0 <= share <= 1.0:
        raise DataError(f"share {share} is not between 0 and 1; give a share of the spikes or units")


def _pairs(region: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(P, 2) disjoint pairs of units of one region, in random order; an odd unit stays alone."""
    found = []
    for name in np.unique(region):
        members = rng.permutation(np.flatnonzero(region == name))
        found.append(members[: len(members) // 2 * 2].reshape(-1, 2))
    return rng.permutation(np.concatenate(found))


def _spikes(session: Session) -> tuple[np.ndarray, np.ndarray]:
    """Times (n,) int64 ns and units (n,) int32 of all spikes; without spike times, the start of their bin."""
    if session.events is not None:
        return session.events
    bins, units = np.nonzero(session.counts)
    n = session.counts[bins, units]
    return np.repeat(bins, n).astype(np.int64) * session.bin_ns, np.repeat(units, n).astype(np.int32)


def _with_spikes(session: Session, t_ns: np.ndarray, unit: np.ndarray) -> Session:
    """The session with other spikes; times non-decreasing."""
    counts = bin_events(t_ns, unit, session.bin_ns, session.n_bins, len(session.units), session.name)
    return replace(session, counts=counts, events=None if session.events is None else (t_ns, unit))
