"""What ends a run from outside, and what a run starts: signals and child processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from neds_core.errors import StreamError
from neds_core.stopping import TOGETHER_S, Stopped
from runtime import start
from runtime.io.system import end, ended_by

if TYPE_CHECKING:
    from threading import Event

STOP_S = 1.0
HANG_UP = getattr(signal, "SIGHUP", None)  # not on Windows


class Stop:
    """SIGINT, SIGTERM and SIGHUP: end the loop at once; during start-up, end the process.

    The exception that a signal raises is lost where a library swallows it, and where C calls Python (LLVM does, while
    it compiles): each step of the start-up therefore asks again (`check`).
    """

    def __init__(self) -> None:
        self._event: Event | None = None  # of the loop that a signal ends
        self._holding = False
        self._first, self._first_s = 0, 0.0  # the first signal, and when it came; 0 = none yet
        numbers = [signal.SIGINT, signal.SIGTERM]
        if HANG_UP is not None and signal.getsignal(HANG_UP) is not signal.SIG_IGN:  # nohup: it is to stay ignored
            numbers.append(HANG_UP)
        for number in numbers:
            signal.signal(number, self)
        self._told, sys.unraisablehook = sys.unraisablehook, self._lost

    def _lost(self, lost: Any) -> None:
        """An exception that nobody can catch: one of a signal is heard at the next `check`, so it is no news."""
        if not isinstance(lost.exc_value, Stopped):
            self._told(lost)

    @property
    def first(self) -> int:
        """The first signal that came, 0 = none yet."""
        return self._first

    def check(self) -> None:
        """Raise `Stopped` if a signal has come."""
        if self._first:
            raise Stopped(self._first)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A stretch that a signal may not cut in two: it takes effect at the end."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        self.check()

    def ends(self, event: Event) -> None:
        """From here on the first signal sets the event of a loop."""
        self._event = event
        self.check()

    def loop_is_over(self) -> None:
        """From here on a signal ends the process; a terminal that closes no longer does: the summary is on its way."""
        self._event = None
        if HANG_UP is not None:
            signal.signal(HANG_UP, signal.SIG_IGN)

    def __call__(self, number: int, frame: object) -> None:
        now, again = time.monotonic(), bool(self._first)
        if not again:
            self._first, self._first_s = number, now
        if self._holding or (again and now - self._first_s < TOGETHER_S):
            return
        if self._event is None or again:
            raise Stopped(number)
        self._event.set()


class Player:
    """`neds-rt play` in a process of its own, which ends with this one. Its last line on stderr is kept."""

    def __init__(self, recording: str, *options: object) -> None:
        command = start.command("runtime.cli", "play", recording, *options)
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        self._last = ""
        self._reader = threading.Thread(target=self._read, name="player", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._last = line.decode(errors="backslashreplace").strip() or self._last

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise `StreamError` if it has ended."""
        if not self.runs():
            raise StreamError(self.said())

    def said(self) -> str:
        """How it ended, and the last that it said."""
        self._reader.join(STOP_S)
        how = ended_by(self._process.returncode)
        return f"the player of this run has ended ({how}): {self._last.removeprefix('neds-rt: ') or 'it said nothing'}"

    def end(self) -> None:
        """Ask, then insist."""
        end(self._process)
        self._reader.join(STOP_S)
        if not self._reader.is_alive() and self._process.stderr is not None:
            self._process.stderr.close()
