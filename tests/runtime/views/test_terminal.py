"""The picture shows what the messages say, and nothing once they are old."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from io import StringIO

import msgspec
import pytest
import zmq
from rich.console import Console

from runtime.views import terminal as view
from runtime.views.glyphs import big, braille
from runtime.views.model import Measured, Shown
from runtime.views.terminal import render
from runtime.wire import Decode, Flag, Output, OutputInfo, Status, topic

BIN_NS = 20_000_000
BLANK = "\u2800"


def decode(token: int, *, flags: int = 0, source: str = "live") -> Decode:
    null = bool(flags & (Flag.GAP | Flag.HOLD | Flag.IDLE))
    outputs = {"wheel_speed": Output(value=1.234), "choice": Output(probs=[0.25, 0.75])}
    return Decode(
        schema=1, seq=token, token=token, t_end_ns=token * BIN_NS, t_pub_ns=token * BIN_NS + 5_000_000,
        boot_id="boot", source=source, inputs=["spikes"], decoder="neds", engine="numba stream",
        outputs=dict.fromkeys(outputs, Output()) if null else outputs,
        age_ms=11.1, infer_ms=2.2, edge_to_pub_ms=5.5, state="IDLE" if flags & Flag.IDLE else "RUNNING",
        flags=flags, valid_until_ns=0, valid_for_ms=55.0, model_sha="0123456789", unit_map_sha="u",
    )  # fmt: skip


def status(source: str = "live") -> Status:
    outputs = [OutputInfo(name, kind, unit, "", "", 0.0, "measured", classes) for name, kind, unit, classes in (
        ("wheel_speed", "continuous", "rad/s", []), ("choice", "class", "", ["left", "right"]),
    )]  # fmt: skip
    return Status(
        schema=1, rig="rig", boot_id="boot", source=source, state="RUNNING", t_pub_ns=0, decoder="neds",
        engine="numba stream", model="mouse", model_sha="0123456789", model_created="2025-03-01T10:00:00+00:00",
        unit_map_sha="u", outputs=outputs, flag_names={}, counters={"spikes_late": 17, "tokens_closed": 400, "odd": 3},
        edge_to_pub_ms={"p50": 3.3, "p99": 7.7, "max": 18.8}, misses_last_minute=6, units_seen=104, units_expected=105,
        population_rate_hz=612.0, segment=9, last_marker="stim", measured={}, budget_ms=20.0,
    )  # fmt: skip


def after(n: int = 100, *, flags: int = 0, source: str = "live", rig: str = "rig", silent_ms: float = 5.0) -> Shown:
    """The state after n bins, the last of them with these flags."""
    state = Shown("tcp://127.0.0.1:5571", rig, now=datetime(2025, 3, 3, 12, tzinfo=UTC))
    for token in range(1, n + 1):
        state.now_ns = token * BIN_NS + 5_000_000
        state.take_decode(decode(token, flags=flags if token == n else 0, source=source))
        state.take_measured(Measured(state.now_ns, {"wheel_speed": 1.5}))
    state.status, state.status_at_ns = status(source), state.now_ns
    state.now_ns += int(silent_ms * 1e6)
    return state


def drawn(state: Shown, width: int = 100) -> str:
    console = Console(record=True, width=width, file=StringIO())
    console.print(render(state))
    return console.export_text()


def test_a_live_run_shows_its_numbers() -> None:
    text = drawn(after())

    for part in (
        "LIVE", "state RUNNING", "segment 9", "marker stim", "decoder neds", "mouse 01234567, 2 d old",
        "units 104/105", "population 612 Hz", "1.234", "1.500", "rad/s", "p50 3.3 · p99 7.7 · max 18.8 ms",
        "misses 6", "edge to pub now 5.5 ms", "infer 2.2 ms", "newest spike 11.1 ms", "late 17", "closed 400", "odd 3",
    ):  # fmt: skip
        assert part in text
    assert "STALE" not in text


def test_an_angle_is_in_degrees() -> None:
    """From its cosine and sine, decoded of any length; a dash where nothing is known, and no old number."""
    state = after()
    assert state.decode is not None
    assert state.status is not None
    sides = [OutputInfo(f"hd_{a}", "continuous", "", "", "", 0.0, "measured", [], "hd", a) for a in ("sin", "cos")]
    state.status = msgspec.structs.replace(state.status, outputs=sides)
    assert "decoded —   measured —" in drawn(state)

    values = {"hd_sin": Output(-0.25), "hd_cos": Output(0.25)}
    state.take_decode(msgspec.structs.replace(state.decode, t_end_ns=state.now_ns, outputs=values))
    state.take_measured(Measured(state.now_ns, {"hd_sin": 1.0, "hd_cos": 0.0}))
    assert "decoded 315°   measured 90°" in drawn(state)
    state.now_ns += 300_000_000
    assert "°" not in drawn(state)


@pytest.mark.parametrize(
    ("source", "rig", "word"),
    [
        ("live", "rig", "LIVE"), ("live", "demo", "LIVE"), ("replay", "rig", "REPLAY"), ("replay", "demo", "DEMO"),
        ("synthetic", "demo", "SYNTHETIC"), ("", "rig", "OTHER"), ("surprise", "rig", "OTHER"),
    ],
)  # fmt: skip
def test_the_large_word_says_where_the_spikes_come_from(source: str, rig: str, word: str) -> None:
    text = drawn(after(source=source, rig=rig))

    assert all(row.rstrip() in text for row in big(word).splitlines())
    assert ("LIVE" in text) == (word == "LIVE")


@pytest.mark.parametrize("flag", [Flag.GAP, Flag.HOLD, Flag.IDLE])
def test_null_values_are_a_dash(flag: Flag) -> None:
    text = drawn(after(flags=int(flag)))

    assert "1.234" not in text
    assert "0.75" not in text
    assert "█████" not in text
    assert f"flags {flag.name}" in text
    assert "1.500" in text  # what is measured is still there


def test_a_silent_stream_shows_no_old_number() -> None:
    text = drawn(after(silent_ms=201))

    assert "STALE: no fresh message for 0.2 s" in text
    assert all(row.rstrip() in text for row in big("STALE").splitlines())
    for old in ("1.234", "1.500", "0.75", "RUNNING", "RUNNING", "612", "104/105", "3.3", "5.5", "11.1", "17", "400"):
        assert old not in text
    assert set(drawn(after(silent_ms=6100))) & {chr(c) for c in range(0x2801, 0x2900)} == set()


@pytest.mark.parametrize("word", ["FAULT", "LOST", "STALLED", "DEGRADED"])
def test_a_state_that_is_not_as_it_should_be_is_in_large_letters_with_its_reason(word: str) -> None:
    shown = after()
    assert shown.decode is not None
    assert shown.status is not None
    shown.decode = msgspec.structs.replace(shown.decode, state=word)
    assert all(row.rstrip() in drawn(shown) for row in big(word).splitlines())
    assert f"{word}: " in drawn(shown)

    shown.status = msgspec.structs.replace(shown.status, reason="no unit has fired for 0.40 s")
    assert f"{word}: no unit has fired for 0.40 s" in drawn(shown)


def test_before_the_first_message_it_says_what_it_waits_for() -> None:
    text = drawn(Shown("tcp://127.0.0.1:5571", "rig"))

    assert "waiting for the first message of rig rig at tcp://127.0.0.1:5571" in text
    assert "LIVE" not in text
    assert "STALE" not in text


def test_classes_are_bars_in_proportion() -> None:
    left, right = (line for line in drawn(after()).splitlines() if "left " in line or "right " in line)

    assert "left 0.25" in left
    assert "right 0.75" in right
    assert (left.count("█"), right.count("█")) == (10, 30)


@pytest.mark.parametrize("width", [30, 60, 100, 300])
def test_it_fits_any_terminal(width: int) -> None:
    assert max(map(len, drawn(after(), width).splitlines())) <= width


def test_another_clock_starts_new_traces() -> None:
    state = after(100)
    state.take_decode(decode(3))

    assert list(state.decoded["wheel_speed"]) == [(3 * BIN_NS, 1.234)]
    assert not state.measured


def trace(values: Sequence[float | None], width: int = 10) -> list[str]:
    """One point to a column of dots, over [0, 1]."""
    points = [(i * 10, value) for i, value in enumerate(values)]
    return braille(points, points[-1][0], 20 * width, 0.0, 1.0, width)


def test_a_trace_runs_from_bottom_to_top() -> None:
    assert trace([0.0] * 20) == [BLANK * 10, "⣀" * 10]
    assert trace([1.0] * 20) == ["⠉" * 10, BLANK * 10]
    assert trace([0.0] * 19 + [1.0]) == [BLANK * 9 + "⢸", "⣀" * 9 + "⣸"]  # joined by a line


def test_a_null_is_a_gap_and_is_not_bridged() -> None:
    upper, lower = trace([0.0] * 10 + [None] + [1.0] * 9)

    assert lower == "⣀" * 5 + BLANK * 5
    assert upper == BLANK * 5 + "⠈" + "⠉" * 4


def test_a_trace_leaves_on_the_left() -> None:
    points = [(0, 1.0)]
    assert braille(points, 0, 200, 0.0, 1.0, 10)[0] == BLANK * 9 + "⠈"
    assert braille(points, 190, 200, 0.0, 1.0, 10)[0] == "⠁" + BLANK * 9
    assert braille(points, 200, 200, 0.0, 1.0, 10)[0] == BLANK * 10


def test_a_band_is_dotted_around_its_trace() -> None:
    """A dot in every fourth column at either edge; the trace between them is drawn as without it."""
    points, low, high = ([(i * 10, level) for i in range(20)] for level in (0.5, 0.0, 1.0))
    plain = braille(points, 190, 200, 0.0, 1.0, 10)
    banded = braille(points, 190, 200, 0.0, 1.0, 10, (low, high))

    def dots(lines: list[str], other: list[str]) -> int:
        return sum(
            (ord(a) ^ ord(b)).bit_count() for x, y in zip(lines, other, strict=True) for a, b in zip(x, y, strict=True)
        )

    assert dots(banded, plain) == 2 * 5
    assert all(ord(a) & ord(b) == ord(b) for x, y in zip(banded, plain, strict=True) for a, b in zip(x, y, strict=True))


def test_an_sd_is_shown_as_a_band_and_a_number() -> None:
    """Where a message has one; it goes with the values."""
    state = after(100)
    without = drawn(state)
    message = decode(101)
    outputs = message.outputs | {"wheel_speed": Output(value=1.234, sd=0.5)}
    state.take_decode(msgspec.structs.replace(message, outputs=outputs))

    assert "1.234 ± 0.50" in drawn(state)
    assert "±" not in without
    assert list(state.upper["wheel_speed"]) == [(101 * BIN_NS, 1.734)]
    assert list(state.lower["wheel_speed"]) == [(101 * BIN_NS, 0.734)]
    assert "0.734 … 1.73 rad/s" in drawn(state)
    state.take_decode(decode(102, flags=Flag.GAP))
    assert "±" not in drawn(state)
    state.take_decode(decode(3))
    assert not state.upper


@pytest.fixture
def publisher() -> Iterator[zmq.Socket[bytes]]:
    before = [(signum, signal.getsignal(signum)) for signum in (signal.SIGINT, signal.SIGTERM)]
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.bind_to_random_port("tcp://127.0.0.1")
        yield socket
    for signum, handler in before:
        signal.signal(signum, handler)


def address(publisher: zmq.Socket[bytes]) -> str:
    return publisher.getsockopt_string(zmq.LAST_ENDPOINT)


def when_watched(publisher: zmq.Socket[bytes], act: Callable[[], object]) -> threading.Thread:
    """Do something once the view has subscribed to all three topics."""

    def run() -> None:
        for _ in range(3):
            publisher.recv()
        act()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_the_view_ends_with_the_run(publisher: zmq.Socket[bytes]) -> None:
    end = msgspec.msgpack.encode(decode(1, flags=int(Flag.END)))
    thread = when_watched(publisher, lambda: publisher.send_multipart([topic("decode", "rig"), end]))
    view.main(address(publisher), "rig")
    thread.join()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_view_ends_quietly_on_a_signal(publisher: zmq.Socket[bytes], signum: signal.Signals) -> None:
    thread = when_watched(publisher, lambda: os.kill(os.getpid(), signum))
    view.main(address(publisher), "rig")
    thread.join()


def test_the_view_ends_with_its_parent(publisher: zmq.Socket[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    parents = iter([100, 100, 1])
    monkeypatch.setattr(view.os, "getppid", lambda: next(parents))
    view.main(address(publisher), "rig")


def test_a_decoded_trace_is_drawn_at_the_time_that_it_speaks_of() -> None:
    """Ahead of what is measured, with the lead by its name."""
    state = after()
    assert state.decode is not None
    ahead = msgspec.structs.replace(
        decode(101),
        outputs={"wheel_speed": Output(value=2.0, sd=0.5, lead_ms=60.0), "choice": Output(probs=[0.0, 1.0])},
    )
    state.take_decode(ahead)
    for traces in (state.decoded, state.lower, state.upper):
        assert traces["wheel_speed"][-1][0] == 104 * BIN_NS
    assert state.measured["wheel_speed"][-1][0] < 101 * BIN_NS
    assert "wheel_speed +60 ms" in drawn(state)
    assert "+60 ms" not in drawn(after())
