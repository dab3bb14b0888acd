"""A morning without an animal, made of one recording: half of its units are the base's, the other half are today's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neds_core.data import session as sessions
from neds_core.data.session import Session, UnitTable

OUTPUTS = ("wheel_speed", "whisker_motion_energy")
BEFORE = 120  # trials of the days before: the base's, and the stand-in's


def half(session: Session, which: int) -> Session:
    """Every second unit of each region, in an order that a seed fixes: half 0 or 1. Spike times are left out."""
    rng, rows = np.random.default_rng(0), []
    for region in np.unique(session.units.region):
        own = np.flatnonzero(session.units.region == region)
        rows.append(rng.permutation(own)[which::2])
    keep = np.sort(np.concatenate(rows))
    units = UnitTable(*(getattr(session.units, k)[keep] for k in ("ids", "region", "depth_um")))
    return replace(session, units=units, counts=session.counts[:, keep], events=None)


def before(session: Session, which: int) -> Session:
    """The first trials of a half, with the outputs alone."""
    return sessions.select(outputs(half(session, which)), slice(0, BEFORE))


def today(session: Session) -> Session:
    """What is played: the units that the base has never seen, from trial `BEFORE` on, then the first trials again, so
    that a slow machine does not run out of them."""
    own = outputs(half(session, 1))
    n = len(own.segments)
    return laid_out(own, np.r_[BEFORE:n, 0 : min(BEFORE, n)])


def outputs(session: Session) -> Session:
    """The session with those of its behaviours that are decoded. None is a class: every trial counts as labelled."""
    specs = tuple(spec for spec in session.specs if spec.name in OUTPUTS)
    return replace(session, specs=specs, values={spec.name: session.values[spec.name] for spec in specs})


def laid_out(session: Session, order: np.ndarray) -> Session:
    """The segments of a session in another order (n,), one after the other on a grid of their own."""
    bins = np.concatenate([np.arange(start, stop) for start, stop in session.segments[order]])
    stop = np.cumsum(np.diff(session.segments)[order, 0])
    return replace(
        session,
        counts=session.counts[bins],
        valid=session.valid[bins],
        values={name: values[bins] for name, values in session.values.items()},
        segments=np.stack([np.r_[0, stop[:-1]], stop], axis=1),
        segment_ids=session.segment_ids[order],
        moments={name: ms[order] for name, ms in session.moments.items()},
    )
