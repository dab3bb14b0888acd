"""What is sent to the loop: spikes of a recording, or made-up ones at a given rate."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from neds_core.data import session as sessions
from neds_core.data.session import BehaviourSpec, Session, UnitTable
from neds_core.errors import ConfigError

BURST_NS = 2_000_000  # the spikes of a burst lie within it
BURST_EVERY_NS = 1_000_000_000


class Load(Struct, frozen=True, kw_only=True):
    """The schedule of a sender. It is open: no chunk waits for what became of the one before.

    rate: spikes a second of all units together; 0 = the rig's recording is played. burst: more spikes within 2 ms, once
    a second. push_ms: between two chunks, 0 = a quarter of a bin. streams: 1 spikes, 2 and markers, 3 and 4 and
    measured behaviours; 0 = as the rig has them.
    """

    rate: Annotated[float, Meta(ge=0.0, le=1e6)] = 0.0
    burst: Annotated[int, Meta(ge=0, le=100_000)] = 0
    push_ms: Annotated[float, Meta(ge=0.0, le=1000.0)] = 0.0
    streams: Annotated[int, Meta(ge=0, le=4)] = 0


def behaviours(specs: tuple[BehaviourSpec, ...], streams: int) -> tuple[BehaviourSpec, ...]:
    """The outputs that are also sent as measured behaviour. Raises `ConfigError` where there are too few."""
    found = tuple(spec for spec in specs if spec.kind == "continuous")
    wanted = max(0, streams - 2)
    if wanted > len(found):
        raise ConfigError(
            f"--streams {streams}: needs {wanted} continuous outputs and the checkpoint has {len(found)}; lower it"
        )
    return found[:wanted]


def made_up(load: Load, units: UnitTable, specs: tuple[BehaviourSpec, ...], bin_ns: int, seconds: float) -> Session:
    """A recording of one segment with Poisson spikes, every unit as often as another, and the load's bursts."""
    rng = np.random.default_rng(0)
    n_bins = int(np.ceil(seconds * 1e9 / bin_ns))
    end_ns = n_bins * bin_ns
    t_ns = rng.integers(0, end_ns, rng.poisson(load.rate * end_ns * 1e-9))
    starts = np.repeat(np.arange(0, end_ns - BURST_NS, BURST_EVERY_NS), load.burst)
    t_ns = np.sort(np.concatenate([t_ns, starts + rng.integers(0, BURST_NS, len(starts))]))
    unit = rng.integers(0, len(units), len(t_ns)).astype(np.int32)
    return Session(
        name="made-up",
        bin_ns=bin_ns,
        units=units,
        counts=sessions.bin_events(t_ns, unit, bin_ns, n_bins, len(units)),
        valid=np.ones(n_bins, bool),
        specs=behaviours(specs, load.streams),
        values={s.name: rng.normal(size=n_bins).astype(np.float32) for s in behaviours(specs, load.streams)},
        segments=np.array([[0, n_bins]], np.int64),
        segment_ids=np.zeros(1, np.int64),
        events=(t_ns, unit),
    )
