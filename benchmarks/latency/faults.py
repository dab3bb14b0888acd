"""Faults at random in a measurement: which, when, and how long follows from a seed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from benchmarks.latency.case import Case
from benchmarks.latency.drive import Processes, sending
from runtime.children import Child

RECOVERY_S = 5.0  # after a fault, in which nothing else happens: a sender is found again, and begins 1 s later
LASTS_S = {  # the least and the most
    "sender stalled": (0.3, 3.0), "loop stopped": (0.05, 0.5), "subscriber stopped": (0.5, 3.0),
    "sender restarted": (0.2, 2.0),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """kind: of `LASTS_S`. at_s: after the start; lasts_s: until what was stopped goes on, or is started again."""

    kind: str
    at_s: float
    lasts_s: float

    @property
    def end_s(self) -> float:
        """When it is over."""
        return self.at_s + self.lasts_s


def plan(seed: int, begin_s: float, end_s: float, every_s: float) -> list[Fault]:
    """Faults between begin_s and end_s, one in about every_s; each kind once before one comes again."""
    rng, found, bag = np.random.default_rng(seed), [], []
    free_s = begin_s
    while True:
        bag = bag or [*LASTS_S]
        kind = bag.pop(int(rng.integers(len(bag))))
        at_s = free_s + every_s * float(rng.uniform(0.2, 1.8))
        fault = Fault(kind, round(at_s, 3), round(float(rng.uniform(*LASTS_S[kind])), 3))
        if fault.end_s + RECOVERY_S > end_s:
            return found
        found.append(fault)
        free_s = fault.end_s + RECOVERY_S


class Faults:
    """Carries a plan out, opened with `with`: `act` is asked now and then what is due."""

    def __init__(self, planned: list[Fault], case: Case, pids: Processes) -> None:
        self._case, self._pids, self._stack = case, pids, contextlib.ExitStack()
        self._sender = pids.sender
        due = [(f.at_s, self._begin, f) for f in planned] + [(f.end_s, self._over, f) for f in planned]
        self._due: list[tuple[float, Callable[[Fault], None], Fault]] = sorted(due, key=lambda each: each[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in (self._pids.loop, self._pids.subscriber, self._sender):  # nothing stays stopped
            self._signal(pid, signal.SIGCONT)
        self._stack.close()

    def act(self, now_s: float) -> None:
        """Do what is due. now_s: after the start."""
        while self._due and self._due[0][0] <= now_s:
            _, do, fault = self._due.pop(0)
            do(fault)

    def _begin(self, fault: Fault) -> None:
        restart = fault.kind == "sender restarted"
        self._signal(self._of(fault), signal.SIGKILL if restart else signal.SIGSTOP)

    def _over(self, fault: Fault) -> None:
        if fault.kind != "sender restarted":
            self._signal(self._of(fault), signal.SIGCONT)
            return
        again = Child(self._case.folder, *sending(self._case))
        self._sender = self._stack.enter_context(again).process.pid

    def _of(self, fault: Fault) -> int:
        who = fault.kind.split()[0]
        return self._sender if who == "sender" else getattr(self._pids, who)

    @staticmethod
    def _signal(pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
