"""The pure heart of the loop: spikes and the time go in, estimates come out. No socket, no clock, no file."""

from __future__ import annotations

import time
from bisect import insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from runtime.core.binning import Binner
from runtime.core.engine import Engine
from runtime.core.values import NO_TIME, Decoded, Token
from runtime.wire import Flag

MAX_CATCH_UP = 25  # tokens the engine takes in at once after a stall; older ones are skipped as invalid
COARSE_TOKENS = 50  # bins for which coarse stamps stay flagged


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A marker of the task: applied to the bin that holds its stamp."""

    t_ns: int
    event: Literal["segment_start", "segment_end"]
    segment: int


@dataclass(frozen=True, slots=True)
class Rules:
    """How bins close and what makes one valid.

    lateness_ns: how long after its edge a bin waits for its stream. silence_ns: a bin is
    without live data when the newest stamp is older than its start by more than this (0 for
    a stream with keep-alives). markers: decode only between segment_start and segment_end,
    cold from each start.
    """

    lateness_ns: int = 5_000_000
    silence_ns: int = 0
    markers: bool = False


class Pipeline:
    """Closes bins, steps the engine, and keeps the token law: closed = published + superseded + invalid + idle.

    on_token sees every closed token after its step (values None where there are none); its
    arrays are reused, so it must copy what it keeps.
    """

    def __init__(
        self,
        binner: Binner,
        engine: Engine,
        rules: Rules,
        on_token: Callable[[Token, np.ndarray | None, int], None] | None = None,
        cpu_clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.binner, self.engine, self.rules = binner, engine, rules
        self.on_token, self.cpu_clock = on_token, cpu_clock
        self.tokens = {"closed": 0, "published": 0, "superseded": 0, "invalid": 0, "idle": 0}
        self.late_markers = 0
        self.bad_values = 0
        self.segment = -1
        self._counts = np.zeros(binner.n_units, np.uint16)
        self._marks: deque[Mark] = deque()
        self._inside = not rules.markers
        self._clock = -1
        self._reset_next = True
        self._late_seen = 0
        self._coarse_left = 0
        self._newest_ns = NO_TIME
        self._skipped = 0
        self._last_mark: Mark | None = None

    def feed(self, spikes: np.ndarray, now_ns: int) -> None:
        """Spikes (n,) `SPIKES` that arrived at now_ns."""
        self._skip_backlog(now_ns)  # first, so that the ring of open bins reaches the newest spikes
        self.binner.feed(spikes, now_ns)

    def alive(self, t_ns: int, now_ns: int) -> None:
        """A keep-alive of the spike stream stamped t_ns."""
        self.binner.alive(t_ns, now_ns)

    def mark(self, mark: Mark) -> None:
        """A marker, in any order, ideally ahead of its stamp."""
        if not self.rules.markers:
            return
        if mark.t_ns < self.binner.grid_ns + self.binner.open_bin * self.binner.bin_ns:
            self.late_markers += 1
        ordered = list(self._marks)
        insort(ordered, mark)
        self._marks = deque(ordered)

    def due_ns(self) -> int:
        """When the next bin closes by the clock, whatever arrives."""
        return self.binner.edge_ns + self.rules.lateness_ns

    def _closable(self, now_ns: int) -> bool:
        return self.binner.watermark_ns >= self.binner.edge_ns or now_ns >= self.due_ns()

    def advance(self, now_ns: int) -> Decoded | None:
        """Close every bin that is due at now_ns; returns the newest as an estimate, or None.

        All closed bins enter the engine, only the newest is published, the rest are superseded.
        """
        if not self._closable(now_ns):
            return None
        self._skip_backlog(now_ns)
        found = self._close_one(superseded=self._skipped)
        self._skipped = 0
        while self._closable(now_ns):
            if found.values is not None:
                self.tokens["superseded"] += 1
            merged = found.superseded + 1
            found = self._close_one(superseded=merged)
        if found.values is not None:
            self.tokens["published"] += 1
        return found

    def _skip_backlog(self, now_ns: int) -> None:
        """After a long stall, close the oldest bins without the engine: bounded work, never a backlog."""
        closable_ns = max(self.binner.watermark_ns, now_ns - self.rules.lateness_ns)
        behind = (closable_ns - self.binner.edge_ns) // self.binner.bin_ns + 1
        if behind <= MAX_CATCH_UP:
            return
        first = self.binner.open_bin
        for _ in range(behind - MAX_CATCH_UP):
            self._close_one(skip=True)
            self._skipped += 1
        self.binner.skipped = (first, self.binner.open_bin)

    def _apply_marks(self, t_end_ns: int) -> bool:
        """Apply markers stamped before the bin's end; returns whether the segment ends with this bin."""
        ends = False
        while self._marks and self._marks[0].t_ns < t_end_ns:
            mark = self._marks.popleft()
            if self._last_mark is not None and mark <= self._last_mark:
                continue  # a repeat, or overtaken by a newer one: what it says is over
            self._last_mark = mark
            self.segment = mark.segment
            if mark.event == "segment_start":
                first = (mark.t_ns - self.binner.grid_ns) // self.binner.bin_ns
                index = (t_end_ns - self.binner.grid_ns) // self.binner.bin_ns - 1
                self._inside, self._clock, self._reset_next, ends = True, index - first - 1, True, False
            else:
                ends = True
        return ends and self.rules.markers

    def _close_one(self, skip: bool = False, superseded: int = 0) -> Decoded:
        binner = self.binner
        index, t_end_ns = binner.open_bin, binner.edge_ns
        live = binner.watermark_ns > t_end_ns - binner.bin_ns - self.rules.silence_ns
        newest = binner.close(self._counts)
        self._newest_ns = max(self._newest_ns, newest)
        ends = self._apply_marks(t_end_ns) if self.rules.markers else False
        idle = not self._inside
        if not idle:
            self._clock = self._clock + 1 if self.rules.markers else -1
        late = int(binner.tally[2])
        if binner.take_coarse():
            self._coarse_left = COARSE_TOKENS
        self._coarse_left = max(0, self._coarse_left - 1)
        token = Token(
            index=index, t_end_ns=t_end_ns, counts=self._counts, valid=live and not skip and not idle,
            clock=self._clock, reset=self._reset_next and not idle, idle=idle,
            segment=self.segment if not idle else -1, newest_ns=self._newest_ns,
            late=late - self._late_seen, coarse=self._coarse_left > 0,
        )  # fmt: skip
        self._late_seen = late
        decoded = self._decode(token, superseded, skip)
        if ends:
            self._inside = False
        return decoded

    def _decode(self, token: Token, superseded: int, skip: bool) -> Decoded:
        """Step the engine where there is something to decode, and count the token."""
        values, infer_ns = None, 0
        if not token.idle:
            if token.reset:
                self.engine.reset()
                self._reset_next = False
            if skip:
                self.engine.skip(1)
            else:
                begin = self.cpu_clock()
                values = self.engine.step(token)
                infer_ns = self.cpu_clock() - begin
        flags = self._flags(token)
        if values is not None and not np.isfinite(values).all():
            self.bad_values += 1
            self._reset_next = True  # a poisoned cache would stay poisoned for W bins
            flags |= Flag.HOLD
            values = None
        self.tokens["closed"] += 1
        if token.idle:
            self.tokens["idle"] += 1
        elif not token.valid or values is None:
            self.tokens["invalid"] += 1
            values = None
        if self.on_token is not None:
            self.on_token(token, values, infer_ns)
        state = "IDLE" if token.idle else "DECODING" if token.valid else "STALLED"
        return Decoded(
            token.index, token.t_end_ns, values, int(flags), token.segment, token.newest_ns, infer_ns, superseded, state
        )

    @staticmethod
    def _flags(token: Token) -> Flag:
        flags = Flag(0)
        if token.idle:
            flags |= Flag.IDLE
        elif not token.valid:
            flags |= Flag.GAP
        if token.late:
            flags |= Flag.LATE
        if token.coarse:
            flags |= Flag.COARSE_STAMPS
        return flags

    def flush(self) -> None:
        """Close what is still open, so that the laws balance at the end. These bins are not whole: nobody sees them."""
        self.on_token = None
        last = max(
            self.binner.open_bin, int((self.binner.watermark_ns - self.binner.grid_ns) // self.binner.bin_ns) + 1
        )
        while self.binner.open_bin < last:
            found = self._close_one()
            if found.values is not None:
                self.tokens["superseded"] += 1
