"""The outlets of a made-up rig over real LSL: what is sent is what the inlets of a run and a collection receive."""

from __future__ import annotations

import time

import numpy as np
import pylsl

from neds_core.data.session import UnitTable
from runtime.core.values import Mark
from runtime.io.lsl_clock import now_ns
from runtime.io.lsl_description import Declared, declared, read_description
from runtime.io.lsl_inlets import BehaviourInlet, MarkerInlet, SpikeInlet
from runtime.io.lsl_resolve import resolve, resolve_number, resolve_text
from runtime.io.lsl_sender import Sender

WAIT_S = 30.0  # a busy machine is not a failure
BIN = 20_000_000
UNITS = UnitTable(np.arange(3) * 5, np.array(["m", "m", "n"]), np.zeros(3, np.float32))
CHANNELS = {"cursor_x": Declared("cm", "signed", "made up", 0.0), "velocity_x": Declared("cm/s", "signed")}


def test_what_is_sent_arrives(lsl_session: str, stream_name: str) -> None:
    """Spikes with their stamps and a count that keep-alives confirm, markers with labels, and each channel by name."""
    sender = Sender(stream_name, UNITS, CHANNELS, 10.0)
    info = resolve(f"{stream_name}-spikes", WAIT_S)
    description = read_description(pylsl.StreamInlet(info).info(WAIT_S))
    place = resolve_number(f"{stream_name}-behaviour:velocity_x", WAIT_S, "velocity_x")
    assert (description.source, description.unit_map_sha, description.keep_alive) == ("synthetic", UNITS.sha256, True)
    with (
        SpikeInlet(info, description) as inlet,
        MarkerInlet(resolve_text(f"{stream_name}-markers", WAIT_S)) as markers,
        BehaviourInlet("velocity_x", *place) as behaviour,
    ):
        deadline = time.monotonic() + WAIT_S
        outlets = (sender._spikes, sender._markers, sender._behaviour)  # what is sent once must find its listener there
        assert all(outlet.wait_for_consumers(max(0.0, deadline - time.monotonic())) for outlet in outlets)
        assert sender.heard
        assert declared(behaviour.described(), behaviour.channel) == CHANNELS["velocity_x"]
        zero = now_ns() // BIN * BIN
        sent = [(zero + k * 1_000_000, k % 3) for k in range(7)]
        sender.spikes(np.array([t for t, _ in sent]), np.array([u for _, u in sent]))
        sender.spikes(np.zeros(0, np.int64), np.zeros(0, np.int64))  # nothing
        sender.mark(zero + BIN, "segment_start", 4)
        sender.mark(zero + 5 * BIN, "segment_end", 4, target="target_1")
        sender.behaviour(zero + BIN, np.array([1.5, -2.5]))
        for k in range(1, 4):
            sender.alive(zero + k * BIN)
        deadline = time.monotonic() + WAIT_S
        spikes: list[tuple[int, int]] = []
        marks: list[Mark] = []
        values: list[tuple[int, float]] = []
        while (len(spikes) < 7 or len(marks) < 2 or not values) and time.monotonic() < deadline:
            spikes += [(int(t), int(u)) for t, u in inlet.pull(0.02).tolist()]
            marks += markers.pull()
            values += behaviour.pull()
    assert [unit for _, unit in spikes] == [unit for _, unit in sent]
    # stamps are doubles of seconds: off by less than a microsecond
    np.testing.assert_allclose([t for t, _ in spikes], [t for t, _ in sent], rtol=0, atol=1000)
    assert (sender.sent, inlet.received, inlet.lost_upstream) == (7, 7, 0)
    assert [(m.event, m.segment, m.labels) for m in marks] == [
        ("segment_start", 4, {}), ("segment_end", 4, {"target": "target_1"})
    ]  # fmt: skip
    assert values[0][1] == -2.5
