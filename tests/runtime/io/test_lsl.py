"""Streams over real LSL on the loopback: described in full, or refused in one sentence."""

from __future__ import annotations

import math
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pylsl
import pytest

from neds_core.data.session import Session
from neds_core.errors import StreamError
from runtime.io import lsl_resolve
from runtime.io.lsl_clock import ClockMap, now_ns
from runtime.io.lsl_description import Description, read_description, unit_rows
from runtime.io.lsl_resolve import refuse_twins, resolve, resolve_number, resolve_text, stranger
from runtime.io.unit_stream import LAYOUT

MakeOutlet = Callable[..., pylsl.StreamOutlet]
WAIT_S = 5.0


def at_once(*looks: Callable[[], None]) -> None:
    """Each look for a stream waits for answers: they wait together."""
    with ThreadPoolExecutor(len(looks)) as pool:
        for each in [pool.submit(look) for look in looks]:
            each.result()


def test_a_description_survives_the_network(make_outlet: MakeOutlet, stream_name: str, session: Session) -> None:
    with_outlet = make_outlet(stream_name, session.units, source="synthetic")

    info = pylsl.StreamInlet(resolve(stream_name, WAIT_S)).info(WAIT_S)

    assert with_outlet.get_info().uid() == info.uid()
    rows = unit_rows(session.units)
    assert read_description(info) == Description(LAYOUT, "synthetic", True, True, session.units.sha256, 100.0, rows)
    unit = info.desc().child("neds_rt").child("units").first_child()
    for row in range(len(session.units)):
        told = [unit.child_value(key) for key in ("id", "source_id", "region")]
        assert told == [str(row), str(session.units.ids[row]), session.units.region[row]]
        unit = unit.next_sibling()
    assert unit.empty()


def test_a_stream_without_description_is_refused(lsl_session: str) -> None:
    with pytest.raises(StreamError, match=r"'bare' has no neds_rt description, .*declare layout and unit map"):
        read_description(pylsl.StreamInfo("bare", "Spikes", 1, 0.0, pylsl.cf_int32, "bare"))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"edit": {"layout": "counts"}}, "has layout 'counts'; send one int32 channel with layout 'events_unit'"),
        ({"edit": {"layout": None}}, "has layout ''; send one int32 channel"),
        ({"channels": 2}, "has 2 channels; send one int32 channel"),
        ({"channel_format": pylsl.cf_float32}, "sends float32; send int32"),
        ({"edit": {"clock": "device"}}, "stamps with a clock of its own; stamp with LSL local_clock()"),
        ({"edit": {"clock": None}}, "stamps with a clock of its own"),
        ({"edit": {"rate_hz": "many"}}, "declares rate_hz 'many'; give its mean number of spikes a second"),
        ({"edit": {"rate_hz": "nan"}}, "declares rate_hz 'nan'"),
        ({"edit": {"rate_hz": "-1"}}, "declares rate_hz '-1'"),
    ],
)
def test_a_stream_of_another_kind_is_refused(
    make_outlet: MakeOutlet, stream_name: str, session: Session, wrong: dict, says: str
) -> None:
    outlet = make_outlet(stream_name, session.units, **wrong)
    with pytest.raises(StreamError) as caught:
        read_description(outlet.get_info())
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"stream {stream_name!r} ")


def test_what_a_description_may_leave_out(make_outlet: MakeOutlet, stream_name: str, session: Session) -> None:
    """No keep-alives, no rate: it has none, it is not known."""
    outlet = make_outlet(stream_name, session.units, edit=dict.fromkeys(("keep_alive", "rate_hz")))
    found = read_description(outlet.get_info())
    assert (found.keep_alive, found.rate_hz) == (False, 0.0)


@pytest.mark.parametrize(("key", "value"), [("schema", "2"), ("id_base", "1"), ("stamp", "bin_end"), ("source", None)])
def test_what_a_description_must_say(
    make_outlet: MakeOutlet, stream_name: str, session: Session, key: str, value: str | None
) -> None:
    """Ids from 1 would decode every spike as its neighbour's; a source that is not said is not live."""
    outlet = make_outlet(stream_name, session.units, edit={key: value})
    with pytest.raises(StreamError, match=f"declares {key} "):
        read_description(outlet.get_info())


def test_a_missing_stream_is_refused(lsl_session: str) -> None:
    with pytest.raises(StreamError, match=r"'nobody' was not found in 0\.2 s; start its sender or raise input\.wait_s"):
        resolve("nobody", 0.2)


def test_a_missing_stream_names_those_that_are_there(
    make_outlet: MakeOutlet, stream_name: str, session: Session
) -> None:
    outlet = make_outlet(stream_name, session.units)

    def refused(name: str, source_id: str, says: str) -> None:
        with pytest.raises(StreamError, match=says):
            resolve(name, 0.2, source_id)

    def returned(source_id: str, says: str) -> None:
        found = stranger(stream_name, source_id, "")
        assert says in found if says else found == ""

    at_once(
        partial(refused, f"{stream_name}s", "", rf"streams seen here: .*'{stream_name}'"),
        partial(refused, stream_name, "other", rf"'{stream_name}' comes from source_id '{stream_name}', not 'other'"),
        partial(returned, stream_name, ""),
        partial(returned, "before", f"came back from source_id '{stream_name}'; this run follows 'before'"),
    )
    assert outlet.get_info().name() == stream_name


def test_a_stream_without_source_id_is_refused(lsl_session: str, stream_name: str) -> None:
    """liblsl gives it up at the first dropout."""
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(stream_name, "Spikes", 1, 0.0, pylsl.cf_int32, source_id=""))
    with pytest.raises(StreamError, match=r"has no source_id, .* set one in its sender"):
        resolve(outlet.get_info().name(), WAIT_S)


def test_two_streams_of_one_name_are_refused(make_outlet: MakeOutlet, stream_name: str, session: Session) -> None:
    """The first to answer would win, so both are looked for; a source_id tells them apart."""
    twins = [make_outlet(stream_name, session.units, source_id=source_id) for source_id in ("left", "right")]

    host = socket.gethostname()
    said = f"2 streams are called {stream_name!r}: {host} (left), {host} (right); stop all but one, or"
    for spikes, remedy in [
        (stream_name, "set input.spikes_source_id to 'left' or 'right'"),
        ("others", "give each its own name in its sender and in rig.toml"),  # no key tells them apart
    ]:
        with pytest.raises(StreamError) as caught:
            refuse_twins({stream_name: ""}, spikes)
        assert str(caught.value) == f"{said} {remedy}"
    refuse_twins({stream_name: "right"}, stream_name)
    assert resolve(stream_name, WAIT_S, "right").uid() == twins[1].get_info().uid()


def test_spikes_of_one_source_id_cannot_be_told_apart_by_it(
    make_outlet: MakeOutlet, stream_name: str, session: Session
) -> None:
    twins = [make_outlet(stream_name, session.units, source_id="same") for _ in range(2)]
    with pytest.raises(StreamError, match="give each its own source_id in its sender"):
        refuse_twins({twins[0].get_info().name(): "same"}, stream_name)


def test_several_single_streams_are_no_twins(make_outlet: MakeOutlet, stream_name: str, session: Session) -> None:
    outlets = [make_outlet(f"{stream_name}-{k}", session.units) for k in range(2)]
    refuse_twins({outlet.get_info().name(): "" for outlet in outlets}, "")


def test_many_streams_on_one_machine_are_all_found(make_outlet: MakeOutlet, stream_name: str, session: Session) -> None:
    """liblsl's own range of ports ends at 16 outlets a machine; the 17th would be there and not be found."""
    outlets = [make_outlet(f"{stream_name}-{k}", session.units) for k in range(20)]
    for outlet in outlets[-2:]:
        assert resolve(outlet.get_info().name(), WAIT_S).uid() == outlet.get_info().uid()


def test_text_and_numbers_are_told_apart(lsl_session: str, stream_name: str) -> None:
    def outlet(kind: str, channels: int, channel_format: int) -> pylsl.StreamOutlet:
        name = f"{stream_name}-{kind}"
        return pylsl.StreamOutlet(pylsl.StreamInfo(name, "Any", channels, 0.0, channel_format, name))

    outlets = [
        outlet("text", 1, pylsl.cf_string), outlet("number", 1, pylsl.cf_double64), outlet("wide", 2, pylsl.cf_float32)
    ]  # fmt: skip

    assert resolve_text(f"{stream_name}-text", WAIT_S).uid() == outlets[0].get_info().uid()
    info, channel = resolve_number(f"{stream_name}-number", WAIT_S, "speed")
    assert (info.uid(), channel) == (outlets[1].get_info().uid(), 0)
    with pytest.raises(StreamError, match=r"-text' sends string; name a stream of numbers \(float32\)"):
        resolve_number(f"{stream_name}-text", WAIT_S, "speed")
    with pytest.raises(StreamError, match=r"-number' sends double64; send string \(JSON markers\)"):
        resolve_text(f"{stream_name}-number", WAIT_S)
    with pytest.raises(StreamError, match="-wide' has 2 channels without labels; label them in its sender"):
        resolve_number(f"{stream_name}-wide", WAIT_S, "speed")


def labelled(name: str, *labels: str) -> pylsl.StreamOutlet:
    """A stream of numbers with a label for each channel."""
    info = pylsl.StreamInfo(name, "Position", len(labels), 0.0, pylsl.cf_float32, name)
    channels = info.desc().append_child("channels")
    for label in labels:
        channels.append_child("channel").append_child_value("label", label)
    return pylsl.StreamOutlet(info)


def test_a_channel_is_named_by_its_label(lsl_session: str, stream_name: str) -> None:
    """After a colon, or by the output's own name; a stream may have a colon in its own."""
    cursor, colon = labelled(stream_name, "x", "y"), labelled(f"{stream_name}:z", "z")
    for name, output, wanted in [
        (f"{stream_name}:y", "cursor_y", (cursor.get_info().uid(), 1)),
        (stream_name, "y", (cursor.get_info().uid(), 1)),
        (f"{stream_name}:z", "depth", (colon.get_info().uid(), 0)),
    ]:
        info, channel = resolve_number(name, WAIT_S, output)
        assert (info.uid(), channel) == wanted
    for name, output in [(f"{stream_name}:q", "q"), (stream_name, "q")]:
        with pytest.raises(StreamError, match=rf"has the channels 'x', 'y', not one 'q'; .* q = '{stream_name}:x'"):
            resolve_number(name, WAIT_S, output)


def test_a_stream_may_have_any_name(make_outlet: MakeOutlet, stream_name: str, session: Session) -> None:
    odd = ("O'Neil", 'the "left" one', """both ' and " ''""", "caf\u00e9 & <co>")
    outlets = {f"{text} {stream_name}": make_outlet(f"{text} {stream_name}", session.units) for text in odd}

    def is_found(name: str) -> None:
        found = resolve(name, WAIT_S, name)
        assert (found.uid(), found.name()) == (outlets[name].get_info().uid(), name)
        refuse_twins({name: name}, name)
        assert stranger(name, name, found.uid()) == ""
        assert ("does not connect again" in stranger(name, name, "another")) == ("'" in name)

    at_once(*(partial(is_found, name) for name in outlets))


# --- clocks ---


class Probed:
    """An inlet whose sender's clock is off by what it is told, one number a probe; None: no answer."""

    def __init__(self, *offsets: float | None) -> None:
        self.offsets = list(offsets)

    def time_correction(self, timeout: float) -> float:
        offset = self.offsets.pop(0)
        if offset is None:
            raise pylsl.util.TimeoutError
        return offset


def clock(*offsets: float | None, host: str = "elsewhere") -> ClockMap:
    """A clock map after those probes, 2 s apart."""
    info = SimpleNamespace(name=lambda: "s", hostname=lambda: host)
    ticks = FakeTime()
    made = ClockMap(Probed(*offsets), info, ticks)  # pyright: ignore[reportArgumentType]
    for _ in offsets:
        made._update(1.0)
        ticks.t_ns += 2_000_000_000
    ticks.t_ns -= 2_000_000_000
    return made


class FakeTime:
    """A clock that is set."""

    def __init__(self) -> None:
        self.t_ns = 10**12

    def __call__(self) -> int:
        return self.t_ns


def test_a_stream_of_this_host_stamps_with_this_very_clock() -> None:
    """Its offset is zero by fact; an estimate would add its own noise. Another host's is its median."""
    here = socket.gethostname()
    assert clock(2e-4, -9e-4, host=here).offset_ns == 0
    assert clock(2.0, host=here).offset_ns == 2_000_000_000
    assert clock(1e-4, 3e-4).offset_ns == 200_000


def test_a_hiccup_moves_nothing_and_a_step_is_counted_and_followed() -> None:
    assert (clock(1.0, 1.0, 1.0, 7.0).jumps, clock(1.0, 1.0, 1.0, 7.0, 1.0).offset_ns) == (0, 10**9)
    stepped = clock(1.0, 1.0, 1.0, 7.0, 7.0, 7.0)
    assert (stepped.jumps, stepped.offset_ns) == (1, 7 * 10**9)
    assert clock(0.0, 0.0, 7.0, 7.0, host=socket.gethostname()).jumps == 1


@pytest.mark.parametrize("step", [0.004, -0.004, 0.002])
def test_a_step_of_milliseconds_is_followed_at_the_second_probe(step: float) -> None:
    """From then on the offset is right; before, one probe could have been a hiccup."""
    found = clock(*[1.0] * 6, 1.0 + step, 1.0 + step)
    assert found.jumps == 1
    assert found.offset_ns == round((1.0 + step) * 1e9)


@pytest.mark.parametrize("ppm", [-500.0, -20.0, 200.0, 500.0])
def test_a_clock_of_another_pace_is_followed_and_never_takes_a_step(ppm: float) -> None:
    """Probes with 50 us of noise; the offset 2 s after the last one is right to 0.3 ms."""
    noise = np.random.default_rng(0).normal(0, 5e-5, 30)
    found = clock(*(1.0 + ppm * 1e-6 * 2.0 * k + noise[k] for k in range(30)))
    found.clock.t_ns += 2_000_000_000  # pyright: ignore[reportFunctionMemberAccess]
    assert found.jumps == 0
    assert found.slew_ppm == pytest.approx(ppm, abs=20)
    assert found.offset_ns == pytest.approx((1.0 + ppm * 1e-6 * 60.0) * 1e9, abs=300_000)
    stamps = np.array([found.clock() - found.offset_ns, 5 * 10**11])  # of now, and of half the time ago
    mapped = found.here(stamps)
    assert mapped[0] == pytest.approx(found.clock(), abs=1_000)
    found.clock.t_ns += 40_000_000  # pyright: ignore[reportFunctionMemberAccess]
    assert found.here(stamps).tolist() == mapped.tolist()


def test_a_probe_without_answer_keeps_the_last_offset() -> None:
    assert clock(1.5, None, None).offset_ns == 1_500_000_000


def test_a_clock_that_never_answers_is_refused() -> None:
    with pytest.raises(StreamError, match="sender of 's' does not answer clock probes; restart it"):
        clock(None).wait(0.01)


def test_the_clock_of_a_real_stream_here(make_outlet: MakeOutlet, stream_name: str, session: Session) -> None:
    outlet = make_outlet(stream_name, session.units)
    found = resolve(stream_name, WAIT_S)
    probed = ClockMap(pylsl.StreamInlet(found), found)
    probed.start()
    probed.wait()
    probed.stop()
    assert outlet.get_info().uid() == found.uid()
    assert (probed.offset_ns, probed.jumps) == (0, 0)


def test_now_is_the_lsl_clock() -> None:
    before = time.monotonic_ns()
    assert before - 1_000 <= now_ns() <= time.monotonic_ns() + 1_000
    assert math.isclose(now_ns() * 1e-9, pylsl.local_clock(), abs_tol=1.0)


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("print('[]')", []),
        ('print("a word from the system"); print(\'["lab-pc"]\')', ["lab-pc"]),
        ("print('my random walk')", []),
        ("print('[1, 2]')", []),
        ("pass", []),
        ("print('[\"lab-pc\"]'); raise SystemExit(7)", []),
        ("import time; time.sleep(60)", []),
        ("import sys; sys.stdout.buffer.write(b'\\xff')", []),
    ],
)
def test_only_a_look_that_went_well_is_believed(program: str, found: list[str]) -> None:
    """What another program printed is no host name; one that hangs is given up."""
    assert lsl_resolve._hosts([sys.executable, "-c", program], wait_s=-18.0) == found
