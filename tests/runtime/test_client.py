"""The client hands out fresh messages, counts the others, and never raises on what it reads.

Messages are valid for a second, and time passes by moving the client's clock, so a slow machine fails no test.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import zmq
from hypothesis import given, settings, strategies as st

from runtime import client, wire
from runtime.client import Latest, Subscriber, boot_id, moment_of, value_of
from runtime.wire import Decode, Flag, Output, Status

WAIT_MS = 5000  # far beyond what loopback needs: a test that waits this long has failed
MAX_AGE_MS = 1000


def decode(seq: int = 0, *, late_ms: float = 0.0, valid_ms: float = 1000.0, **fields: object) -> Decode:
    """A message published `late_ms` ago by this machine, 5 ms after its bin ended."""
    t_pub_ns = time.monotonic_ns() - int(late_ms * 1e6)
    message = Decode(
        schema=wire.SCHEMA, seq=seq, token=seq, t_end_ns=t_pub_ns - 5_000_000, t_pub_ns=t_pub_ns,
        boot_id=boot_id(), source="live", inputs=["spikes"], decoder="neds", engine="stream-cpu",
        outputs={"wheel_speed": Output(value=float(seq)), "choice": Output(probs=[0.25, 0.75])},
        age_ms=12.0, infer_ms=2.0, edge_to_pub_ms=5.0, state="RUNNING", flags=0,
        valid_until_ns=t_pub_ns + int(valid_ms * 1e6), valid_for_ms=valid_ms,
        model_sha="m" * 8, unit_map_sha="u" * 8,
    )  # fmt: skip
    return msgspec.structs.replace(message, **fields)


def elsewhere(seq: int, *, late_ms: float = 0.0, valid_ms: float = 1000.0, ahead_h: int = 1, boot: str = "a") -> Decode:
    """The same from another machine, whose clock is hours ahead of ours."""
    message = decode(seq, late_ms=late_ms, valid_ms=valid_ms)
    t_pub_ns = message.t_pub_ns + ahead_h * 3_600_000_000_000
    return msgspec.structs.replace(
        message, boot_id=boot, t_pub_ns=t_pub_ns, t_end_ns=t_pub_ns - 5_000_000, valid_until_ns=0
    )


def status(mark: int) -> Status:
    return Status(
        schema=wire.SCHEMA, rig="rig", boot_id="", source="live", state="RUNNING", t_pub_ns=0, decoder="neds",
        engine="", model="", model_sha="", model_created="", unit_map_sha="", outputs=[], flag_names={},
        counters={"mark": mark}, edge_to_pub_ms={}, misses_last_minute=0, units_seen=2, units_expected=2,
        population_rate_hz=10.0, segment=None, last_marker="", measured={}, budget_ms=20.0,
    )  # fmt: skip


class Publisher:
    """An XPUB socket on a free loopback port: it knows when its subscriber is there."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.address = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.marks = count(1)

    def wait(self, subscriptions: int) -> None:
        for _ in range(subscriptions):
            assert self.socket.poll(WAIT_MS), "no subscriber came"
            self.socket.recv()

    def send(self, *messages: Decode, rig: str = "rig", json: bool = False) -> None:
        encode = msgspec.json.encode if json else msgspec.msgpack.encode
        for message in messages:
            self.socket.send_multipart([wire.topic("decode", rig), encode(message)])

    def delivered(self, link: Subscriber, rig: str = "rig") -> Subscriber:
        """Return when the client has read all that was sent so far, and handed none of it out."""
        mark = next(self.marks)
        self.socket.send_multipart([wire.topic("status", rig), msgspec.msgpack.encode(status(mark))])
        deadline = time.monotonic() + WAIT_MS / 1000
        while (seen := link.status()) is None or seen.counters["mark"] != mark:
            assert time.monotonic() < deadline, "the status did not come"
            time.sleep(0.001)
        return link


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        yield Publisher(socket)


@pytest.fixture
def link(publisher: Publisher) -> Iterator[Subscriber]:
    with Subscriber(publisher.address, max_age_ms=MAX_AGE_MS) as link:
        publisher.wait(subscriptions=2)
        yield link


def seq_of(message: Decode | None) -> int | None:
    return None if message is None else message.seq


@pytest.fixture
def pass_ms(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the client's clock on."""
    return lambda ms: monkeypatch.setattr(
        client, "time", SimpleNamespace(monotonic_ns=lambda: time.monotonic_ns() + int(ms * 1e6))
    )


def introduce(publisher: Publisher, link: Subscriber, seq: int = 0, ahead_h: int = 1, boot: str = "a") -> int:
    """Send from elsewhere until the client has seen one message arrive; returns the next seq."""
    for each in range(seq, seq + 100):
        publisher.send(elsewhere(each, ahead_h=ahead_h, boot=boot))
        if publisher.delivered(link).receive(0):
            return each + 1
    pytest.fail("the other clock was never learnt")


@pytest.mark.parametrize("json", [False, True])
def test_a_fresh_message_arrives_whole_and_once(publisher: Publisher, link: Subscriber, json: bool) -> None:
    sent = decode(7)
    publisher.send(sent, sent, json=json)

    assert link.receive(WAIT_MS) == sent
    assert publisher.delivered(link).receive(0) is None
    publisher.send(decode(8), json=json)
    assert link.value("wheel_speed", WAIT_MS) == 8.0
    assert link.value("wheel_speed", 0) is None
    assert (link.stale, link.missed, link.malformed, link.restarts) == (0, 0, 0, 0)


@pytest.mark.parametrize(("late_ms", "valid_ms"), [(5000, 1e6), (50, 40), (-60_000, 1000)])
def test_what_may_not_be_acted_on_is_refused(
    publisher: Publisher, link: Subscriber, late_ms: float, valid_ms: float
) -> None:
    """Older than max_age_ms, past its validity, or from the future and so on another clock."""
    publisher.send(decode(late_ms=late_ms, valid_ms=valid_ms))

    assert publisher.delivered(link).receive(0) is None
    assert link.stale == 1


def test_a_message_grows_old_in_the_socket_and_in_the_hand(
    publisher: Publisher, link: Subscriber, pass_ms: Callable
) -> None:
    publisher.send(decode(0, valid_ms=1e6))
    held = link.receive(WAIT_MS)
    publisher.send(decode(1, valid_ms=1e6))
    pass_ms(1.1 * MAX_AGE_MS)

    assert publisher.delivered(link).receive(0) is None
    assert link.stale == 1
    assert held is not None
    assert not link.fresh(held)


def test_a_slow_reader_gets_the_newest(publisher: Publisher, link: Subscriber) -> None:
    publisher.send(*(decode(seq) for seq in range(10)))
    assert seq_of(publisher.delivered(link).receive(0)) == 9
    publisher.send(decode(12))
    assert seq_of(link.receive(WAIT_MS)) == 12
    assert link.missed == 9 + 2  # skipped, lost


def test_malformed_messages_are_counted_and_never_raise(publisher: Publisher, link: Subscriber) -> None:
    topic = wire.topic("decode", "rig")
    good = msgspec.msgpack.encode(decode())
    bad = [b"", b"{", b"\xff\xfe", good[:-3], good.replace(b"live", b"\xff\xff\xff\xff"), b'{"x":' + b"[" * 5000]
    frames = [[topic, payload] for payload in (*bad, msgspec.msgpack.encode(decode(schema=2)))]
    frames += [[topic], [topic, good, good], [topic + b"more/", good], [wire.topic("status", "rig"), good]]
    for each in frames:
        publisher.socket.send_multipart(each)
    publisher.send(decode(5))

    assert seq_of(publisher.delivered(link).receive(0)) == 5
    assert link.malformed == len(frames)


any_value = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=6),
        st.sampled_from([0, 1, -1, 2**63, 1e308, float("nan")]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=4,
)  # fmt: skip
altered = st.dictionaries(st.sampled_from(Decode.__struct_fields__), any_value, max_size=4)
encoded = st.builds(
    lambda fields, encode, cut: encode(msgspec.to_builtins(decode(7)) | fields)[cut:],
    altered, st.sampled_from([msgspec.msgpack.encode, msgspec.json.encode]), st.sampled_from([0, 0, 0, 1, 9]),
)  # fmt: skip
payload = st.one_of(encoded, st.binary(max_size=40), any_value.map(msgspec.msgpack.encode))
topics = st.one_of(st.sampled_from([b"neds/1/decode/rig/", b"neds/1/status/rig/", b"neds/1/event/r/"]), st.binary())


@settings(max_examples=60)
@given(st.lists(st.tuples(topics, payload, st.booleans()), max_size=8))
def test_any_bytes_are_counted_or_read_and_never_raise(frames: list[tuple[bytes, bytes, bool]]) -> None:
    """Whatever a port sends: nothing is handed out that is not a message, and asking for a value is safe."""
    with Subscriber("tcp://127.0.0.1:1") as link, Latest("tcp://127.0.0.1:1") as latest:
        for topic, body, whole in frames:
            link._take([topic, body] if whole else [topic])
            latest._take([body])
            for reader in (link, latest):
                message = reader.receive(0.0)
                if message is not None:
                    assert message.schema == wire.SCHEMA
                    assert reader.fresh(message) in (True, False)
                    for name, output in message.outputs.items():
                        value = value_of(message, name) if output.probs is None else None
                        assert value is None or math.isfinite(value)
        assert latest.malformed <= len(frames)


@pytest.mark.parametrize(("last", "flags", "first"), [(100, Flag(0), 3), (3, Flag.END, 100)])
def test_a_restart_is_a_new_run(publisher: Publisher, link: Subscriber, last: int, flags: Flag, first: int) -> None:
    publisher.send(decode(last, flags=int(flags)))
    assert seq_of(publisher.delivered(link).receive(0)) == last
    assert link.ended == bool(flags)

    publisher.send(decode(first))
    assert seq_of(link.receive(WAIT_MS)) == first
    assert not link.ended
    assert link.status() is None  # the one before was of the other run
    assert (link.restarts, link.missed) == (1, 0)


def test_end_is_known_even_from_a_stale_message(publisher: Publisher, link: Subscriber) -> None:
    publisher.send(decode(1, late_ms=5000, flags=int(Flag.END)))

    assert publisher.delivered(link).receive(0) is None
    assert link.ended


def test_a_reader_of_any_rig_keeps_the_first(publisher: Publisher, link: Subscriber) -> None:
    for seq, rig in ((1, "left"), (900, "right"), (2, "left")):
        publisher.send(decode(seq), rig=rig)

    assert seq_of(publisher.delivered(link, rig="left").receive(0)) == 2
    assert (link.missed, link.restarts) == (1, 0)


def test_a_named_rig_is_not_its_prefix(publisher: Publisher) -> None:
    with Subscriber(publisher.address, "rig", MAX_AGE_MS) as link:
        publisher.wait(subscriptions=2)
        publisher.send(decode(1), rig="rig2")
        publisher.send(decode(2), rig="rig")

        assert seq_of(publisher.delivered(link).receive(0)) == 2
        assert link.missed == 0


def test_elsewhere_the_fastest_message_is_the_clock(publisher: Publisher, link: Subscriber, pass_ms: Callable) -> None:
    """The offset of the clocks is learnt from arrivals, and a late message is still late."""
    seq = introduce(publisher, link)
    pass_ms(10_000)
    before = link.stale
    for late_ms, valid_ms in ((5000, 1e6), (500, 10)):
        publisher.send(elsewhere(seq, late_ms=late_ms - 10_000, valid_ms=valid_ms))
        assert publisher.delivered(link).receive(0) is None
        seq += 1
    assert link.stale == before + 2

    publisher.send(elsewhere(seq, late_ms=-10_000))
    assert seq_of(link.receive(WAIT_MS)) == seq


def test_elsewhere_a_backlog_is_not_the_clock(publisher: Publisher, link: Subscriber, pass_ms: Callable) -> None:
    """A delay that lasts is not drift, and drift is not a delay."""
    seq = introduce(publisher, link)
    moved_ms = 3 * 3_600_000
    pass_ms(moved_ms)
    for i in range(3):
        publisher.send(elsewhere(seq + i, late_ms=4000 - moved_ms))
        assert publisher.delivered(link).receive(0) is None

    publisher.send(elsewhere(seq + 3, late_ms=1e-4 * moved_ms - moved_ms))  # the other crystal is 100 ppm slow
    assert seq_of(link.receive(WAIT_MS)) == seq + 3


def test_elsewhere_a_message_that_lay_waiting_is_not_trusted(publisher: Publisher, link: Subscriber) -> None:
    """Its age cannot be known, so it is refused until one message has been seen to arrive."""
    publisher.send(elsewhere(0, ahead_h=0))
    assert link._socket.poll(WAIT_MS)

    assert link.receive(0) is None
    assert link.stale == 1
    introduce(publisher, link)


@pytest.mark.parametrize(("boots", "ahead_h"), [("ab", 2), ("ab", -2), (["", ""], -2)])
def test_another_boot_is_another_clock(publisher: Publisher, link: Subscriber, boots: str, ahead_h: int) -> None:
    """Known by its name or, on a machine without names, by the clock that went back."""
    introduce(publisher, link, boot=boots[0])
    introduce(publisher, link, 500, ahead_h, boots[1])
    assert (link.restarts, link.missed) == (1, 0)


def test_latest_is_one_frame_and_the_newest(publisher: Publisher) -> None:
    with Latest(publisher.address, MAX_AGE_MS) as link:
        publisher.wait(subscriptions=1)
        for seq in range(50):
            publisher.socket.send(msgspec.msgpack.encode(decode(seq)))
        seen: int | None = 0
        while seen not in (49, None):
            seen = seq_of(link.receive(WAIT_MS))
        assert seen == 49

        publisher.socket.send(b"nonsense")
        assert link._socket.poll(WAIT_MS)
        assert link.receive(0) is None
        assert link.malformed == 1


@pytest.mark.parametrize(
    "fields",
    [
        *({"flags": int(flag | Flag.LATE)} for flag in (Flag.GAP, Flag.HOLD, Flag.IDLE)),
        *({"outputs": {"wheel_speed": Output(value=value)}} for value in (None, float("nan"), float("inf"))),
    ],
)
def test_a_withheld_value_is_none_whatever_it_carries(fields: dict) -> None:
    assert value_of(decode(2, **fields), "wheel_speed") is None


@pytest.mark.parametrize("name", ["wheel", "choice"])
def test_a_name_that_is_not_a_continuous_output_is_an_error(name: str) -> None:
    with pytest.raises(KeyError, match="wheel_speed"):
        value_of(decode(), name)


def test_a_wrong_address_is_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="tcp://HOST:PORT"):
        Subscriber("nonsense")


def test_a_value_speaks_of_its_bin_or_of_a_lead_later() -> None:
    ahead = decode(outputs={"x": Output(value=1.0, lead_ms=60.0), "y": Output(value=1.0)})
    assert [moment_of(ahead, name) - ahead.t_end_ns for name in ("x", "y")] == [60_000_000, 0]


EXAMPLE = Path(__file__).parents[2] / "examples" / "closed_loop.py"


@pytest.mark.parametrize(
    ("lead_ms", "delay_ms", "says", "warns"),
    [
        (None, [], "", []),
        (60.0, ["--delay-ms", "40"], ", 60 ms ahead", []),
        (60.0, ["--delay-ms", "80"], ", 60 ms ahead", ["wheel_speed is 60 ms ahead but acts 85.0 ms after its bin\n"]),
    ],
)
def test_the_example_says_what_is_decoded_ahead_and_leaves_the_line_low_when_it_is_killed(
    publisher: Publisher, lead_ms: float | None, delay_ms: list[str], says: str, warns: list[str]
) -> None:
    """SIGTERM is what a rig's scripts send. A delay that the lead does not pay for is told once."""
    command = [sys.executable, "-u", EXAMPLE, "--address", publisher.address, *delay_ms]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            publisher.wait(subscriptions=2)
            outputs = {"wheel_speed": Output(value=5.0, lead_ms=lead_ms)}
            publisher.send(decode(5, outputs=outputs), decode(6, outputs=outputs))
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == f"TTL 1  wheel_speed 5.0{says}\n"
            process.terminate()
            *_, last = process.stdout
            assert [*process.stderr] == warns
        finally:
            process.kill()
    assert last.startswith("TTL 0  end: ")
