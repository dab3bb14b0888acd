"""Outlets of a rig that is made up while it runs: spikes, markers and behaviour of a simulated animal."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import pylsl

from neds_core.data.session import UnitTable
from runtime.io.lsl_description import Declared, describe, describe_channel
from runtime.io.unit_stream import keep_alive


class Sender:
    """The outlets, named PREFIX-spikes, PREFIX-markers and PREFIX-behaviour, which has a channel for each behaviour.

    All of them declare `synthetic` as their source. Stamps are ns of this machine's LSL clock.
    """

    def __init__(self, prefix: str, units: UnitTable, channels: Mapping[str, Declared], rate_hz: float) -> None:
        """rate_hz: spikes a second that are expected of all units together."""
        self.names = tuple(channels)
        spikes = _info(f"{prefix}-spikes", "Spikes", 1, pylsl.cf_int32)
        describe(spikes, units, "synthetic", rate_hz)
        markers = _info(f"{prefix}-markers", "Markers", 1, pylsl.cf_string)
        behaviour = _info(f"{prefix}-behaviour", "Behaviour", len(channels), pylsl.cf_float32)
        for name, said in channels.items():
            describe_channel(behaviour, name, said)
        for info in (markers, behaviour):
            info.desc().append_child("neds_rt").append_child_value("source", "synthetic")
        self._spikes, self._markers, self._behaviour = (pylsl.StreamOutlet(i) for i in (spikes, markers, behaviour))
        self.sent = 0

    @property
    def heard(self) -> bool:
        """Whether somebody listens to the spikes."""
        return self._spikes.have_consumers()

    def spikes(self, t_ns: np.ndarray, unit: np.ndarray) -> None:
        """Send spikes: t_ns (n,) int64 in time order, unit (n,) row of the unit table."""
        if len(t_ns):
            self._spikes.push_chunk(unit.astype(np.int32)[:, None], (t_ns * 1e-9).tolist())
            self.sent += len(t_ns)

    def alive(self, t_ns: int) -> None:
        """A keep-alive: every spike before t_ns has been sent."""
        self._spikes.push_sample([keep_alive(self.sent)], t_ns * 1e-9)

    def mark(self, t_ns: int, event: str, segment: int, **labels: str) -> None:
        """A marker that applies at t_ns."""
        marker = {"event": event, "segment": segment} | ({"labels": labels} if labels else {})
        self._markers.push_sample([msgspec.json.encode(marker).decode()], t_ns * 1e-9)

    def behaviour(self, t_ns: int, values: np.ndarray) -> None:
        """One value (n,) of each behaviour, in the order of `names`."""
        self._behaviour.push_sample(values.tolist(), t_ns * 1e-9)


def _info(name: str, kind: str, channels: int, form: int) -> pylsl.StreamInfo:
    return pylsl.StreamInfo(name, kind, channels, pylsl.IRREGULAR_RATE, form, name)
