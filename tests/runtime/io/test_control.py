"""The control socket: whatever comes in, one sentence goes out, and the run does not notice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
from hypothesis import given, strategies as st

from neds_core.errors import ConfigError, StreamError
from runtime.io import control
from runtime.io.control import Answer, Control, Request, Rollback, State, Swap, ask

SHA = "0" * 64
GOOD = {"request": "swap", "path": "/a", "sha256": SHA}


def answer(request: Request) -> Answer:
    """Says what it was asked; a path that ends in `refuse` or `bug` raises."""
    path = request.path if isinstance(request, Swap) else ""
    if path.endswith("refuse"):
        raise ConfigError("not this one; give another")
    assert not path.endswith("bug"), "a bug"
    return Answer(True, type(request).__name__)


@pytest.fixture(scope="module")
def served() -> Iterator[Control]:
    with Control(0) as socket:
        socket.serve(answer, lambda: None)
        yield socket


@pytest.fixture(scope="module")
def client(served: Control) -> Iterator[zmq.Socket]:
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        socket.connect(served.address)
        yield socket


def say(client: zmq.Socket, payload: bytes) -> Answer:
    client.send(payload)
    found = client.recv()
    return (msgspec.json if payload[:1] == b"{" else msgspec.msgpack).decode(found, type=Answer)


@pytest.mark.parametrize("kind", [msgspec.json, msgspec.msgpack], ids=["json", "msgpack"])
def test_each_request_is_read_in_both_encodings(client: zmq.Socket, kind: type) -> None:
    for request in (Swap("/a", SHA), Swap("/a", SHA, "now", True, SHA), Rollback(), State()):
        assert say(client, kind.encode(request)).said == type(request).__name__  # pyright: ignore[reportAttributeAccessIssue]


@given(payload=st.binary(max_size=200) | st.builds(lambda b: b"{" + b, st.binary(max_size=200)))
def test_any_bytes_get_one_sentence(client: zmq.Socket, payload: bytes) -> None:
    found = say(client, payload)
    assert found.ok is (not isinstance(control.read(payload), str))
    assert found.said
    assert "\n" not in found.said


MEANT = {
    "request": lambda v: v == "swap", "path": lambda v: isinstance(v, str) and v, "sha256": lambda v: False,
    "swap_at": lambda v: isinstance(v, str) and v in ("", "iti", "now"), "force": lambda v: isinstance(v, bool),
    "code": lambda v: False,
}  # fmt: skip
values = st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.lists(st.integers(), max_size=2)


@given(st.dictionaries(st.sampled_from(sorted(MEANT)), values | st.sampled_from(["swap", "now"]), min_size=1))
def test_a_request_with_a_field_too_many_or_of_another_kind_is_refused(changes: dict[str, object]) -> None:
    read = control.read(msgspec.json.encode(GOOD | changes))
    if all(MEANT[name](value) for name, value in changes.items()):
        assert isinstance(read, Swap)
    else:
        assert isinstance(read, str)
        assert read.startswith("the request cannot be read (")


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"{" * 9000, "has 9000 bytes, more than 8192; send a path, not a file"),
        (msgspec.json.encode(GOOD | {"path": "/refuse"}), "not this one; give another"),
        (msgspec.json.encode(GOOD | {"path": "/bug"}), "the run could not do it (AssertionError: a bug"),
        (msgspec.json.encode(GOOD | {"code": "print()"}), "contains unknown field `code`"),
        (msgspec.json.encode({"request": "stop"}), "cannot be read (Invalid value 'stop'"),
        (b"\x80", "missing required field"),
    ],
    ids=["long", "refused", "bug", "field", "request", "empty"],
)
def test_what_is_refused_says_why(client: zmq.Socket, payload: bytes, says: str) -> None:
    found = say(client, payload)
    assert not found.ok
    assert says in found.said


def test_several_frames_are_no_request(client: zmq.Socket) -> None:
    client.send_multipart([b"a", b"b"])
    assert not msgspec.msgpack.decode(client.recv(), type=Answer).ok


def test_a_client_that_is_killed_while_it_waits_costs_nothing() -> None:
    """kill -9 between request and answer: the next one is answered."""
    asked, go = threading.Event(), threading.Event()

    def slow(request: Request) -> Answer:
        asked.set()
        assert go.wait(30.0)
        return answer(request)

    with Control(0) as socket:
        socket.serve(slow, lambda: None)
        code = f"from runtime.io.control import State, ask; ask({socket.address!r}, State())"
        with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3]) as child:
            assert asked.wait(60.0)
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        go.set()
        assert ask(socket.address, State(), 10.0).said == "State"


def test_what_fails_between_requests_stops_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise OSError(28, "the disk is full")

    with Control(0) as socket:
        socket.serve(answer, fails)
        assert [ask(socket.address, State(), 10.0).said for _ in range(2)] == ["State"] * 2
    assert caplog.text.count("OSError: [Errno 28]") == 1


def test_a_port_that_is_taken_and_a_run_that_is_not_there_are_said() -> None:
    with Control(0) as first, pytest.raises(StreamError, match=r"another run may hold it.* control\.port"):
        Control(first.port).__enter__()
    with pytest.raises(StreamError, match="no run answers at tcp://127"):
        ask("tcp://127.0.0.1:1", State(), 0.05)
    with pytest.raises(StreamError, match="expected tcp://127"):
        ask("nowhere", State(), 0.05)


def test_what_is_not_said_is_not_sent() -> None:
    """A run that does not know a newer field yet reads the request as before."""
    assert msgspec.to_builtins(Swap("/a", SHA)) == {"request": "swap", "path": "/a", "sha256": SHA}
