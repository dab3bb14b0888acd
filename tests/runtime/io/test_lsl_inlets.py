"""Inlets on real LSL streams: what arrives is counted, mapped and passed on, and no sender can crash them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pylsl
import pytest
from hypothesis import example, given, strategies as st

from neds_core.data.session import Session
from neds_core.errors import StreamError
from runtime.core.binning import Binner
from runtime.core.values import NO_TIME, Mark
from runtime.io import lsl_inlets
from runtime.io.lsl_clock import now_ns
from runtime.io.lsl_description import read_description
from runtime.io.lsl_inlets import BehaviourInlet, MarkerInlet, SpikeInlet
from runtime.io.lsl_resolve import resolve, resolve_number, resolve_text
from runtime.io.markers import read_marker, usable
from runtime.io.unit_stream import KEEP_ALIVE_MODULUS

MakeOutlet = Callable[..., pylsl.StreamOutlet]
Link = tuple[pylsl.StreamOutlet, SpikeInlet]
WAIT_S = 5.0
BIN = PERIOD = 20_000_000


def inlet_of(outlet: pylsl.StreamOutlet) -> SpikeInlet:
    info = resolve(outlet.get_info().name(), WAIT_S)
    return SpikeInlet(info, read_description(pylsl.StreamInlet(info).info(WAIT_S)))


@pytest.fixture
def link(make_outlet: MakeOutlet, stream_name: str, session: Session) -> Iterator[Link]:
    """A described spike stream and its open inlet."""
    outlet = make_outlet(stream_name, session.units)
    with inlet_of(outlet) as inlet:
        yield outlet, inlet


def test_a_sender_that_does_not_open_in_time_is_one_sentence(
    make_outlet: MakeOutlet, stream_name: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlet = make_outlet(stream_name, session.units)
    inlet = inlet_of(outlet)
    inlet.clock.start()
    inlet.clock.wait(60.0)
    monkeypatch.setattr(lsl_inlets, "OPEN_S", 1e-6)
    with pytest.raises(StreamError, match=r" was found but sends nothing within .*; restart its sender"), inlet:
        pytest.fail("it is open")


def keep_alive(sent: int) -> int:
    return -1 - sent % KEEP_ALIVE_MODULUS


def pull(inlet: SpikeInlet, *, until_ns: int) -> list[tuple[int, int]]:
    """(stamp, unit) of all spikes up to the keep-alive stamped until_ns."""
    found = []
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found += inlet.pull(0.1).tolist()
        if inlet.keep_alive_ns == until_ns:
            return found
    pytest.fail("the keep-alive never came")


def send(outlet: pylsl.StreamOutlet, *samples: tuple[float, int]) -> None:
    """Samples of (stamp in s, value) in one chunk."""
    stamps = [stamp for stamp, _ in samples]
    outlet.push_chunk([[value] for _, value in samples], stamps)  # pyright: ignore[reportArgumentType]


def test_spikes_arrive_with_their_own_stamps_and_units(link: Link) -> None:
    """To the nanosecond that a double of seconds can hold, and none is a keep-alive."""
    outlet, inlet = link
    now = now_ns() // 1000 * 1000
    spikes = [(now + 1000 * k, k % 12) for k in range(500)]

    send(outlet, *((t * 1e-9, unit) for t, unit in spikes))
    send(outlet, *(((now + k * PERIOD) * 1e-9, keep_alive(500)) for k in range(3)))
    found = pull(inlet, until_ns=now + 2 * PERIOD)

    assert [unit for _, unit in found] == [unit for _, unit in spikes]
    assert max(abs(a - b) for (a, _), (b, _) in zip(found, spikes, strict=True)) <= 1
    assert (inlet.received, inlet.delays.n, inlet.lost_upstream) == (500, 500, 0)
    assert np.all(np.abs(inlet.delays.kept()) < 10_000)
    assert inlet.pull(0.01).size == 0
    assert inlet.keep_alive_ns == NO_TIME


def test_spikes_lost_on_the_way_are_counted(link: Link) -> None:
    """From the first keep-alive on; the count wraps, and a sender that starts again is not a loss."""
    outlet, inlet = link
    now, lost, sent, step = now_ns() // 1000 * 1000, [], KEEP_ALIVE_MODULUS - 4, 0
    for arriving, counted in [(2, 0), (3, 3), (5, 7), (1, 1)]:  # two of seven never come
        sent += counted
        send(outlet, *[((now + step * PERIOD) * 1e-9, 0)] * arriving)
        for _ in range(3):  # the next two confirm what the first says
            stamp = now + step * PERIOD
            send(outlet, (stamp * 1e-9, keep_alive(sent)))
            step += 1
        pull(inlet, until_ns=stamp)
        lost.append(inlet.lost_upstream)

    for count in (1, 4):  # restarted, and sent one; of the next three two never come
        send(outlet, ((now + step * PERIOD) * 1e-9, 0))
        for _ in range(3):
            stamp = now + step * PERIOD
            send(outlet, (stamp * 1e-9, keep_alive(count)))
            step += 1
        pull(inlet, until_ns=stamp)
        lost.append(inlet.lost_upstream)

    assert lost == [0, 0, 2, 2, 2, 4]
    assert inlet.received == 13


def test_a_negative_unit_beside_keep_alives_is_a_spike_of_no_unit(link: Link) -> None:
    """A sorter's noise cluster is -1: it neither vanishes nor invents spikes that were lost."""
    outlet, inlet = link
    now, sent = now_ns() // 1000 * 1000, 0
    binner = Binner(12, BIN, max_age_ns=10**10, future_ns=2_000_000_000)
    binner.start(now)
    for step in range(12):
        stamp = now + step * PERIOD
        send(outlet, *[(stamp * 1e-9, 3)] * 5, *[(stamp * 1e-9, -1)] * 2, (stamp * 1e-9, -70_000))
        sent += 8
        send(outlet, (stamp * 1e-9, keep_alive(sent)))
    deadline = time.monotonic() + WAIT_S
    while inlet.received < sent and time.monotonic() < deadline:
        binner.feed(inlet.pull(0.1), now_ns())

    counters = binner.counters()
    assert (counters["received"], counters["binned"], counters["out_of_range"]) == (96, 60, 36)
    assert (inlet.received, inlet.lost_upstream) == (96, 0)


def test_a_stamp_that_cannot_be_is_quarantined_and_never_crashes(link: Link) -> None:
    outlet, inlet = link
    now = now_ns()
    absurd = [np.nan, np.inf, -np.inf, 1e300, -1e300, 1e9, -1e12, now * 1e-9 + 3600, now * 1e-9 - 3600, 1.7e9]
    binner = Binner(12, BIN, max_age_ns=10**10, future_ns=2_000_000)
    binner.start(now)

    send(outlet, (now * 1e-9, 3), *((stamp, 4) for stamp in absurd), (np.nan, keep_alive(0)))
    send(outlet, *(((now + k) * 1e-9, keep_alive(11)) for k in range(-2 * PERIOD, 1, PERIOD)))
    deadline = time.monotonic() + WAIT_S
    while inlet.received < 11 and time.monotonic() < deadline:
        binner.feed(inlet.pull(0.1), now_ns())

    counters = binner.counters()
    assert counters["received"] == counters["binned"] + counters["quarantined"] == 11
    assert counters["quarantined"] == len(absurd)
    assert abs(binner.watermark_ns - now) <= 1
    assert inlet.delays.n == 3  # of the one true spike and the two an hour away; the rest has no time at all


def test_without_keep_alives_a_negative_value_is_a_spike_of_no_unit(
    make_outlet: MakeOutlet, stream_name: str, session: Session
) -> None:
    outlet = make_outlet(stream_name, session.units, edit={"keep_alive": "0"})
    binner = Binner(12, BIN, max_age_ns=10**10, future_ns=2_000_000)
    with inlet_of(outlet) as inlet:
        now = now_ns()
        binner.start(now)
        send(outlet, (now * 1e-9, -1), (now * 1e-9, 12), (now * 1e-9, 5))
        deadline = time.monotonic() + WAIT_S
        while inlet.received < 3 and time.monotonic() < deadline:
            binner.feed(inlet.pull(0.1), now_ns())
        assert inlet.keep_alive_ns == NO_TIME
    assert (binner.counters()["out_of_range"], binner.counters()["binned"]) == (2, 1)


# --- markers ---

MALFORMED = [
    "", "start", "null", "17", "[]", "{}", '{"segment": 3}', '{"event": 7}', b'{"event": "st\xf6p"}', b"\x00",
    '{"event": "segment_start", "segment": "x"}', '{"event": "segment_start", "segment": 1e30}',
    '{"event": "segment_start", "segment": -7}', '{"event": "segment_start", "segment": 3.5}',
    '{"event": "stim", "bin": 0.5}', '{"event": "' + "x" * 70_000 + '"}',
    '{"event": "segment_start", "segment": NaN}', '{"event": "segment_start", "segment": Infinity}', '{"event": NaN',
    '{"event": "segment_start", "segment": 3, "bin": "one"}', '{"event": "segment_start", "segment": 3', "[" * 5000,
]  # fmt: skip


def test_malformed_markers_are_counted_and_the_rest_applies(lsl_session: str, stream_name: str) -> None:
    info = pylsl.StreamInfo(stream_name, "Markers", 1, 0.0, pylsl.cf_string, stream_name)
    outlet = pylsl.StreamOutlet(info)
    t = 1_000.0
    good = [
        '{"event": "segment_start", "segment": 3, "bin": 40, "note": "kept out"}',
        '{"event": "stim"}',
        '{"event": "segment_end", "segment": 3, "labels": {"choice": "left", "block": 2, "reward": true}}',
        '{"event": "segment_start"}',
        '{"event": "segment_start", "segment": 4.0, "bin": 50.0}',
        '{"event": "\\u001b[31mrecording_end"}',
        '{"event": "recording_end"}',
    ]
    with MarkerInlet(resolve_text(stream_name, WAIT_S)) as inlet:
        for text in MALFORMED:
            outlet.push_sample([text], t)
        for stamp in (np.nan, np.inf, 1e12):
            outlet.push_sample([good[0]], stamp)
        for k, text in enumerate(good):
            outlet.push_sample([text], t + k)
        marks: list[Mark] = []
        deadline = time.monotonic() + WAIT_S
        while not inlet.ended and time.monotonic() < deadline:
            marks += inlet.pull()
            time.sleep(0.01)

    assert inlet.bad == len(MALFORMED) + 3
    assert marks == [
        Mark(1_000 * 10**9, "segment_start", 3),
        Mark(1_002 * 10**9, "segment_end", 3),
        Mark(1_003 * 10**9, "segment_start", -1),
        Mark(1_004 * 10**9, "segment_start", 4),
    ]
    assert [mark.first_bin for mark in marks] == [40, None, None, 50]
    assert marks[1].labels == {"choice": "left", "block": 2, "reward": True}
    assert inlet.last == "recording_end"


HALF = "\ud800"  # half of a character
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=5) | st.just(HALF),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just(HALF), inner, max_size=3),
)
LABELS = st.dictionaries(st.text(max_size=5) | st.just(HALF), JSON, max_size=3)
FIELDS = {"segment": st.integers(0, 9) | JSON, "labels": LABELS | JSON, "bin": JSON, "more": st.just(np.nan) | JSON}
FIELDS |= {"stands": LABELS | JSON}


@given(
    value=st.fixed_dictionaries({"event": st.just("segment_end")}, optional=FIELDS) | JSON,
    cut=st.integers(0, 400),
    raw=st.binary(max_size=9),
)
@example(value={"event": "segment_end", "labels": {"rt": np.nan, "choice": HALF}}, cut=0, raw=b"")
def test_whatever_a_task_sends_is_a_marker_or_none(value: object, cut: int, raw: bytes) -> None:
    """As Python's json writes it, NaN and all; and with bytes of anything in it. A log can hold its labels."""
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    for each in (text, json.dumps(value).encode(), text[:cut] + raw + text[cut:]):
        marker = read_marker(each)
        labels = marker.labels if marker is not None and isinstance(marker.labels, dict) else {}
        msgspec.json.encode({name: label for name, label in labels.items() if usable(label)})


def test_a_label_that_cannot_be_used_costs_itself_and_not_the_mark(lsl_session: str, stream_name: str) -> None:
    """NaN is what Python's json.dumps writes of a reaction time that there was not."""
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(stream_name, "Markers", 1, 0.0, pylsl.cf_string, stream_name))
    ends = ['"left"', "null", '{"choice": ["left"], "rt": 0.4}', '{"choice": "left", "rt": NaN, "target": {"x": 1}}']
    ends += ['{"n": 1' + "0" * 30 + "}"]
    with MarkerInlet(resolve_text(stream_name, WAIT_S)) as inlet:
        for n, labels in enumerate(ends):
            outlet.push_sample([f'{{"event": "segment_end", "segment": {n}, "labels": {labels}}}'], 1000.0 + n)
        marks: list[Mark] = []
        deadline = time.monotonic() + WAIT_S
        while len(marks) < len(ends) and time.monotonic() < deadline:
            marks += inlet.pull()
            time.sleep(0.01)
    assert [mark.segment for mark in marks] == [0, 1, 2, 3, 4]
    assert [mark.labels for mark in marks] == [{}, {}, {"rt": 0.4}, {"choice": "left", "rt": None}, {}]
    assert (inlet.bad, inlet.bad_labels) == (0, 4)
    assert inlet.odd_labels == {"choice": "['left']", "target": "{'x': 1}", "n": "1" + "0" * 30}


def test_where_outputs_stand_is_numbers_and_what_is_none_is_counted(lsl_session: str, stream_name: str) -> None:
    """A task says at a segment's start what its cursor does; one odd value costs all of them, not the mark."""
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(stream_name, "Markers", 1, 0.0, pylsl.cf_string, stream_name))
    given = ['{"x": 1.5, "y": -2}', '{"x": 1.5, "turn": true, "left": "left", "z": NaN, "list": [1]}', "[1]"]
    given += ["null", "{}", '{"x": 1' + "0" * 400 + "}"]
    marks: list[Mark] = []
    with MarkerInlet(resolve_text(stream_name, WAIT_S)) as inlet:
        for n, stands in enumerate(given):
            outlet.push_sample([f'{{"event": "segment_start", "segment": {n}, "stands": {stands}}}'], 1000.0 + n)
        deadline = time.monotonic() + WAIT_S
        while len(marks) < len(given) and time.monotonic() < deadline:
            marks += inlet.pull()
            time.sleep(0.01)
    assert [mark.stands for mark in marks] == [{"x": 1.5, "y": -2.0}, {}, {}, {}, {}, {}]
    assert [mark.odd for mark in marks] == ["", "turn", "stands", "", "", "x"]
    assert (inlet.bad, inlet.bad_labels) == (0, 6)
    assert inlet.odd_labels["turn"] == "True"


def test_a_marker_that_cannot_be_read_is_shown_without_escape_sequences(lsl_session: str, stream_name: str) -> None:
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(stream_name, "Markers", 1, 0.0, pylsl.cf_string, stream_name))
    shown = []
    with MarkerInlet(resolve_text(stream_name, WAIT_S)) as inlet:
        for n, text in enumerate(
            ["\x1b]0;owned\x07trial 1\n", "x" * 2_000_000, '{"event": "\\u001b[2J' + "e" * 999 + '"}']
        ):
            outlet.push_sample([text], 1.0 + n)
            deadline = time.monotonic() + WAIT_S
            while (inlet.bad < min(n + 1, 2) or (n == 2 and not inlet.last)) and time.monotonic() < deadline:
                inlet.pull()
                time.sleep(0.01)
            shown.append(inlet.last_bad if n < 2 else inlet.last)
    assert inlet.bad == 2
    assert shown[0] == "]0;ownedtrial 1"
    assert [len(text) < 300 and text.isprintable() for text in shown] == [True] * 3


# --- behaviour ---


@pytest.fixture(scope="module")
def behaviour(lsl_session: str) -> Iterator[tuple[BehaviourInlet, list[tuple[int, float]]]]:
    """An inlet that took in four good samples, a NaN, and some without a time; and what it gave."""
    info = pylsl.StreamInfo("behaviour", "Behaviour", 1, 50.0, pylsl.cf_float32, f"behaviour-{lsl_session}")
    outlet = pylsl.StreamOutlet(info)
    with BehaviourInlet("wheel_speed", resolve_number("behaviour", WAIT_S, "wheel_speed")[0]) as inlet:
        for stamp, value in [(1.0, 10.0), (1.02, 11.0), (np.nan, 99.0), (np.inf, 99.0), (1.06, 13.0), (1.04, 12.0)]:
            outlet.push_sample([value], stamp)
        outlet.push_sample([np.nan], 1.08)
        found: list[tuple[int, float]] = []
        deadline = time.monotonic() + WAIT_S
        while len(found) < 5 and time.monotonic() < deadline:
            found += inlet.pull()
            time.sleep(0.01)
        yield inlet, found


def test_behaviour_without_a_time_is_left_out(behaviour: tuple[BehaviourInlet, list[tuple[int, float]]]) -> None:
    stamps = [1_000_000_000, 1_020_000_000, 1_060_000_000, 1_040_000_000, 1_080_000_000]
    assert [t_ns for t_ns, _ in behaviour[1]] == stamps


def test_a_nan_or_an_old_value_is_not_the_latest(behaviour: tuple[BehaviourInlet, list[tuple[int, float]]]) -> None:
    inlet, _ = behaviour
    assert inlet.latest(0) is None  # the newest sample is NaN, and the one before is not now
    assert inlet.latest(1_080_000_001) is None
