"""Commands of ours as children: what they say is passed on while it comes, and the last of it is kept."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from neds_core.errors import StreamError
from runtime import start
from runtime.io.system import end, ended_by

STOP_S = 10.0
LOOK_S = 0.1


class Child:
    """`neds-rt WORDS`, opened with `with`: it ends with that. stdout goes to a file, stderr line by line to `say`."""

    def __init__(self, out: Path, say: Callable[[str], None], *words: object) -> None:
        self.name, self.out, self.said, self._say = str(words[0]), out, list[str](), say
        self._command = start.command("runtime.cli", *words)

    def __enter__(self) -> Self:
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, start_new_session=True
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
        for line in self.process.stderr:
            text = line.decode(errors="backslashreplace").rstrip()
            if text:
                self.said.append(text)
                self._say(text)

    def until(self, pattern: str, within_s: float) -> str:
        """The first group of a pattern in what it says. Raises `StreamError` where it ends, or takes too long."""
        deadline = time.monotonic() + within_s
        while True:
            for line in tuple(self.said):
                if found := re.search(pattern, line):
                    return found[1]
            self.check()
            if time.monotonic() > deadline:
                raise StreamError(f"neds-rt {self.name} was not ready within {within_s:g} s; try again when idle")
            time.sleep(LOOK_S)

    def check(self) -> None:
        """Raise `StreamError` if it has ended."""
        if self.process.poll() is not None:
            self._reader.join(STOP_S)
            raise StreamError(f"neds-rt {self.name} ended ({ended_by(self.process.returncode)}): {self.last}")

    @property
    def last(self) -> str:
        """The last that it said."""
        return self.said[-1].removeprefix("neds-rt: ") if self.said else "it said nothing"

    def result(self) -> dict[str, Any]:
        """What a command with --json reports: the last line of its stdout."""
        lines = self.out.read_bytes().splitlines()
        return msgspec.json.decode(lines[-1])
