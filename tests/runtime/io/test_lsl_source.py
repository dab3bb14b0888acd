"""Senders that go and come back while a run goes on, over real LSL."""

from __future__ import annotations

import time
from collections.abc import Callable

import pylsl

from neds_core.data.session import Session
from runtime.config import InputConfig, LslConfig, RigConfig
from runtime.io.lsl_clock import now_ns
from runtime.io.lsl_inlets import MarkerInlet
from runtime.io.lsl_resolve import resolve_text
from runtime.io.lsl_source import LslSource
from runtime.io.lsl_watch import MarkerWatch
from runtime.io.streams import find_streams

WAIT_S = 20.0


def until(done: Callable[[], bool], every_s: float = 0.05) -> None:
    """Wait; fails where it never comes."""
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(every_s)


def test_a_sender_that_was_silent_is_withheld_until_its_units_are_checked(
    lsl_session: str, stream_name: str, make_outlet: Callable[..., pylsl.StreamOutlet], session: Session
) -> None:
    """LSL connects again by name, so a sender that was restarted may send other units."""
    outlet = make_outlet(stream_name, session.units)
    rig = RigConfig("test", "unused", InputConfig(stream_name, wait_s=3.0), lsl=LslConfig(resolve_scope="link"))
    streams = find_streams(rig, session.units, allow_replay=False)
    with LslSource(streams, session.bin_ns) as source:

        def alive() -> bool:
            outlet.push_sample([-1])
            source.wait(0.1)
            return source.alive_ns > 0

        until(alive)
        assert source.withheld == ""
        time.sleep(0.5)
        until(alive)
        assert source.withheld.startswith(f"stream '{stream_name}' was silent for 0.")
        until(lambda: source.withheld == "")
        assert source.refusal() == ""
        assert [name for name, _ in source.events()] == ["spikes_gap"]


def test_a_sender_of_markers_that_is_gone_is_lost_and_is_taken_up_under_another_source_id(
    lsl_session: str, stream_name: str
) -> None:
    def sender(source_id: str) -> pylsl.StreamOutlet:
        return pylsl.StreamOutlet(pylsl.StreamInfo(stream_name, "Markers", 1, 0.0, pylsl.cf_string, source_id))

    first = sender("first")
    with MarkerInlet(resolve_text(stream_name, WAIT_S)) as inlet:
        watch, said = MarkerWatch(inlet), []

        def look() -> str:
            said.append(watch.look())
            return said[-1]

        until(lambda: look() == "" and watch._seen, 0.2)
        del first
        until(lambda: look() == "lost", 0.2)
        assert watch.lost
        second = sender("second")
        until(lambda: look() == "back", 0.2)
        assert not watch.lost
        del second
        second = sender("third")  # at once: the segment that the one before left open is over all the same
        until(lambda: look() == "lost", 0.2)
        until(lambda: look() == "back", 0.2)
        second.push_sample(['{"event": "segment_start", "segment": 9}'], now_ns() * 1e-9)
        marks = []
        until(lambda: bool(marks.extend(watch.inlet.pull()) or marks))
        probes = watch.inlet.clock._thread
        watch.close()
        until(lambda: not probes.is_alive())
    assert [mark.segment for mark in marks] == [9]
    assert [what for what in said if what] == ["lost", "back"] * 2
