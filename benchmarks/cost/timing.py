"""How a call is timed, and what is kept of many times."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
BIN_NS = 20_000_000


def now() -> str:
    """The date and time of a measurement, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    begin = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - begin) * 1e-6


def paced(call: Callable[[], object], n: int) -> list[float]:
    """Milliseconds of n calls, one every 20 ms."""
    took, due = [], time.perf_counter_ns()
    for _ in range(n):
        due += BIN_NS
        time.sleep(max(0.0, (due - time.perf_counter_ns()) * 1e-9))
        took.append(timed(call))
    return took


def percentiles(took: list[float]) -> dict[str, float]:
    """p50 to the maximum of times in ms; none of no times."""
    return {n: round(float(np.percentile(took, p)), 4) for n, p in PERCENTILES.items()} if took else {}
