"""Commands of ours as child processes: what they say is kept, and passed on while it comes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from neds_core.errors import StreamError
from runtime import start
from runtime.io.system import end, ended_by

# Linux alone has it: the kernel kills the child once the thread that started it is gone, however that ended. It is kept
# by exec, as the process's id is. Asked for in the child: between fork and exec no Python may run beside threads.
TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ignored by Python, and kept by exec
if os.getppid() == int(sys.argv[1]):  # else it was gone before
    os.execvp(sys.argv[2], sys.argv[2:])
"""
STOP_S, LOOK_S = 10.0, 0.05
Watch = Callable[[], None]  # raises where waiting has no use any more


def unwatched() -> None:
    """Wait, whatever happens elsewhere."""


def tied(words: list[str]) -> list[str]:
    """A command that the kernel kills when this thread is gone, also by SIGKILL or for want of memory (Linux)."""
    if not sys.platform.startswith("linux"):
        return words
    return [sys.executable, "-I", "-S", "-c", TIED, str(os.getpid()), *words]


class Child:
    """`neds-rt WORDS`, opened with `with`: it ends with that. Its output goes to NAME.out and NAME.err in a folder.

    On Linux it also ends when the thread that opened it is gone (see `tied`): a loop would stay at real-time priority,
    with its memory locked.
    """

    def __init__(
        self, folder: Path, *words: object, say: Callable[[str], None] = lambda line: None, name: str = "",
        program: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """say: is given each line of stderr as it comes, in a thread.

        name: by which it is called, '' = the first word. program: takes the words instead of neds-rt.
        """
        self.name, self.lines, self._say = name or str(words[0]), list[str](), say
        self._called = f"the {name}" if name else f"neds-rt {self.name}"
        self.out, self.err = folder / f"{self.name}.out", folder / f"{self.name}.err"
        self._command = [*(program or start.command("runtime.cli")), *map(str, words)]

    def __enter__(self) -> Self:
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                tied(self._command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, name=self.name, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self.process, STOP_S)
        self._reader.join(STOP_S)
        if not self._reader.is_alive() and self.process.stderr is not None:
            self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.err.open("wb", buffering=0) as kept:
            for line in self.process.stderr:
                kept.write(line)
                if text := line.decode(errors="backslashreplace").rstrip():
                    self.lines.append(text)
                    self._say(text)

    def until(self, pattern: str, within_s: float, watch: Watch = unwatched) -> str:
        """The first group of a pattern in one of its lines. Raises `StreamError` where it ends, or takes too long."""
        deadline = time.monotonic() + within_s
        while True:
            for line in (*tuple(self.lines), *self.out.read_text(errors="backslashreplace").splitlines()):
                if found := re.search(pattern, line):
                    return found[1]
            watch()
            self.check()
            if time.monotonic() > deadline:
                raise StreamError(f"{self._called} was not ready within {within_s:g} s; try again when idle")
            time.sleep(LOOK_S)

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def check(self) -> None:
        """Raise `StreamError` if it has ended."""
        if not self.runs:
            self._reader.join(STOP_S)
            last = self.lines[-1].removeprefix("neds-rt: ") if self.lines else "it said nothing"
            raise StreamError(f"{self._called} ended ({ended_by(self.process.returncode)}): {last}")

    def result(self, watch: Watch = unwatched, codes: tuple[int, ...] = (0,), within_s: float = float("inf")) -> Any:
        """Wait for its end; what it reports with --json, on its last line. Raises `StreamError` for another code."""
        deadline = time.monotonic() + within_s
        while self.runs:
            watch()
            if time.monotonic() > deadline:
                raise StreamError(f"{self._called} did not end within {within_s:g} s")
            time.sleep(LOOK_S)
        if self.process.returncode not in codes:
            self.check()
        return msgspec.json.decode(self.out.read_bytes().splitlines()[-1])

    def stop(self, watch: Watch = unwatched, within_s: float = 60.0) -> Any:
        """End it as Ctrl-C does; returns its `result`."""
        self.process.send_signal(signal.SIGINT)
        return self.result(watch, within_s=within_s)
