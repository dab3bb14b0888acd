"""The clock of a live run, and what this process spends beside it."""

from __future__ import annotations

import gc
import time
from types import TracebackType
from typing import Self

from runtime.io import system
from runtime.io.lsl_clock import now_ns


class LiveClock:
    """Open with `with`: inside, the garbage collector runs only when memory asks for it, and is timed."""

    def __init__(self) -> None:
        self._gc_ns = self._gc_began = 0

    def __enter__(self) -> Self:
        gc.collect()
        gc.freeze()
        gc.disable()
        gc.callbacks.append(self._on_gc)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gc.callbacks.remove(self._on_gc)
        gc.enable()
        gc.unfreeze()

    def now_ns(self) -> int:
        """The LSL clock of this machine."""
        return now_ns()

    def step_ns(self) -> int:
        """Fine and monotonic, for how long a step takes."""
        return time.perf_counter_ns()

    def cpu_ns(self) -> int:
        """CPU time of this thread."""
        return time.thread_time_ns()

    def faults(self) -> int:
        """Major page faults of this process so far."""
        return system.page_faults()

    def gc_ns(self) -> int:
        """Time in the garbage collector so far."""
        return self._gc_ns

    def stolen_ms(self) -> float:
        """CPU time so far that a hypervisor gave to others."""
        return system.stolen_ms()

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._gc_began = time.perf_counter_ns()
        else:
            self._gc_ns += time.perf_counter_ns() - self._gc_began
