"""Senders that go and come back while a run goes on, over real LSL and by a script."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pylsl
import pytest

from neds_core.data.session import Session
from neds_core.errors import StreamError
from runtime.config import InputConfig, LslConfig, RigConfig
from runtime.core.values import NO_TIME, SPIKES
from runtime.io import lsl_source
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
        until(lambda: alive() and source.withheld == "")
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


# --- by a script ---

STEP_NS = 20_000_000


class Sender:
    """The spike stream as a source sees it: keep-alives in each pass, unless it is silent. `answers` are those of the
    looks at it, in turn: whether it is the same, or the refusal; an event holds a look up until it is set."""

    keep_alive_ns = NO_TIME
    lost_upstream = 0

    def __init__(self, *answers: bool | str | threading.Event) -> None:
        self.description = SimpleNamespace(keep_alive=True)
        self.info = SimpleNamespace(name=lambda: "rig", source_id=lambda: "id", uid=lambda: "uid")
        self.clock = SimpleNamespace(jumps=0, slew_ppm=0.0)
        self.answers, self.n_asked, self.now, self.silent, self.elsewhere = [*answers], 0, 10**10, False, ""
        streams: Any = SimpleNamespace(
            spikes=self, markers=None, behaviours={}, recheck=self.same, stranger=lambda: self.elsewhere
        )
        self.source = LslSource(streams, STEP_NS)
        self.events: list[str] = []
        self.over = ""

    def pull(self, timeout_s: float) -> np.ndarray:
        self.keep_alive_ns = NO_TIME if self.silent else self.now
        return np.zeros(0, SPIKES)

    def resumed(self) -> bool:
        return False

    def same(self) -> bool:
        self.n_asked += 1
        while isinstance(answer := self.answers.pop(0), threading.Event):
            answer.wait(WAIT_S)
        if isinstance(answer, str):
            raise StreamError(answer)
        return answer

    def looked(self) -> None:
        """The look that is under way ends."""
        thread = self.source._recheck._thread
        assert thread is not None
        thread.join(WAIT_S)

    def passes(self, n: int, *, silent: bool = False) -> str:
        """Passes of the loop; what is withheld after them."""
        for self.silent in [silent] * n:
            self.now += STEP_NS
            self.source.wait(0.0)
            self.over = self.over or self.source.over(self.now)
            self.events += [name for name, _ in self.source.events()]
        return self.source.withheld


@pytest.fixture
def restarted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sender]:
    """A sender that has come back after 0.4 s."""

    def make(*answers: bool | str | threading.Event) -> Sender:
        sender = Sender(*answers)
        monkeypatch.setattr(lsl_source, "now_ns", lambda: sender.now)
        assert sender.passes(50) == ""
        sender.passes(20, silent=True)
        assert sender.passes(1).startswith("stream 'rig' was silent for 0.4 s")
        return sender

    return make


def test_a_sender_that_does_not_answer_is_asked_again_once_a_second(restarted: Callable[..., Sender]) -> None:
    """Not found for a moment, or gone before it has described itself: held, and the run goes on."""
    sender = restarted(False, False, True)
    sender.looked()
    says = "stream 'rig' was silent for 0.4 s, and its units cannot be checked: its sender does not answer; restart it"
    assert sender.passes(49).startswith(says)
    assert sender.n_asked == 1
    sender.passes(1)
    sender.looked()
    assert sender.n_asked == 2
    sender.passes(500, silent=True)  # whom should it ask
    assert sender.n_asked == 2
    sender.passes(1)
    sender.looked()
    assert sender.passes(1) == ""
    assert (sender.n_asked, sender.over, sender.events) == (3, "", ["spikes_gap"])
    assert sender.passes(500) == ""


@pytest.mark.parametrize("first", [True, "stream 'rig' has another unit map"])
def test_a_look_at_the_sender_before_says_nothing_of_the_one_after(
    restarted: Callable[..., Sender], first: bool | str
) -> None:
    """The sender is restarted again while the first look is under way, and sends other units or the same again."""
    gate = threading.Event()
    sender = restarted(gate, first, gate, "stream 'rig' has another unit map" if first is True else True)
    sender.passes(20, silent=True)
    sender.passes(5)
    gate.set()
    sender.looked()
    assert sender.passes(1).endswith("checking that its units are the same")
    sender.looked()
    withheld = sender.passes(1)
    assert sender.n_asked == 2
    if first is True:
        assert withheld
        assert (sender.over, sender.source.refusal()) == ("stream_changed", "stream 'rig' has another unit map")
    else:
        assert (withheld, sender.over) == ("", "")


def test_a_sender_found_elsewhere_is_not_named_once_data_come_again(restarted: Callable[..., Sender]) -> None:
    """The search takes seconds: what it found is of a silence that may be over."""
    sender = restarted(True, True)
    sender.looked()
    sender.elsewhere = "stream 'rig' came back from source_id 'other'"
    while sender.source._looking is None:
        sender.passes(1, silent=True)
    sender.source._looking.join(WAIT_S)
    sender.looked()
    assert sender.passes(100) == ""
    assert "sender_elsewhere" not in sender.events
