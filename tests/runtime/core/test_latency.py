"""Percentiles hide nothing: no sample is dropped, the maximum is kept, and a saved histogram is the same one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from runtime.core.latency import Latency, percentiles


def test_percentiles_of_nothing_are_null() -> None:
    names = ["p50", "p90", "p99", "p99.9", "max"]
    assert percentiles(np.zeros(0)) == dict.fromkeys(names)
    assert Latency().summary_ms() == dict.fromkeys(names)
    assert Latency().recent_ms() == {}


def test_percentiles_are_numpys_and_the_maximum_is_kept() -> None:
    values = np.random.default_rng(0).exponential(3.0, 5000)
    found = percentiles(values)
    assert found["p99"] == pytest.approx(np.percentile(values, 99), abs=1e-4)
    assert found["max"] == pytest.approx(values.max(), abs=1e-4)


@given(st.lists(st.integers(1_000, 10**9), min_size=1, max_size=200))
def test_the_histogram_keeps_three_digits(ns: list[int]) -> None:
    latency = Latency()
    for value in ns:
        latency.record(value)
    found = latency.summary_ms()
    # 1e-3 of the value: three significant digits; 1 us: the histogram's unit, cut off
    assert found["max"] == pytest.approx(max(ns) * 1e-6, rel=1e-3, abs=1e-3)
    assert found["p50"] == pytest.approx(np.percentile(ns, 50, method="inverted_cdf") * 1e-6, rel=1e-3, abs=1e-3)
    recent = latency.recent_ms()
    assert recent["max"] == pytest.approx(max(ns) * 1e-6)


def test_the_last_minute_is_as_long_as_its_bins_say() -> None:
    latency = Latency(per_minute=1333)  # 45 ms a bin
    for value in (9_000_000, *[1_000_000] * 1333):
        latency.record(value)
    assert latency.recent_ms()["max"] == 1.0
    assert latency.summary_ms()["max"] == pytest.approx(9.0, rel=1e-3)


@pytest.mark.parametrize(("ns", "ms"), [(0, 0.001), (-5_000, 0.001), (90_000_000_000, 60_000)])
def test_a_latency_outside_the_histogram_is_not_lost(ns: int, ms: float) -> None:
    """Less than its unit counts as one, more than a minute as a minute."""
    latency = Latency()
    latency.record(ns)
    assert latency.histogram.get_total_count() == 1
    assert latency.summary_ms()["max"] == pytest.approx(ms, rel=1e-3)


@given(st.lists(st.integers(1_000, 10**11), max_size=50))
def test_a_histogram_survives_being_written_and_read(ns: list[int]) -> None:
    latency = Latency()
    for value in ns:
        latency.record(value)
    assert Latency.decoded(latency.encoded()).summary_ms() == latency.summary_ms()
