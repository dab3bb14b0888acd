"""What a run leaves behind: the cause of each miss, percentiles that hide nothing, rows that are copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from runtime.core import trace
from runtime.core.trace import CAUSES, Latency, RunLog, miss_cause, percentiles
from runtime.core.values import NO_TIME, Token

MS = 1_000_000
# A token that left within its means: edge at 0, woken at 2 ms, decoded for 1 ms, sent at 4 ms.
CALM = {
    "edge_ns": 0, "arrived_ns": 2 * MS, "closed": 1, "infer_ns": MS, "before_ns": 4 * MS - 50_000, "sent_ns": 4 * MS,
    "cpu_ns": 2 * MS, "faults": 0, "gc_ns": 0, "budget_ns": 20 * MS, "lateness_ns": 5 * MS, "due_ns": 5 * MS,
}  # fmt: skip
BACKLOG = {"closed": 3}
GC = {"gc_ns": 6 * MS}
FAULT = {"faults": 1}
SLEPT_INSIDE = {"sent_ns": 30 * MS, "before_ns": 30 * MS}
WOKEN_LATE = {"arrived_ns": 9 * MS, "before_ns": 9 * MS, "sent_ns": 9 * MS + 100, "cpu_ns": 100}
ENGINE = {"infer_ns": 11 * MS, "before_ns": 16 * MS, "sent_ns": 16 * MS, "cpu_ns": 14 * MS}
SEND = {"before_ns": 4 * MS, "sent_ns": 10 * MS, "cpu_ns": 8 * MS}
INPUT = {"arrived_ns": 4 * MS}


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        (BACKLOG, "backlog"), (GC, "gc"), (FAULT, "page_fault"), (SLEPT_INSIDE, "preempted"),
        (WOKEN_LATE, "preempted"), (ENGINE, "engine"), (SEND, "send"), (INPUT, "input_late"), ({}, "unknown"),
    ],
)  # fmt: skip
def test_a_miss_names_its_cause(changed: dict[str, int], cause: str) -> None:
    assert miss_cause(**(CALM | changed)) == cause
    assert cause in CAUSES


@pytest.mark.parametrize("causes", [(GC, FAULT), (FAULT, BACKLOG), (BACKLOG, SLEPT_INSIDE), (WOKEN_LATE, INPUT)])
def test_the_cause_that_explains_the_other_wins(causes: tuple[dict[str, int], dict[str, int]]) -> None:
    first, second = causes
    assert miss_cause(**(CALM | second | first)) == miss_cause(**(CALM | first))


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


def test_age_is_from_the_newest_spike_and_unknown_before_the_first() -> None:
    assert trace.age_ns(50, 20) == 30
    assert trace.age_ns(50, NO_TIME) is None


def token(index: int, counts: np.ndarray) -> Token:
    return Token(index, (index + 1) * 20 * MS, counts, valid=index != 1, clock=index, reset=index == 0, segment=7)


def test_a_log_keeps_copies_and_null_values(tmp_path: Path) -> None:
    """The loop reuses its arrays, so that a row must not change with them."""
    log = RunLog(10, 3, 2)
    counts, values = np.zeros(3, np.uint16), np.zeros(2, np.float32)
    for i in range(3):
        counts[:], values[:] = i, 10 + i
        log.add(token(i, counts), None if i == 1 else values, 0)
    log.mark_in_time(2)

    log.save(tmp_path / "run.npz")

    with np.load(tmp_path / "run.npz") as saved:
        assert saved["counts"].tolist() == [[0] * 3, [1] * 3, [2] * 3]
        np.testing.assert_array_equal(saved["values"], [[10, 10], [np.nan, np.nan], [12, 12]])
        assert saved["valid"].tolist() == [True, False, True]
        assert saved["reset"].tolist() == [True, False, False]
        assert saved["in_time"].tolist() == [False, False, True]
        assert saved["clock"].tolist() == [0, 1, 2]
        assert saved["segment"].tolist() == [7, 7, 7]
        assert saved["t_end_ns"].tolist() == [20 * MS, 40 * MS, 60 * MS]


def test_a_full_log_takes_no_more_and_does_not_crash() -> None:
    log = RunLog(2, 3, 2)
    for i in range(4):
        log.add(token(i, np.full(3, i, np.uint16)), None, 0)
        log.mark_in_time(i)
    assert (log.n, log.in_time.tolist(), log.counts[:, 0].tolist()) == (2, [True, True], [0, 1])
