"""The picture shows what the messages say, what matters most first, and nothing once it is old."""

from __future__ import annotations

import re
from io import StringIO

import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from rich.console import Console

from runtime.views.glyphs import big
from runtime.views.look import ALARM_WORDS, look_at
from runtime.views.model import Measured, Shown
from runtime.views.picture import render
from runtime.wire import Flag, Output, OutputInfo
from tests.runtime.views.shown import BIN_NS, after, becomes, decode, drawn, fits, one_line


def test_a_live_run_shows_its_numbers() -> None:
    text = drawn(after())

    for part in (
        "LIVE", "state  RUNNING ", "segment 9", "marker stim", "decoder neds", "mouse 01234567, 2 d old",
        "units 104/105", "population 612 Hz", "1.234", "1.500", "rad/s", "edge to pub p50 3.3   p99 7.7   max 18.8 ms",
        "misses 6 (1.5 %)", "budget 20 ms", "edge to pub now 5.5 ms", "infer 2.2 ms", "newest spike 11.1 ms",
        "late 17", "closed 400", "odd 3",
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
    assert set(drawn(after(silent_ms=10_100))) & {chr(c) for c in range(0x2801, 0x2900)} == set()


@pytest.mark.parametrize("word", ["FAULT", "LOST", "STALLED", "DEGRADED"])
def test_a_state_that_is_not_as_it_should_be_is_in_large_letters_with_its_reason(word: str) -> None:
    shown = becomes(after(), word, bins=10)
    assert all(row.rstrip() in drawn(shown) for row in big(word).splitlines())
    assert f"{word} for 0.2 s: {ALARM_WORDS[word]}" in drawn(shown)

    becomes(shown, word, reason="no unit has fired for 0.40 s")
    assert f"{word} for 0.2 s: no unit has fired for 0.40 s" in drawn(shown)


def test_an_alarm_says_since_when_and_of_which_stream() -> None:
    """By the status; until one of this state has come, by what the view has seen. LOST goes on counting."""
    reason = "stream 'spikes-probe0' sent nothing; values are withheld"
    shown = after(silent_ms=0)
    shown.take_decode(decode(101, flags=Flag.GAP, state="STALLED"))
    assert f"STALLED for 0.0 s: {ALARM_WORDS['STALLED']}" in drawn(shown)

    becomes(shown, "STALLED", flags=Flag.GAP, bins=160, reason=reason, since_ns=90 * BIN_NS)
    assert f"STALLED for 3.4 s: {reason}" in drawn(shown)
    shown.now_ns += 100_000_000
    assert "STALLED for 3.5 s: " in drawn(shown)

    becomes(shown, "LOST", flags=Flag.GAP, bins=3500, since_ns=90 * BIN_NS)
    assert "LOST for 1 min 13 s: " in drawn(shown)
    shown.take_decode(decode(9000))
    assert " for " not in drawn(shown)
    shown.take_decode(decode(9001, flags=Flag.GAP, state="STALLED"))
    assert "STALLED for 0.0 s: " in drawn(shown)  # not the silence before, of which the status still speaks


def coloured(shown: Shown, width: int = 80, height: int = 24) -> str:
    console = Console(record=True, width=width, height=height, file=StringIO(), force_terminal=True)
    console.print(render(shown, width, height))
    return console.export_text(styles=True)


@pytest.mark.parametrize(
    ("word", "ground"),
    [
        ("READY", 42), ("RUNNING", 42), ("IDLE", 43), ("WARMUP", 43), ("DEGRADED", 43), ("STALLED", 41), ("LOST", 41),
        ("FAULT", 41),
    ],
)  # fmt: skip
def test_a_state_is_green_amber_or_red(word: str, ground: int) -> None:
    shown = becomes(after(), word)
    assert re.search(rf"\x1b\[1;3[07];{ground}m {word} ", coloured(shown))
    shown.now_ns += 300_000_000
    assert re.search(r"\x1b\[1;37;41m STALE ", coloured(shown))
    assert word not in coloured(shown)


def test_misses_and_latency_beyond_their_limits_are_coloured_and_said() -> None:
    """Amber where there are any, red where they are more than one bin in a hundred; and in words."""
    shown = after()
    assert shown.status is not None
    told = shown.status
    for misses, closed, says in (
        (0, 400, "misses \x1b[0mN "), (3, 400, "\x1b[1;33m3\x1b[0m\x1b[33m (0.8 %)"),
        (6, 400, "\x1b[1;31m6\x1b[0m\x1b[31m (1.5 %)"), (30, 10**6, "\x1b[1;33m30\x1b[0m\x1b[33m (1.0 %)"),
    ):  # fmt: skip
        counters = {"tokens_closed": closed}
        shown.status = msgspec.structs.replace(told, misses_last_minute=misses, counters=counters)
        assert says.replace("N", str(misses)) in coloured(shown).replace("\x1b[2m", ""), (misses, closed)

    assert "over)" not in drawn(shown)
    shown.status = msgspec.structs.replace(told, edge_to_pub_ms={"p50": 3.3, "p99": 21.0, "max": 40.0})
    assert "budget 20 ms (p99, max over)" in drawn(shown)
    assert "\x1b[33m21.0" in coloured(shown)


def test_an_old_status_shows_no_number() -> None:
    """While messages come."""
    shown = after()
    shown.status_at_ns -= 2_600_000_000
    text = drawn(shown)
    assert "1.234" in text
    assert all(old not in text for old in ("3.3", "7.7", "misses 6", "612", "104/105", "17", "400", "stim"))


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


def test_another_clock_starts_new_traces() -> None:
    state = after(100)
    state.take_decode(decode(3))

    assert list(state.decoded["wheel_speed"]) == [(3 * BIN_NS, 1.234)]
    assert not state.measured


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
    assert "1.73┤" in drawn(state)
    assert "0.734┤" in drawn(state)
    state.take_decode(decode(102, flags=Flag.GAP))
    assert "±" not in drawn(state)
    state.take_decode(decode(3))
    assert not state.upper


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
    assert "now +60 ms┘" in drawn(state)
    assert "+60 ms" not in drawn(after())


STATES = ("INIT", "READY", "RUNNING", "IDLE", "DEGRADED", "STALLED", "LOST", "FAULT", "ENDED", "UNHEARD_OF")
reasons = st.lists(st.sampled_from(["stream", "'spikes-probe0'", "98.5", "%", "quarantined:", "神経", "x" * 70]))
n_outputs = st.sampled_from([0, 1, 3, 8, 20])


@settings(max_examples=60)
@given(
    width=st.integers(60, 220), height=st.integers(16, 70), n=n_outputs, word=st.sampled_from(STATES), reason=reasons,
    stale=st.booleans(),
)  # fmt: skip
def test_what_matters_most_is_there_at_any_size(
    width: int, height: int, n: int, word: str, reason: list[str], stale: bool
) -> None:
    """State, the whole sentence of its alarm, latency and misses; it never scrolls."""
    shown = becomes(after(10, outputs=n), word, reason=" ".join(reason))
    shown.now_ns += 300_000_000 * stale
    text = drawn(shown, width, height)
    look = look_at(shown)

    assert fits(text, width, height)
    assert f"state  {'STALE' if stale else word} " in text
    assert "p99 " in text
    assert "misses " in text
    assert re.sub(r"\s", "", look.sentence) in re.sub(r"[\s│╭╮╰╯]", "", text)
    assert bool(look.sentence) == (stale or word in ALARM_WORDS)


@settings(max_examples=60)
@given(width=st.integers(1, 80), height=st.integers(1, 24), n=n_outputs, word=st.sampled_from(STATES))
def test_it_fits_a_terminal_that_is_too_small(width: int, height: int, n: int, word: str) -> None:
    text = drawn(becomes(after(10, outputs=n), word), width, height)

    assert fits(text, width, height)
    assert width < 30 or word in text
    assert height < 8 or width < 30 or word not in ALARM_WORDS or f"{word} for" in one_line(text)


@settings(max_examples=60)
@given(width=st.integers(50, 220), height=st.integers(8, 70), n=st.sampled_from([1, 3, 8, 20]))
def test_what_matters_least_goes_first(width: int, height: int, n: int) -> None:
    """Traces, then counts, losses, classes; the values of all outputs before any of these."""
    text = drawn(after(30, outputs=n), width, height)
    n_values = text.count("1.234")
    there = [
        "p99 " in text, "flags" in text, n_values > 0, "0.75" in text, "late 17" in text, "closed 400" in text,
        "newest spike" in text, any("\u2800" < c < "\u2900" for c in text),
    ]  # fmt: skip

    assert there == sorted(there, reverse=True)
    assert n_values == n or not any(there[3:])
    assert n_values == n or "more outputs" in text or height < 16


@pytest.mark.parametrize(
    ("width", "height", "n", "rows"),
    [
        (80, 24, 1, 9), (80, 24, 3, 4), (80, 24, 8, 0), (80, 24, 20, 0), (120, 40, 1, 10), (120, 40, 3, 7),
        (120, 40, 8, 3), (120, 40, 20, 0), (60, 16, 1, 3), (60, 16, 3, 0), (60, 16, 20, 0), (200, 60, 20, 2),
    ],
)  # fmt: skip
def test_traces_take_what_room_is_left(width: int, height: int, n: int, rows: int) -> None:
    text = drawn(after(30, outputs=n), width, height)

    assert len(re.findall("[┤│][\u2800-\u28ff]", text)) == n * rows
    assert ("now┘" in text) == (rows > 0)
    assert "late 17" in text
    assert text.count("1.234") == n
