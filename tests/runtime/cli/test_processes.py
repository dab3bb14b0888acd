"""Signals that end a run, and a player that ends before it has sent anything."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest

from neds_core.errors import StreamError
from neds_core.stopping import Stopped
from runtime import start
from runtime.cli import processes
from runtime.cli.processes import Player, Stop

ROOT = Path(__file__).parents[3]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handlers_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_start_up_and_later_the_loop(number: int) -> None:
    with pytest.raises(Stopped):
        Stop() and send(number)

    stop, event = Stop(), Event()
    stop.ends(event)
    send(number)
    assert event.is_set()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_whose_exception_was_swallowed_is_not_lost(number: int) -> None:
    """By a library, or where C calls Python: the next step of the start-up hears of it."""
    stop = Stop()
    with suppress(Stopped):
        send(number)

    for ask in (stop.check, lambda: stop.ends(Event())):
        with pytest.raises(Stopped):
            ask()
    with pytest.raises(Stopped), stop.held():
        pass


def test_a_signal_while_c_calls_python_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """As LLVM does while it compiles: there the exception can only be printed, which frightens and helps nobody."""
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    stop = Stop()
    ctypes.CFUNCTYPE(None)(lambda: send(signal.SIGTERM))()
    with pytest.raises(Stopped):
        stop.check()

    ctypes.CFUNCTYPE(None)(lambda: {}["another error"])()
    assert len(told) == 1


def test_a_signal_in_a_stretch_that_is_held_comes_at_its_end() -> None:
    reached = []

    def stretch() -> None:
        with Stop().held():
            send(signal.SIGTERM)
            reached.append("the end")

    with pytest.raises(Stopped):
        stretch()
    assert reached


def test_signals_that_come_together_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed terminal and its shell send one each: the second must not cut off END and summary. A later one does."""
    stop, event = Stop(), Event()
    stop.ends(event)
    for number in SIGNALS:
        send(number)
    assert event.is_set()

    now = time.monotonic()
    monkeypatch.setattr(processes.time, "monotonic", lambda: now + processes.TOGETHER_S + 0.1)
    with pytest.raises(Stopped):
        send(signal.SIGINT)


def test_a_terminal_that_closes_does_not_cut_off_the_summary() -> None:
    stop = Stop()
    stop.loop_is_over()
    send(signal.SIGHUP)
    with pytest.raises(Stopped):
        send(signal.SIGTERM)


def test_nohup_is_kept() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Stop()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


# --- a player that ends at once ---


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Another program in the place of the player."""

    def put(program: str) -> None:
        monkeypatch.setattr(start, "command", lambda *_: [sys.executable, "-c", program])

    return put


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("raise ValueError('no such thing')", r"\(exit code 1\): ValueError: no such thing$"),
        (
            "import sys; sys.exit('neds-rt: recording: is none; correct it')",
            r"\(exit code 1\): recording: is none; cor",
        ),
        ("import os; os.kill(os.getpid(), 9)", r"\(signal 9\): it said nothing$"),
        ("print('my random walk')", r"\(exit code 0\): it said nothing$"),
        ("import sys; sys.stderr.buffer.write(b'caf\\xe9\\n' * 50_000)", r"\(exit code 0\): caf\\xe9$"),
    ],
)
def test_a_player_that_has_ended_says_why(instead: Callable[[str], None], program: str, says: str) -> None:
    instead(program)
    player = Player("recording.npz")
    player._process.wait(60)
    with pytest.raises(StreamError, match=r"^the player of this run has ended " + says):
        player.check()
    player.end()


def test_a_player_that_runs_is_not_refused_and_ends_with_the_run(instead: Callable[[str], None]) -> None:
    instead("import time; time.sleep(600)")
    player = Player("recording.npz")
    player.check()
    assert player.runs()
    player.end()
    assert not player.runs()


# --- a command before it has begun its work ---


@pytest.mark.parametrize(
    ("words", "number", "says"),
    [
        (("-m", "runtime.cli", "play", "{fifo}"), signal.SIGINT, "neds-rt play"),
        (("-m", "runtime.cli", "run", "{fifo}"), signal.SIGTERM, "neds-rt run"),
        (("-m", "neds_core.train", "{fifo}"), signal.SIGHUP, "neds_core.train"),
    ],
)
def test_an_early_signal_is_one_line(tmp_path: Path, words: tuple[str, ...], number: int, says: str) -> None:
    """While it reads its first file, which is a pipe that nobody fills."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = [sys.executable, *(word.format(fifo=fifo) for word in words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        writes = os.open(fifo, os.O_WRONLY)  # once it reads
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        os.close(writes)

    assert (process.returncode, out) == (128 + number, "")
    assert err == f"{says}: stopped before it was done ({signal.Signals(number).name})\n"
