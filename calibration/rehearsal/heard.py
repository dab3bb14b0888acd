"""What a subscriber hears of a run: every message that reaches it, and which were too old to act on."""

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


class _Every(Subscriber):
    """The client, which hands out the newest message; all that it has read are kept as well."""

    def __init__(self, address: str, kept: list[Decode]) -> None:
        super().__init__(address)
        self._kept = kept

    def _take(self, frames: list[bytes]) -> None:
        before = self._last
        super()._take(frames)
        if self._last is not None and self._last is not before:
            self._kept.append(self._last)


class Heard:
    """A subscriber in a thread of its own, opened with `with`.

    messages: all that were received, in order. stale_ns: when the client found one too old to hand it out, LSL clock.
    """

    def __init__(self, address: str, runs: Callable[[], bool]) -> None:
        """runs: whether the run is still there."""
        self.messages: list[Decode] = []
        self.stale_ns: list[int] = []
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
        with _Every(self._address, self.messages) as link:
            while not link.ended and self._runs():
                link.receive(100.0)
                while len(self.stale_ns) < link.stale:
                    self.stale_ns.append(now_ns())

    @property
    def lost(self) -> int:
        """Messages between the first and the last that never came."""
        return self.messages[-1].seq - self.messages[0].seq + 1 - len(self.messages) if self.messages else 0

    def decoded(self) -> int:
        """Messages with values so far."""
        return sum(not m.flags & WITHOUT for m in tuple(self.messages))
