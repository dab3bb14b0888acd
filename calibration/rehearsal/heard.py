"""What a subscriber hears of a run: every message as the client hands it out, and which were too old to act on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from runtime.client import Subscriber
from runtime.io import system
from runtime.io.lsl_clock import now_ns
from runtime.wire import Decode, Flag

WITHOUT = Flag.GAP | Flag.HOLD | Flag.IDLE | Flag.END  # such a message has no values


class Heard:
    """A subscriber in a thread of its own, opened with `with`.

    messages: in order, without those that were stale. stale_ns: when stale ones were read, LSL clock; missed: messages
    that were lost, or followed by a newer one before they were read.
    """

    def __init__(self, address: str, runs: Callable[[], bool]) -> None:
        """runs: whether the run is still there."""
        self.messages: list[Decode] = []
        self.stale_ns: list[int] = []
        self.missed = 0
        self._address, self._runs = address, runs
        self._thread = threading.Thread(target=self._hear, name="heard", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(2.0)

    def _hear(self) -> None:
        system.beside_the_loop()  # as a client that acts on what it hears
        with Subscriber(self._address) as link:
            while not link.ended and self._runs():
                message = link.receive(100.0)
                if message is not None:
                    self.messages.append(message)
                while len(self.stale_ns) < link.stale:
                    self.stale_ns.append(now_ns())
                self.missed = link.missed

    def decoded(self) -> int:
        """Messages with values so far."""
        return sum(not m.flags & WITHOUT for m in tuple(self.messages))
