"""What a run leaves behind: one preallocated row a token, latency histograms, and the cause of each miss."""

from __future__ import annotations

import os
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hdrh.histogram import HdrHistogram

from runtime.core.values import NO_TIME, Token

if sys.platform != "win32":
    import resource

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
CAUSES: tuple[str, ...] = ("input_late", "preempted", "gc", "page_fault", "backlog", "engine", "send", "unknown")
PREEMPTED_NS = 2_000_000
MAX_US = 60_000_000


def percentiles(values_ms: np.ndarray) -> dict[str, float | None]:
    """p50, p90, p99, p99.9 and max of a sample; null where there is none."""
    if len(values_ms) == 0:
        return dict.fromkeys((*PERCENTILES, "max"))
    found = {name: round(float(np.percentile(values_ms, p)), 4) for name, p in PERCENTILES.items()}
    return {**found, "max": round(float(values_ms.max()), 4)}


class Latency:
    """A histogram in us with three significant digits, and the last minute for display."""

    def __init__(self, per_minute: int = 3000) -> None:
        """per_minute: samples that come in a minute, one a bin."""
        self.histogram = HdrHistogram(1, MAX_US, 3)
        self.recent: deque[float] = deque(maxlen=per_minute)

    def record(self, ns: int) -> None:
        """One sample in ns."""
        self.histogram.record_value(min(max(1, ns // 1000), MAX_US))  # it drops what lies outside
        self.recent.append(ns * 1e-6)

    def summary_ms(self) -> dict[str, float | None]:
        """p50, p90, p99, p99.9 and max in ms."""
        if self.histogram.get_total_count() == 0:
            return dict.fromkeys((*PERCENTILES, "max"))
        found = {n: round(self.histogram.get_value_at_percentile(p) * 1e-3, 4) for n, p in PERCENTILES.items()}
        return {**found, "max": round(self.histogram.get_max_value() * 1e-3, 4)}

    def recent_ms(self) -> dict[str, float]:
        """p50, p99 and max in ms of the last minute."""
        if not self.recent:
            return {}
        values = np.array(self.recent)
        return {
            "p50": float(np.percentile(values, 50)),
            "p99": float(np.percentile(values, 99)),
            "max": float(values.max()),
        }


@dataclass(frozen=True, slots=True)
class Moment:
    """The clock and this thread's CPU time when the loop woke, and the major page faults before it waited."""

    t_ns: int
    cpu_ns: int
    faults: int


def page_faults() -> int:
    """Major page faults of this process so far; 0 where the system does not count them."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt if sys.platform != "win32" else 0


def stolen_ms() -> float:
    """CPU time so far, over all cores, that a hypervisor gave to others; 0 where the system does not count it."""
    stat = Path("/proc/stat")
    fields = stat.read_text().split(maxsplit=9) if stat.is_file() else []
    return 1e3 * int(fields[8]) / os.sysconf("SC_CLK_TCK") if len(fields) > 8 else 0.0


def miss_cause(
    *, edge_ns: int, arrived_ns: int, closed: int, infer_ns: int, before_ns: int, sent_ns: int, cpu_ns: int,
    faults: int, gc_ns: int, budget_ns: int, lateness_ns: int, due_ns: int,
) -> str:  # fmt: skip
    """Why a token left later than its budget, from the times of its own pass through the loop.

    arrived_ns: when the loop woke with it; before_ns: when its decoding ended, send begins;
    cpu_ns: thread CPU between waking and sent; faults: major page faults since the pass before; due_ns: when it had
    to close by the clock.
    """
    if gc_ns > budget_ns // 4:
        return "gc"
    if faults:
        return "page_fault"
    if closed > 1:
        return "backlog"
    if sent_ns - arrived_ns - cpu_ns > PREEMPTED_NS or arrived_ns - due_ns > PREEMPTED_NS:
        return "preempted"
    if infer_ns > budget_ns // 2:
        return "engine"
    if sent_ns - before_ns > budget_ns // 4:
        return "send"
    if arrived_ns - edge_ns > lateness_ns // 2:
        return "input_late"
    return "unknown"


class RunLog:
    """The run as it was decoded: what `streamed equals offline` and every score are computed from.

    Rows are tokens in order, at most `capacity`; counts (T, U) uint16, valid, reset, idle,
    in_time (T,) bool, clock, segment (T,) int64, values (T, V) float32 NaN where null.
    """

    def __init__(self, capacity: int, n_units: int, n_values: int) -> None:
        self.n = 0
        self.capacity = capacity
        self.counts = np.zeros((capacity, n_units), np.uint16)
        self.values = np.full((capacity, n_values), np.nan, np.float32)
        self.t_end_ns = np.zeros(capacity, np.int64)
        self.clock = np.full(capacity, -1, np.int64)
        self.segment = np.full(capacity, -1, np.int64)
        self.valid = np.zeros(capacity, bool)
        self.reset = np.zeros(capacity, bool)
        self.idle = np.zeros(capacity, bool)
        self.in_time = np.zeros(capacity, bool)

    def add(self, token: Token, values: np.ndarray | None, infer_ns: int) -> None:
        """Copy one closed token; `Pipeline.on_token`."""
        if self.n == self.capacity:
            return
        n = self.n
        self.counts[n] = token.counts
        if values is not None:
            self.values[n] = values
        self.t_end_ns[n], self.clock[n], self.segment[n] = token.t_end_ns, token.clock, token.segment
        self.valid[n], self.reset[n], self.idle[n] = token.valid, token.reset, token.idle
        self.n = n + 1

    def mark_in_time(self, token: int) -> None:
        """A token was published with values within its budget (rows are tokens in order, from 0)."""
        if token < self.capacity:
            self.in_time[token] = True

    def save(self, path: Path) -> None:
        """Write the rows as .npz."""
        names = ("counts", "values", "t_end_ns", "clock", "segment", "valid", "reset", "idle", "in_time")
        np.savez_compressed(path, **{name: getattr(self, name)[: self.n] for name in names})


def age_ns(t_pub_ns: int, newest_ns: int) -> int | None:
    """Newest binned spike's stamp to send."""
    return None if newest_ns == NO_TIME else t_pub_ns - newest_ns
