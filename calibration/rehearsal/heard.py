"""What a subscriber hears of a run: every message that reaches it, and which were too old to act on.

It is a process of its own, `python -m calibration.rehearsal.heard ADDRESS`, as a client is. As a thread of the
rehearsal it waited for Python's lock, which others held while they waited for a processor: values that had come in time
were called stale.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import msgspec
from msgspec import Struct

from runtime import start
from runtime.children import Child
from runtime.client import Subscriber
from runtime.io import system
from runtime.io.lsl_clock import now_ns
from runtime.wire import Decode, Flag

WITHOUT = Flag.GAP | Flag.HOLD | Flag.IDLE | Flag.END  # such a message has no values
WRITE_S, END_S = 0.05, 2.0  # between two writes; longest wait for the run's last message


class Line(Struct, frozen=True, omit_defaults=True):
    """Of what the process writes: a message as it came, or when one was found too old to be handed out, LSL clock."""

    message: Decode | None = None
    stale_ns: int | None = None


@dataclass(slots=True)
class Heard:
    """messages: all that were received, in order. stale_ns: when the client found one too old to hand it out, LSL clock
    of this machine."""

    messages: list[Decode] = field(default_factory=list)
    stale_ns: list[int] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Messages between the first and the last that never came."""
        return self.messages[-1].seq - self.messages[0].seq + 1 - len(self.messages) if self.messages else 0

    def whole(self) -> bool:
        """Whether the run was heard to its end."""
        return bool(self.messages) and bool(self.messages[-1].flags & Flag.END)

    def decoded(self) -> int:
        """Messages with values."""
        return sum(not m.flags & WITHOUT for m in self.messages)


class Listener(Child):
    """The process, opened with `with`; it ends with the run's last message. For one thread."""

    def __init__(self, folder: Path, address: str) -> None:
        """folder: for what it writes."""
        program = start.command("calibration.rehearsal.heard")
        super().__init__(folder, address, name="subscriber", program=program)
        self._heard, self._read_to = Heard(), 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
        super().__exit__(kind, error, trace)

    def heard(self) -> Heard:
        """What it has written so far: at most `WRITE_S` old while it runs."""
        with self.out.open("rb") as file:
            file.seek(self._read_to)
            for text in file:
                if not text.endswith(b"\n"):
                    break
                self._read_to += len(text)
                line = msgspec.json.decode(text, type=Line)
                if line.message is not None:
                    self._heard.messages.append(line.message)
                if line.stale_ns is not None:
                    self._heard.stale_ns.append(line.stale_ns)
        return self._heard


class _Every(Subscriber):
    """The client, which hands out the newest message; all that it has read are kept as well."""

    def __init__(self, address: str, kept: list[Line]) -> None:
        super().__init__(address)
        self._kept = kept

    def _take(self, frames: list[bytes]) -> None:
        before = self._last
        super()._take(frames)
        if self._last is not None and self._last is not before:
            self._kept.append(Line(self._last))


def _hear(address: str, kept: list[Line]) -> None:
    """Until the run's last message."""
    with _Every(address, kept) as link:
        told = 0
        while not link.ended:
            link.receive(100.0)
            for _ in range(link.stale - told):
                kept.append(Line(stale_ns=now_ns()))
            told = link.stale


def main() -> None:
    """Hear, and write lines beside it: a client that acts on what it hears does not wait for a disk either."""
    kept, written = list[Line](), 0
    system.beside_the_loop()  # all of it, also what the hearing thread could wait for
    thread = threading.Thread(target=_hear, args=(sys.argv[1], kept), name="heard", daemon=True)
    thread.start()
    more = True
    while more:
        more = thread.is_alive()
        lines = kept[written:]
        written += len(lines)
        sys.stdout.buffer.write(msgspec.json.Encoder().encode_lines(lines))
        sys.stdout.buffer.flush()
        time.sleep(WRITE_S)


if __name__ == "__main__":
    main()
