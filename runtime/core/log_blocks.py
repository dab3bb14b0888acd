"""A run that is logged in blocks: each is a `RunLog` of its own, handed on as soon as it is full, and joined later."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from runtime.core.misses import Passage
from runtime.core.run_log import COLUMNS, OF_PASS, Header, RunLog, Trace
from runtime.core.values import Decoded


class BlockLog(RunLog):
    """What the loop writes to. It holds the newest block alone; the run may be of any length."""

    def __init__(
        self, header: Header, block_bins: int, n_units: int, n_values: int, hand_on: Callable[[RunLog], None]
    ) -> None:  # fmt: skip
        """block_bins: of the longest block; one also ends with each segment. hand_on: takes a block, never blocks."""
        super().__init__(header, block_bins, n_units, n_values)
        self.first = 0  # token of row 0
        self._hand_on = hand_on
        self._segment = -1  # of the newest token, -1 = outside

    def add(self, decoded: Decoded) -> bool:
        """Copy one closed token; the block before it is handed on where that is full or its segment is over."""
        token = decoded.token
        over = self._segment >= 0 and (token.segment != self._segment or token.clock == 0)
        if self.n == self.capacity or (over and self.n):
            self.hand_over()
        self._segment = token.segment
        return super().add(decoded)

    def published(self, token: int, passage: Passage, in_time: bool, cause: str = "") -> None:
        """A token has left; see `RunLog.published`."""
        if token >= self.first:
            super().published(token - self.first, passage, in_time, cause)

    def hand_over(self) -> None:
        """Hand on what has come since the last block, as a log of its own, and go on with an empty one."""
        n = self.n
        block = RunLog(self.header, n, self.counts.shape[1], self.values.shape[1])
        block.n, block.outcome = n, self.outcome
        for name in COLUMNS:
            getattr(block, name)[:] = getattr(self, name)[:n]
        block.marks, block.events, block.behaviours = self.marks, self.events, self.behaviours
        block.latency, block.source_delay_ms = self.latency if self.outcome.stopped_by else {}, self.source_delay_ms
        block.kept = [np.concatenate(self.kept)] if self.kept else []
        self.kept.clear()  # the binner adds to this very list
        self.marks, self.events, self.behaviours = [], [], {name: Trace() for name in self.behaviours}
        self.values[:n] = self.sd[:n] = np.nan
        for name in OF_PASS:
            getattr(self, name)[:n] = 0
        self._awake = -1
        self.first, self.n = self.first + n, 0
        self._hand_on(block)


def joined(blocks: Sequence[RunLog]) -> RunLog:
    """The log of a run from its first blocks, one at least, in order; the outcome is the last one's."""
    last = blocks[-1]
    n = sum(block.n for block in blocks)
    log = RunLog(last.header, n, last.counts.shape[1], last.values.shape[1])
    log.n = n
    for name in COLUMNS:
        np.concatenate([getattr(block, name)[: block.n] for block in blocks], out=getattr(log, name))
    log.outcome, log.latency, log.source_delay_ms = last.outcome, last.latency, last.source_delay_ms
    for block in blocks:
        log.marks += block.marks
        log.events += block.events
        log.kept += block.kept
        for name, trace in block.behaviours.items():
            into = log.behaviours.setdefault(name, Trace())
            into.t_ns.extend(trace.t_ns)
            into.values.extend(trace.values)
    return log
