"""A run's log made by hand: passes at given times, as the loop would have logged them."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.latency.drive import Taken
from neds_core.data.session import BehaviourSpec
from runtime.core.accounting import Accounting
from runtime.core.misses import Passage
from runtime.core.run_log import Header, Outcome, RunLog
from runtime.core.state import State
from runtime.core.values import Decoded, Token

MS = 1_000_000
BIN = 20 * MS
HEADER = Header(
    rig="rig", source="live", decoder="neds", engine="e", model="m", model_sha="s" * 64, model_created="",
    unit_map_sha="u", bin_ns=BIN, budget_ms=20.0, specs=(BehaviourSpec("x", "continuous"),),
    config={"bins": {"lateness_ms": 10.0}},
)  # fmt: skip


class Scripted:
    """Builds a log pass by pass; all times are ms after the edge of bin 0 (which ends at 20 ms)."""

    def __init__(self, bins: int) -> None:
        self.log = RunLog(HEADER, bins, 3, 1)
        self.accounting = Accounting(BIN, 20 * MS)
        self.log.latency = self.accounting.latency
        self.now = 0.0  # when the pass before was over
        self.woke = 0.0
        self.next = 0

    def passes(
        self, closed: int = 1, wait: float = 1.0, take: float = 0.2, infer: float = 0.3, send: float = 0.1,
        after: float = 0.2, valid: bool = True, warm: float = 0.0,
    ) -> None:  # fmt: skip
        """One pass that closes so many bins. wait: from the newest one's edge to the waking.

        warm: from the oldest one's edge until the loop had read for the caches.
        """
        edge = (self.next + closed) * 20.0
        began = (self.next + 1) * 20.0 + warm if warm else self.now
        woke = max(edge + wait, began)
        before = woke + take + infer
        sent = before + send
        for k in range(closed):
            token = Token(
                self.next + k, round((self.next + k + 1) * BIN), np.zeros(3, np.uint16), valid=valid,
                newest_ns=round((woke - 3.0) * MS),
            )  # fmt: skip
            each_ns = round(infer * MS / closed)
            newest = Decoded(
                token, np.ones(1, np.float32) if valid else None, 0, each_ns if valid else 0, State.RUNNING
            )
            self.log.add(newest)
            self.accounting.stepped(newest)
        passage = Passage(
            edge_ns=round(edge * MS), due_ns=round((edge + 10) * MS), woke_ns=round(woke * MS),
            before_ns=round(before * MS), sent_ns=round(sent * MS), closed=closed, infer_ns=round(infer * MS),
            cpu_ns=round((sent - woke) * MS), began_ns=round(began * MS),
            busy_ns=round((warm or (self.now - self.woke)) * MS) if self.woke else 0, warm_ns=round(warm * MS),
        )  # fmt: skip
        in_time = self.accounting.published(passage, newest)
        self.log.published(newest.token.index, passage, in_time, self.accounting.cause)
        self.woke, self.now, self.next = woke, sent + after, self.next + closed
        self.log.rests(round(self.now * MS))

    def taken(self, **more: Any) -> Taken:
        """What a driver would have read: a subscriber that hears each estimate 0.4 ms after the send began."""
        log = self.log
        log.outcome = Outcome(stopped_by="seconds", counters={}, misses=dict(self.accounting.misses))
        left = np.flatnonzero(log.sent_ns[: log.n])
        pub = log.before_ns[left]
        heard = {
            "recv_ns": pub + round(0.4 * MS), "t_pub_ns": pub, "t_end_ns": log.t_end_ns[left], "token": left,
            "seq": left, "flags": log.flags[left],
        }  # fmt: skip
        due = np.arange(log.n + 2, dtype=np.int64) * BIN
        pushes = np.stack([due, due + MS // 10, due + MS // 5], 1)
        made = {"pushes": pushes, "heard": heard, "samples": np.zeros((0, 3)), "summary": {}} | more
        return Taken(log, **made)
