"""Lines for people while a run goes on: a terminal that takes none holds up nobody."""

from __future__ import annotations

import contextlib
import queue
import threading
from types import TracebackType
from typing import Self, TextIO

from runtime.core.words import safe

MOST = 100  # lines that wait; more are counted
CLOSE_S = 0.5  # how long the last lines may take


class Notices:
    """Prints lines in a thread of its own, opened with `with`: writing blocks where a terminal is stopped (Ctrl-S)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._print, name="notices", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.put(None)
        self._thread.join(CLOSE_S)

    def say(self, line: str) -> None:
        """Have a line printed; returns at once."""
        if self._lines.qsize() < MOST:
            self._lines.put(line)
        else:
            self._dropped += 1

    def _print(self) -> None:
        told = 0
        while (line := self._lines.get()) is not None:
            self._write(line)
            if (dropped := self._dropped) > told:
                self._write(f"{dropped - told} more messages came while none could be printed; the summary has them")
                told = dropped

    def _write(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a full disk, a stream that was closed
            print(safe(line), file=self._stream, flush=True)
