"""The listener hears every message, finds those too old, and waits for nobody's lock."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zmq

from calibration.rehearsal.heard import Heard, Listener
from runtime import wire
from runtime.client import boot_id
from runtime.wire import Decode, Flag, Output

WAIT_MS = 60_000
MINUTE_NS = 60_000_000_000


def decode(seq: int, flags: int = 0, *, ended_ago_ns: int = 0) -> Decode:
    """A message of a bin that ended so long ago, published just now and valid for a minute."""
    now_ns = time.monotonic_ns()
    return Decode(
        schema=wire.SCHEMA, seq=seq, token=seq, t_end_ns=now_ns - ended_ago_ns, t_pub_ns=now_ns, boot_id=boot_id(),
        source="live", inputs=["spikes"], decoder="neds", engine="stream-cpu", outputs={"speed": Output(value=0.1)},
        age_ms=None, infer_ms=0.1, edge_to_pub_ms=0.2, state="RUNNING", flags=flags,
        valid_until_ns=now_ns + MINUTE_NS, valid_for_ms=60_000.0, model_sha="m", unit_map_sha="u",
    )  # fmt: skip


def until(listener: Listener, true: Callable[[Heard], bool]) -> Heard:
    deadline = time.monotonic() + WAIT_MS / 1e3
    while not true(heard := listener.heard()):
        listener.check()
        assert time.monotonic() < deadline, heard
        time.sleep(0.01)
    return heard


def test_every_message_is_kept_and_the_old_ones_are_found(tmp_path: Path) -> None:
    """Also where this process keeps Python's lock for longer than a value may be old: the listener has its own."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        sent: list[Decode] = []

        def send(message: Decode) -> None:
            sent.append(message)
            socket.send_multipart([wire.topic("decode", "rig"), msgspec.msgpack.encode(message)])

        with Listener(tmp_path, f"tcp://127.0.0.1:{port}") as listener:
            for _ in range(2):
                assert socket.poll(WAIT_MS), "the listener does not subscribe"
                socket.recv()
            send(decode(0))
            assert until(listener, lambda heard: len(heard.messages) == 1).decoded() == 1
            for seq in range(1, 4):
                send(decode(seq, Flag.GAP if seq == 2 else 0))
                ctypes.PyDLL(None).usleep(100_000)  # with the lock held
            assert not until(listener, lambda heard: len(heard.messages) == 4).stale_ns
            began_ns = time.monotonic_ns()
            send(decode(4, ended_ago_ns=MINUTE_NS))
            assert len(until(listener, lambda heard: bool(heard.stale_ns)).stale_ns) == 1
            send(decode(6, Flag.END))
            listener.process.wait(WAIT_MS / 1e3)
        heard = listener.heard()
    assert heard.messages == sent
    assert (heard.decoded(), heard.lost) == (4, 1)
    assert began_ns < heard.stale_ns[0] <= time.monotonic_ns()


def test_a_listener_that_cannot_hear_is_said(tmp_path: Path) -> None:
    from neds_core.errors import StreamError

    with Listener(tmp_path, "nowhere") as listener, pytest.raises(StreamError, match="the subscriber ended"):
        until(listener, lambda heard: bool(heard.messages))
