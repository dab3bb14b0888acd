"""Latencies as histograms: percentiles and the maximum, never a mean."""

from __future__ import annotations

from collections import deque

import numpy as np
from hdrh.histogram import HdrHistogram

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
MAX_US = 60_000_000


def percentiles(values_ms: np.ndarray) -> dict[str, float | None]:
    """p50, p90, p99, p99.9 and max of a sample in ms; null where there is none."""
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

    @classmethod
    def decoded(cls, text: str) -> Latency:
        """A histogram that `encoded` wrote."""
        made = cls(1)
        made.histogram = HdrHistogram.decode(text)
        return made

    def encoded(self) -> str:
        """The whole histogram as text."""
        return self.histogram.encode().decode()

    def record(self, ns: int) -> None:
        """One sample in ns."""
        self.histogram.record_value(min(max(1, ns // 1000), MAX_US))  # it drops what lies outside
        self.recent.append(ns * 1e-6)

    def above(self, ms: float) -> int:
        """How many samples were above that many ms; one within the width of a bar above it (0.1 %) counts as well."""
        bars = self.histogram.get_recorded_iterator()
        return sum(bar.count_at_value_iterated_to for bar in bars if bar.value_iterated_to > ms * 1e3)

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
