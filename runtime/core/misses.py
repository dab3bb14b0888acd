"""Why a token left later than its budget, from the times of its own pass through the loop."""

from __future__ import annotations

from dataclasses import dataclass

CAUSES: tuple[str, ...] = ("input_late", "preempted", "gc", "page_fault", "backlog", "engine", "send", "unknown")
PREEMPTED_NS = 2_000_000


@dataclass(frozen=True, slots=True)
class Passage:
    """One pass of the loop that published: times in ns of the LSL clock, or durations in ns.

    edge_ns: right edge of the newest bin. due_ns: when it had to close by the clock. began_ns: when the loop began to
    wait, 0 = not known. busy_ns: how long it had worked before: in its pass before this one, or for warm_ns. warm_ns:
    for how long it still warmed the caches when the bin could have closed. woke_ns: when it woke with the bin.
    before_ns: when its decoding had ended and the send began.
    closed: bins that closed in this pass. cpu_ns: CPU time of this thread between waking and sent. faults: major page
    faults since the pass before. gc_ns: in the garbage collector.
    """

    edge_ns: int
    due_ns: int
    woke_ns: int
    before_ns: int
    sent_ns: int
    closed: int = 1
    infer_ns: int = 0
    cpu_ns: int = 0
    faults: int = 0
    gc_ns: int = 0
    began_ns: int = 0
    busy_ns: int = 0
    warm_ns: int = 0


def cause(passage: Passage, budget_ns: int) -> str:
    """One of `CAUSES`."""
    p = passage
    if p.gc_ns > budget_ns // 4:
        return "gc"
    if p.faults:
        return "page_fault"
    if p.closed > 1:
        return "backlog"
    if p.sent_ns - p.woke_ns - p.cpu_ns > PREEMPTED_NS or p.woke_ns - p.due_ns > PREEMPTED_NS:
        return "preempted"
    if p.infer_ns > budget_ns // 2:
        return "engine"
    if p.sent_ns - p.before_ns > budget_ns // 4:
        return "send"
    if p.woke_ns - p.edge_ns > (p.due_ns - p.edge_ns) // 2:
        return "input_late"
    return "unknown"
