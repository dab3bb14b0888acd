"""The view is a process of its own: it ends with its run, on a signal or with its parent, and fits its terminal."""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import zmq

from runtime.client import boot_id
from runtime.views import terminal as view
from runtime.views.capture import capture, main
from runtime.views.words import wrapped
from runtime.wire import Decode, Flag, topic
from tests.runtime.views.shown import decode


@pytest.fixture
def publisher() -> Iterator[zmq.Socket[bytes]]:
    before = [(signum, signal.getsignal(signum)) for signum in (signal.SIGINT, signal.SIGTERM)]
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.bind_to_random_port("tcp://127.0.0.1")
        yield socket
    for signum, handler in before:
        signal.signal(signum, handler)


def now_as(message: Decode) -> Decode:
    """The message as if it were of now, on this machine's clock."""
    now = time.monotonic_ns()
    return msgspec.structs.replace(
        message, t_end_ns=now - 5_000_000, t_pub_ns=now, boot_id=boot_id(), valid_until_ns=now + 60_000_000
    )


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


def screens(raw: bytes) -> list[list[str]]:
    """What a terminal that was written to showed: each picture's lines, without colours."""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", lambda m: "\f" if m[0] == "\x1b[H" else "", raw.decode())
    return [picture.split("\r\n") for picture in text.split("\f")[1:]]


def in_terminal(command: list[str], width: int, height: int, until: Callable[[bytes], bool]) -> tuple[int, bytes]:
    """The exit code of a command, and what it wrote to a terminal of this size until it was done."""
    import fcntl  # not on Windows
    import termios

    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")} | {"TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, env=environment)
    os.close(terminal)
    found, deadline = b"", time.monotonic() + 120.0
    try:
        while time.monotonic() < deadline and select.select([master], [], [], 120.0)[0]:
            try:
                found += os.read(master, 1 << 16)
            except OSError:  # closed at the other end
                break
            if until(found):
                process.terminate()
        return process.wait(60), found
    finally:
        process.kill()
        process.communicate()
        os.close(master)


pseudo_terminal = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")


@contextmanager
def published(publisher: zmq.Socket[bytes]) -> Iterator[str]:
    """The address of a run with eight outputs, whose stream falls silent."""
    link, ends = address(publisher), threading.Event()

    def publish() -> None:
        token = 1
        while not ends.wait(0.02):
            message = now_as(decode(token, n=8, state="STALLED" if token > 20 else "RUNNING"))
            publisher.send_multipart([topic("decode", "rig"), msgspec.msgpack.encode(message)])
            token += 1

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield link
    finally:
        ends.set()
        thread.join()


def test_a_capture_is_of_the_state_that_was_asked_for(publisher: zmq.Socket[bytes]) -> None:
    with published(publisher) as link:
        picture = capture(link, "rig", (80, 24), 0.1, "STALLED")
    assert "STALLED&#160;for&#160;" in picture
    assert picture.count("<text") > 24


@pseudo_terminal
@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 16)])
def test_a_terminal_never_scrolls(publisher: zmq.Socket[bytes], width: int, height: int) -> None:
    command = [sys.executable, "-m", "runtime.views.terminal"]
    with published(publisher) as link:
        _, raw = in_terminal([*command, link, "rig"], width, height, lambda raw: raw.count(b"STALLED for") > 3)
    pictures = screens(raw)

    assert len(pictures) > 3
    assert all(len(lines) <= height and max(map(len, lines)) <= width for lines in pictures)
    assert any("STALLED for 0." in line for lines in pictures for line in lines)


@pseudo_terminal
@pytest.mark.slow
def test_a_run_fits_its_terminal() -> None:
    """The demo on 80 x 24, as a user starts it."""
    command = [str(Path(sys.executable).with_name("neds-rt")), "run", "--seconds", "4"]
    code, raw = in_terminal(command, 80, 24, lambda raw: False)
    pictures = [lines for lines in screens(raw) if any("DEMO" in line for line in lines)]

    assert code == 0
    assert all(len(lines) == 24 and max(map(len, lines)) <= 80 for lines in pictures[:-1])  # the summary follows
    last = "\n".join(pictures[-2])
    for part in ("state ", "edge to pub p50 ", "p99 ", "misses ", "flags ", "wheel_speed", "now", "losses"):
        assert part in last


@pytest.mark.parametrize(
    ("address", "options", "why"),
    [
        ("tcp://127.0.0.1:5571", ["--size", "foo"], "--size 'foo' is no size of a console; give columns x lines"),
        ("tcp://127.0.0.1:5571", ["--size=-5x24"], "--size '-5x24' is no size of a console"),
        ("tcp://127.0.0.1:5571", ["--size", "80x0"], "--size '80x0' is no size of a console"),
        ("foo", [], "address 'foo': Invalid argument"),
    ],
)
def test_a_picture_that_cannot_be_is_one_sentence(
    address: str, options: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["capture", address, "rig", *options, "--out", str(tmp_path / "view.svg")])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith(f"python -m runtime.views.capture: {why}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("width", [-5, 0, 1])
def test_a_sentence_is_wrapped_in_no_room_at_all(width: int) -> None:
    assert [line.plain for line in wrapped("a bc", width, "")] == ["a", "b", "c"]
