"""What the loop asks of the outside: a source of spikes, a sink of estimates, and a clock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from runtime.core.accounting import Accounting
from runtime.core.state import State
from runtime.core.values import Decoded, Mark


class Source(Protocol):
    """Where spikes, marks and measured behaviour come from."""

    alive_ns: int  # newest keep-alive of the last `wait`, `NO_TIME` = none
    last_marker: str  # the newest marker in words
    withheld: str  # why nothing may be published for now, '' = it may
    flags: int  # bits of `Flag` that the source adds to every message

    @property
    def clock_jumps(self) -> int:
        """How often the sender's clock has stepped."""
        ...

    def wait(self, timeout_s: float) -> np.ndarray:
        """Wait for spikes (n,) `SPIKES`, at most timeout_s; reused by the next call."""
        ...

    def marks(self) -> list[Mark]:
        """Marks that came since the last call."""
        ...

    def behaviour(self) -> Iterable[tuple[str, int, float]]:
        """Samples of measured behaviour that came since the last call: (output, stamp in ns, value)."""
        ...

    def measured(self, now_ns: int) -> dict[str, float | None]:
        """The newest measured value of each behaviour, None where it is old."""
        ...

    def counters(self) -> dict[str, int]:
        """What the source counts: `spikes_lost_upstream`, `clock_jumps`, `bad_markers`, `bad_labels`."""
        ...

    def events(self) -> list[tuple[str, str]]:
        """What happened since the last call: (name, one sentence)."""
        ...

    def over(self, now_ns: int) -> str:
        """Why the run has to end, '' = it has not."""
        ...

    def refusal(self) -> str:
        """Why the spikes may no longer be decoded, '' = they may."""
        ...


class Sink(Protocol):
    """Where estimates and words go. No call may block."""

    def note(self, decoded: Decoded) -> None:
        """A closed token, published or not."""
        ...

    def estimate(self, decoded: Decoded, now_ns: int, flags: int) -> None:
        """Publish one estimate now."""
        ...

    def measured(self, now_ns: int, values: dict[str, float | None]) -> None:
        """Publish the newest measured behaviour."""
        ...

    def status(self, now_ns: int, state: State, accounting: Accounting) -> None:
        """Publish counters and words."""
        ...

    def event(self, now_ns: int, name: str, detail: str) -> None:
        """Publish something that happened."""
        ...


class Clock(Protocol):
    """The time, and what this process has spent: every value grows."""

    def now_ns(self) -> int:
        """The LSL clock."""
        ...

    def cpu_ns(self) -> int:
        """CPU time of this thread."""
        ...

    def faults(self) -> int:
        """Major page faults of this process."""
        ...

    def gc_ns(self) -> int:
        """Time in the garbage collector."""
        ...

    def stolen_ms(self) -> float:
        """CPU time that a hypervisor gave to others."""
        ...
