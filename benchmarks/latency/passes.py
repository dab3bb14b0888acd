"""Every scheduled token of a run with the pass that published it or its successor, from the log alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.core.run_log import RunLog
from runtime.wire import Flag

OWN = ("busy", "wait", "take", "infer", "send")  # a token is spent in these, one after the other
AFTER = "after"  # what a pass did after its send; it delays those that follow
ELSEWHERE = "loop"  # a pass that closed nothing
WARM = "warm"  # what warms the caches took longer than there was time


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The n tokens that left or were superseded by one that did, in order; ns, int64.

    at (n,): row of the log whose pass took each. parts (n, 5): ns in each of `OWN`, which sum to edge_to_pub (n,).
    began, after, ended (n,): when that pass began to wait, what it did after its send, and when that was over.
    warm (n,) bool: what it was busy with before was warming the caches.
    decoded (n,) bool: it carried values. allowance (n,) bool: its bin was closed by the clock, because no sample had
    said that it was complete. late (n,) bool: beyond the budget.
    cause (n,) int: place in `CAUSES` of why, -1 = in time.
    """

    at: np.ndarray
    t_end: np.ndarray
    parts: np.ndarray
    began: np.ndarray
    after: np.ndarray
    ended: np.ndarray
    warm: np.ndarray
    decoded: np.ndarray
    allowance: np.ndarray
    late: np.ndarray
    cause: np.ndarray

    @property
    def edge_to_pub(self) -> np.ndarray:
        """(n,) ns."""
        return self.parts.sum(1)

    def stage(self, i: int) -> str:
        """In what most of a token's time went: one of `OWN`, `AFTER`, `ELSEWHERE`, `WARM`.

        Where the loop was still busy with the pass before, that pass's own largest part, if it had published one.
        """
        largest = int(self.parts[i].argmax())
        if OWN[largest] != "busy":
            return OWN[largest]
        if self.warm[i]:
            return WARM
        before = np.flatnonzero(self.at[:i] < self.at[i])
        if len(before) == 0 or self.ended[before[-1]] != self.began[i]:
            return ELSEWHERE
        j = int(before[-1])
        inside = dict(zip(OWN, self.parts[j].tolist(), strict=True)) | {AFTER: int(self.after[j])}
        name = max(inside, key=lambda part: inside[part])
        return self.stage(j) if name == "busy" else name


def scheduled(log: RunLog) -> Scheduled:
    """Of a log whose loop kept the times of its passes."""
    rows = np.arange(log.n)
    left = np.flatnonzero(log.sent_ns[: log.n] > 0)
    rows = rows[: left[-1] + 1] if len(left) else rows[:0]
    place = np.searchsorted(left, rows)
    at = left[place] if len(left) else rows
    edge, sent, before, began = log.t_end_ns[rows], log.sent_ns[at], log.before_ns[at], log.began_ns[at]
    woke = log.t_end_ns[at] + log.wait_ns[at]
    infer = _within(log.infer_ns[rows], place, len(left))
    busy = np.clip(np.minimum(began - edge, log.busy_ns[at]), 0, woke - edge)
    take = np.maximum(before - woke - infer, 0)
    infer = np.maximum(before - woke - take, 0)
    parts = np.stack([busy, woke - edge - busy, take, infer, sent - before], 1)
    flags, lateness_ns = log.flags[rows], _lateness_ns(log)
    by_clock = (flags & int(Flag.PARTIAL | Flag.GAP)) != 0
    if lateness_ns is not None:
        by_clock |= log.idle[rows] & (log.wait_ns[at] >= lateness_ns)
    late = sent - edge > round(log.header.budget_ms * 1e6)
    return Scheduled(
        at, edge, parts, began, log.after_ns[at], sent + log.after_ns[at], log.warm_ns[at] > 0, carried(log, at),
        by_clock, late, np.where(late, log.miss[at].astype(int) - 1, -1),
    )  # fmt: skip


def carried(log: RunLog, rows: np.ndarray) -> np.ndarray:
    """(m,) bool: which of the rows (m,) have a value."""
    return np.asarray(np.isfinite(log.values[rows]).any(axis=1))


def _within(each: np.ndarray, place: np.ndarray, n: int) -> np.ndarray:
    """(n,) sums over the tokens of a pass, at each of them."""
    return np.bincount(place, each, n).astype(np.int64)[place] if len(each) else each


def _lateness_ns(log: RunLog) -> int | None:
    """How long a bin of this run waits after its edge, None where the log does not say."""
    bins = log.header.config.get("bins", {})
    return round(bins["lateness_ms"] * 1e6) if "lateness_ms" in bins else None
