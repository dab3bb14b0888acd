"""From a decoded value to motion: an added delay, and no motion without a fresh value."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np


class Command(NamedTuple):
    """A velocity (D,) to apply from one moment on and no longer than until another (ns); None = a withheld value."""

    from_ns: int
    until_ns: int
    velocity: np.ndarray | None


class DelayLine:
    """Values take effect `delay_ns` after their receipt, in their order; one that has run out has no successor but a
    newer one."""

    def __init__(self) -> None:
        self._waiting: deque[Command] = deque()
        self._now: Command | None = None

    def push(self, received_ns: int, valid_ns: int, delay_ns: int, velocity: np.ndarray | None) -> None:
        """A value that came at received_ns and is valid for valid_ns after it takes effect."""
        start_ns = received_ns + delay_ns
        while self._waiting and self._waiting[-1].from_ns > start_ns:  # the delay has just become shorter
            self._waiting.pop()
        self._waiting.append(Command(start_ns, start_ns + valid_ns, velocity))

    def clear(self) -> None:
        """Forget what is on its way and what is in effect."""
        self._waiting.clear()
        self._now = None

    def at(self, now_ns: int) -> Command | None:
        """What is in effect; None = nothing yet, or what was has run out: the effector stands still."""
        while self._waiting and self._waiting[0].from_ns <= now_ns:
            self._now = self._waiting.popleft()
        return self._now if self._now is not None and now_ns < self._now.until_ns else None
