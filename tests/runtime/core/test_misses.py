"""The cause of a miss, from the times of its own pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runtime.core.misses import CAUSES, Passage, cause

MS = 1_000_000
BUDGET = 20 * MS
# A token that left within its means: edge at 0, woken at 2 ms, decoded for 1 ms, sent at 4 ms.
CALM = Passage(
    edge_ns=0, due_ns=5 * MS, woke_ns=2 * MS, before_ns=4 * MS - 50_000, sent_ns=4 * MS, infer_ns=MS, cpu_ns=2 * MS
)
BACKLOG = {"closed": 3}
GC = {"gc_ns": 6 * MS}
FAULT = {"faults": 1}
SLEPT_INSIDE = {"sent_ns": 30 * MS, "before_ns": 30 * MS}
WOKEN_LATE = {"woke_ns": 9 * MS, "before_ns": 9 * MS, "sent_ns": 9 * MS + 100, "cpu_ns": 100}
ENGINE = {"infer_ns": 11 * MS, "before_ns": 16 * MS, "sent_ns": 16 * MS, "cpu_ns": 14 * MS}
SEND = {"before_ns": 4 * MS, "sent_ns": 10 * MS, "cpu_ns": 8 * MS}
INPUT = {"woke_ns": 4 * MS}


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        (BACKLOG, "backlog"), (GC, "gc"), (FAULT, "page_fault"), (SLEPT_INSIDE, "preempted"),
        (WOKEN_LATE, "preempted"), (ENGINE, "engine"), (SEND, "send"), (INPUT, "input_late"), ({}, "unknown"),
    ],
)  # fmt: skip
def test_a_miss_names_its_cause(changed: dict[str, Any], name: str) -> None:
    assert cause(replace(CALM, **changed), BUDGET) == name
    assert name in CAUSES


@pytest.mark.parametrize("both", [(GC, FAULT), (FAULT, BACKLOG), (BACKLOG, SLEPT_INSIDE), (WOKEN_LATE, INPUT)])
def test_the_cause_that_explains_the_other_wins(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, second = both
    assert cause(replace(CALM, **(second | first)), BUDGET) == cause(replace(CALM, **first), BUDGET)
