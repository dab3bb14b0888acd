"""The publisher: one map on two ports, no subscriber can hold it, and a port in use is said in one sentence."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import psutil
import pytest
import zmq

from neds_core.errors import StreamError
from runtime import wire
from runtime.config import OutputConfig
from runtime.io.publish import Publisher
from runtime.wire import Decode, Event, Output

FREE = OutputConfig(decode_port=0, latest_port=0)
WAIT_MS = 5000
MESSAGE = Decode(
    schema=wire.SCHEMA, seq=1, token=3, t_end_ns=80_000_000, t_pub_ns=84_000_000, boot_id="b", source="live",
    inputs=["spikes"], decoder="neds", engine="e",
    outputs={"wheel_speed": Output(value=0.5), "choice": Output(probs=[0.25, 0.75])}, age_ms=None, infer_ms=2.0,
    edge_to_pub_ms=4.0, state="RUNNING", flags=0, valid_until_ns=140_000_000, valid_for_ms=56.0, model_sha="m",
    unit_map_sha="u",
)  # fmt: skip


Listen = Callable[..., zmq.Socket]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Subscribers that are known to be connected, and have read all that was sent to find out."""
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())

        def start(publisher: Publisher, address: str, topic: bytes = b"") -> zmq.Socket:
            subscriber = stack.enter_context(context.socket(zmq.SUB))
            subscriber.setsockopt(zmq.LINGER, 0)
            subscriber.setsockopt(zmq.SUBSCRIBE, topic)
            subscriber.setsockopt(zmq.SUBSCRIBE, publisher.topics["event"])
            subscriber.connect(address)
            for _ in range(WAIT_MS // 20):
                if address == publisher.address:
                    publisher.tell("event", Event(wire.SCHEMA, "hello", 0, ""))
                else:
                    publisher.send(MESSAGE)
                if subscriber.poll(20):
                    break
            while subscriber.poll(50):
                subscriber.recv_multipart()
            return subscriber

        yield start


def read(subscriber: zmq.Socket) -> list[bytes]:
    assert subscriber.poll(WAIT_MS), "nothing was published"
    return subscriber.recv_multipart()


@pytest.mark.parametrize("form", ["msgpack", "json"])
def test_both_ports_carry_the_same_map(listen: Listen, form: Any) -> None:
    config = msgspec.structs.replace(FREE, format=form)
    with Publisher(config, "rig") as publisher:
        decode = listen(publisher, publisher.address)
        latest = listen(publisher, publisher.latest_address)
        while decode.poll(50):
            decode.recv_multipart()

        publisher.send(MESSAGE)

        topic, payload = read(decode)
        assert topic == b"neds/1/decode/rig/"
        assert read(latest) == [payload]  # one frame, safe with CONFLATE
        assert (payload[:1] == b"{") == (form == "json")
        assert wire.decoder(Decode, json=form == "json").decode(payload) == MESSAGE


def test_a_long_message_after_a_short_one_and_back(listen: Listen) -> None:
    """The buffer is reused: no message carries the tail of another."""
    long = msgspec.structs.replace(MESSAGE, outputs={f"o{i}": Output(probs=[0.1] * 100) for i in range(20)})
    with Publisher(FREE, "rig") as publisher:
        latest = listen(publisher, publisher.latest_address)
        for message in (MESSAGE, long, MESSAGE):
            publisher.send(message)
        assert [msgspec.msgpack.decode(read(latest)[0], type=Decode) for _ in range(3)] == [MESSAGE, long, MESSAGE]


def test_a_value_that_is_not_finite_is_null_in_json(listen: Listen) -> None:
    with Publisher(msgspec.structs.replace(FREE, format="json"), "rig") as publisher:
        latest = listen(publisher, publisher.latest_address)
        publisher.send(msgspec.structs.replace(MESSAGE, outputs={"wheel_speed": Output(value=float("nan"))}))
        assert msgspec.json.decode(read(latest)[0])["outputs"] == {"wheel_speed": {"value": None}}


@pytest.mark.parametrize("kind", ["status", "event", "measured"])
def test_other_messages_have_topics_of_their_own(listen: Listen, kind: str) -> None:
    with Publisher(FREE, "rig") as publisher:
        subscriber = listen(publisher, publisher.address, f"neds/1/{kind}/rig/".encode())
        publisher.tell(kind, {"t_ns": 5, "values": {"wheel_speed": None}})
        topic, payload = read(subscriber)
    assert topic == f"neds/1/{kind}/rig/".encode()
    assert msgspec.msgpack.decode(payload) == {"t_ns": 5, "values": {"wheel_speed": None}}


def test_a_rig_whose_name_begins_like_another_is_not_heard(listen: Listen) -> None:
    with Publisher(FREE, "rig-2") as publisher:
        subscriber = listen(publisher, publisher.address, wire.topic("decode", "rig"))
        publisher.send(MESSAGE)
        publisher.tell("event", Event(wire.SCHEMA, "last", 0, ""))
        assert read(subscriber)[0] == b"neds/1/event/rig-2/"


def test_without_subscribers_and_with_a_stalled_one_it_goes_on(listen: Listen) -> None:
    """Sends return, and what is not read is dropped, not kept."""
    outputs = {f"o{i}": Output(probs=[0.1] * 100) for i in range(10)}
    big = msgspec.structs.replace(MESSAGE, outputs=outputs)  # 9 kB
    with Publisher(FREE, "rig") as publisher:
        for _ in range(2_000):
            publisher.send(big)
        stalled = listen(publisher, publisher.address, b"neds/1/decode/")
        before = psutil.Process().memory_info().rss
        for _ in range(20_000):
            publisher.send(big)
        grown = psutil.Process().memory_info().rss - before
        assert stalled.poll(WAIT_MS)
    # 180 MB were sent; at most 500 + 1000 messages of 9 kB wait in the two queues
    assert grown < 60e6


@pytest.mark.parametrize("key", ["decode_port", "latest_port"])
def test_a_port_in_use_is_refused_and_nothing_stays_bound(key: str) -> None:
    with socket.socket() as holder, socket.socket() as probe:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        probe.bind(("127.0.0.1", 0))
        other = probe.getsockname()[1]
        probe.close()
        config = msgspec.structs.replace(FREE, decode_port=other, latest_port=other)
        config = msgspec.structs.replace(config, **{key: taken})

        with pytest.raises(StreamError) as caught, Publisher(config, "rig"):
            pytest.fail("it was bound twice")

        assert str(caught.value) == (
            f"port {taken} on 127.0.0.1 cannot be bound (Address already in use); another run may hold it: "
            f"stop it or set output.{key} (0 takes a free one)"
        )
    with Publisher(msgspec.structs.replace(FREE, decode_port=other), "rig") as publisher:
        assert publisher.address == f"tcp://127.0.0.1:{other}"


def test_free_ports_are_two_and_on_the_loopback() -> None:
    with Publisher(msgspec.structs.replace(FREE, host="localhost"), "a") as one, Publisher(FREE, "a") as two:
        addresses = {one.address, one.latest_address, two.address, two.latest_address}
    assert len(addresses) == 4
    assert all(address.startswith("tcp://127.0.0.1:") for address in addresses)
