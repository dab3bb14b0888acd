"""The pure heart of the loop: spikes and the time go in, estimates come out. No socket, no clock, no file."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import isfinite

import numpy as np

from runtime.core.binning import OPEN_BINS, Binner
from runtime.core.engine import Decoder
from runtime.core.exchange import Recent, Successor, Turn
from runtime.core.health import Health, Limits
from runtime.core.rules import Rules, flags_of
from runtime.core.starts import Start
from runtime.core.state import State, of_token
from runtime.core.values import NO_TIME, Decoded, Mark, Token
from runtime.wire import Flag

TOKENS = ("closed", "published", "superseded", "invalid", "idle")
MAX_CATCH_UP = 25  # tokens the engine takes in at once after a stall; older ones are skipped as invalid
HOLD = int(Flag.HOLD)
COARSE_TOKENS = 50  # bins for which coarse stamps stay flagged


class Pipeline:
    """Closes bins, steps the engine, and keeps the token law: closed = published + superseded + invalid + idle.

    `feed`, `alive` and `mark` take in what arrived; `advance` hands out every token that closed since. Nothing is
    called back. The decoder may be exchanged between two bins (see `take_over`).
    """

    def __init__(
        self,
        binner: Binner,
        decoder: Decoder,
        rules: Rules,
        cpu_clock: Callable[[], int] = lambda: 0,
        limits: Callable[[Decoder], Limits] | None = None,
    ) -> None:
        """cpu_clock: ns, measures the engine's step. limits: of the input of a decoder, None = it is not judged."""
        self.binner, self.decoder, self.rules, self.cpu_clock = binner, decoder, rules, cpu_clock
        self.limits = limits
        self.health = self.health_of(decoder)
        self.withheld = ""  # why nothing may be published for now: set from outside, one sentence
        self.tokens = dict.fromkeys(TOKENS, 0)
        self.late_markers = self.bad_values = self.unended = 0  # unended: segments closed because no marker ended them
        self.astray_markers = self.astray_ns = 0  # of another clock, not applied; stamp minus now of the newest
        self.segment = -1
        self.exchanges: list[Turn] = []  # the decoders that followed
        self.successors: deque[Successor] = deque(maxlen=1)  # waits to take over
        self.declined: Successor | None = None  # the newest that found another decoder than it expects
        self.recent: Recent | None = None  # of a run without markers whose decoder may be exchanged
        self.unfit = ""  # why nothing of this decoder may be published any more
        self.bad_since = 0  # values of this decoder that were not finite
        rows = MAX_CATCH_UP + 1
        self._counts = np.zeros((rows, binner.n_units), np.uint16)  # of the tokens that one `advance` hands out
        self._values = np.zeros((rows, decoder.engine.layout.n_values), np.float32)
        self._sd = np.zeros_like(self._values)
        self._marks: list[Mark] = []
        self._inside, self._clock, self._reset_next = not rules.markers, -1, True
        self._poisoned = False  # the cache holds what is not finite
        self._late_seen = self._resent_seen = self._coarse_left = 0
        self._newest_ns = self._live_ns = NO_TIME  # of spikes, and the end of the newest bin with live data
        self._skipped: list[Decoded] = []
        self._last_mark: Mark | None = None
        self.start = Start()  # of the segment that starts with this bin
        self._begun: int | None = None  # segment of the newest start that was taken

    def exchange(self, decoder: Decoder) -> None:
        """Decode from the next bin on with another decoder, from a cold start."""
        self.take_over(Successor(decoder), self.binner.open_bin)

    def take_over(self, successor: Successor, token: int) -> None:
        """Decode from the bin `token`, which is not decoded yet, with another decoder of the same units and outputs.

        The input is judged by what that one was trained on, anew as at the start of a run. A log's header names the
        decoder that the run began with, its outcome those that followed.
        """
        if successor.expect not in ("", self.decoder.model_sha):
            self.declined = successor
            return
        self.exchanges.append(Turn(token, successor))
        self.decoder, self.health = successor.decoder, successor.health or self.health_of(successor.decoder)
        if self.health is not None:  # so that the next bin's spikes are judged at its close
            self.health.binned(np.zeros_like(self._counts[0]), self.binner.totals(), valid=False, idle=False)
        self.unfit, self.bad_since, self._poisoned = "", 0, False
        if successor.primed < 0:
            self._reset_next = True
        self.start.taken_over(self.decoder)

    def health_of(self, decoder: Decoder) -> Health | None:
        """What judges the input of a decoder, None = nothing does."""
        return None if self.limits is None else Health(self.limits(decoder), decoder.n_units, decoder.bin_ns)

    def take(self, spikes: np.ndarray, alive_ns: int, marks: Iterable[Mark], now_ns: int) -> list[Decoded]:
        """What came in one pass, and every token that closed by it. alive_ns: newest keep-alive, `NO_TIME` = none."""
        for mark in marks:  # before the spikes: those may close bins that markers rule
            if self._near(mark, now_ns):
                self.mark(mark)
        self.feed(spikes, now_ns)
        if alive_ns > 0:
            self.alive(alive_ns, now_ns)
        return self.advance(now_ns)

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
        insort(self._marks, mark)

    def _near(self, mark: Mark, now_ns: int) -> bool:
        """Whether a mark that arrived at now_ns can be stamped by the LSL clock; one that cannot is counted."""
        far_ns, begins = self.rules.far_ns, mark.event == "segment_start"
        open_ns = self.binner.edge_ns - self.binner.bin_ns  # after a stall of this process, marks have waited since
        soon = mark.t_ns - now_ns <= far_ns or (not begins and mark.segment == self._begun)
        near = not far_ns or (soon and mark.t_ns >= min(open_ns, now_ns) - far_ns)
        if not near:
            self.astray_markers, self.astray_ns = self.astray_markers + 1, mark.t_ns - now_ns
        elif begins:
            self._begun = mark.segment
        return near

    def due_ns(self) -> int:
        """When the next bin closes by the clock, whatever arrives."""
        return self.binner.edge_ns + self.rules.lateness_ns

    def _closable(self, now_ns: int) -> bool:
        return self.binner.complete_ns >= self.binner.edge_ns or now_ns >= self.due_ns()

    def advance(self, now_ns: int) -> list[Decoded]:
        """Close every bin that is due at now_ns; returns what was made of each, oldest first.

        All closed bins enter the engine, the newest is to be published, and the others are superseded by it.
        """
        if not self._closable(now_ns):
            return []
        self._skip_backlog(now_ns)
        closed, self._skipped, row = self._skipped, [], 0
        while self._closable(now_ns):
            closed.append(self._close_one(self._counts[row], row))
            row += 1
        for decoded in closed:
            if decoded.values is not None:
                self.tokens["published" if decoded is closed[-1] else "superseded"] += 1
        return closed

    def _skip_backlog(self, now_ns: int) -> None:
        """After a long stall, close the oldest bins without the engine: bounded work, never a backlog."""
        closable_ns = max(self.binner.complete_ns, now_ns - self.rules.lateness_ns)
        behind = (closable_ns - self.binner.edge_ns) // self.binner.bin_ns + 1
        if behind <= MAX_CATCH_UP:
            return
        first, empty = self.binner.open_bin, np.zeros_like(self._counts[0])
        for k in range(behind - MAX_CATCH_UP):
            counts = np.empty_like(empty) if k < OPEN_BINS else empty  # beyond the ring of open bins nothing was binned
            self._skipped.append(self._close_one(counts, None))
        self.binner.skipped = (first, self.binner.open_bin)

    def _apply_marks(self, t_end_ns: int) -> bool:
        """Apply markers stamped before the bin's end; returns whether the segment ends with this bin."""
        ends, self.start.mark = False, None
        while self._marks and self._marks[0].t_ns < t_end_ns:
            mark = self._marks.pop(0)
            if self._last_mark is not None and mark <= self._last_mark:
                continue  # a repeat, or overtaken by a newer one: what it says is over
            self._last_mark = mark
            self.segment = mark.segment
            if mark.event == "segment_start":
                first = (mark.t_ns - self.binner.grid_ns) // self.binner.bin_ns
                index = (t_end_ns - self.binner.grid_ns) // self.binner.bin_ns - 1
                self._inside, self._clock, self._reset_next, ends = True, index - first - 1, True, False
                self.start.mark, self.start.late = mark, index > first
            else:
                ends = True
        return ends and self.rules.markers

    def _close_one(self, counts: np.ndarray, row: int | None) -> Decoded:
        """Close the oldest open bin into counts (U,), and decode it into a row; None = the engine skips it."""
        token = self._token(counts, skip=row is None)
        if self.successors and self.rules.markers:
            self._take_turns(token)
        self.start.begin(token, self.decoder, skip=row is None)
        values, infer_ns = self._step(token, None if row is None else self._values[row])
        partial = self.rules.keep_alive and self.binner.complete_ns < token.t_end_ns
        flags, finite = flags_of(token, partial=partial), values is None or all(map(isfinite, values.tolist()))
        if not finite:
            self.bad_values, self.bad_since = self.bad_values + 1, self.bad_since + 1
            self._poisoned = True  # and would stay poisoned for W bins
        input_state = self._judge(token, finite)
        state = of_token(
            idle=token.idle, valid=token.valid and not self.withheld, silent_ns=token.t_end_ns - self._live_ns,
            input_state=State.RUNNING if self.withheld else input_state, keep_alive=self.rules.keep_alive,
        )  # fmt: skip
        unsure = token.valid and self.start.holds()
        if values is not None and (not finite or unsure or self.withheld or state is State.FAULT):
            flags, values = flags | HOLD, None
        values = values if token.valid else None
        self.tokens["closed"] += 1
        if token.idle:
            self.tokens["idle"] += 1
        elif values is None:
            self.tokens["invalid"] += 1
        spread = self.decoder.spread
        sd = None if spread is None or values is None else spread.sd(spread.variance, self._sd[row])
        return Decoded(token, values, flags, infer_ns, state, sd)

    def _take_turns(self, token: Token) -> None:
        """Exchange the decoder where markers rule: never within a segment, but with its first bin or outside."""
        with suppress(IndexError):  # taken back by another thread meanwhile
            if self.start.mark is not None or (token.idle and self.successors[0].at == "now"):
                self.take_over(self.successors.popleft(), token.index)

    def _judge(self, token: Token, finite: bool) -> State:
        """What the input is worth. The engine starts cold when it may be trusted again."""
        health = self.health
        if health is None:
            return State.FAULT if self.unfit else State.RUNNING
        before = health.state
        health.decoded(finite)
        health.binned(token.counts, self.binner.totals(), valid=token.valid, idle=token.idle)
        if before is State.FAULT and health.state is not State.FAULT and not token.reset:
            self._reset_next = True
        return State.FAULT if self.unfit else health.state

    @property
    def reason(self) -> str:
        """Why the input is not as it should be, in one sentence; '' = it is."""
        return self.withheld or self.unfit or (self.health.reason if self.health is not None else "")

    def _token(self, counts: np.ndarray, skip: bool) -> Token:
        """The oldest open bin as a token: whether it has live data, and where it lies in its segment."""
        binner = self.binner
        index, t_end_ns = binner.open_bin, binner.edge_ns
        live = binner.watermark_ns > t_end_ns - binner.bin_ns - self.rules.silence_ns
        self._newest_ns = max(self._newest_ns, binner.close(counts))
        ends = self._apply_marks(t_end_ns) if self.rules.markers else False
        idle = not self._inside
        binner.told(live or (idle and not self.rules.keep_alive))  # without them a pause is silent
        if not idle:
            self._clock = self._clock + 1 if self.rules.markers else -1
            if 0 < self.rules.longest_ns <= (self._clock + 1) * binner.bin_ns and not ends:
                ends = True
                self.unended += 1
        if live or self._live_ns == NO_TIME:
            self._live_ns = t_end_ns
        if live and not skip and not idle and self.health is not None and self.health.wakes(counts):
            self._reset_next = True  # training has no such silence to look back over
        self._coarse_left = COARSE_TOKENS - 1 if binner.take_coarse() else max(0, self._coarse_left - 1)
        late, self._late_seen = binner.late - self._late_seen, binner.late
        resent, self._resent_seen = binner.resent > self._resent_seen, binner.resent
        token = Token(
            index=index, t_end_ns=t_end_ns, counts=counts, valid=live and not skip and not idle,
            clock=self._clock, reset=(self._reset_next or self._poisoned) and not idle, idle=idle,
            segment=self.segment if not idle else -1, newest_ns=self._newest_ns,
            late=late, coarse=self._coarse_left > 0, resent=resent,
        )  # fmt: skip
        if self.recent is not None:
            self.recent.take(token, cold=self._reset_next)
        if ends:
            self._inside = False
        return token

    def _step(self, token: Token, out: np.ndarray | None) -> tuple[np.ndarray | None, int]:
        """The engine's values of a token, copied into out (V,), and how long its step took in ns."""
        if token.idle:
            return None, 0
        engine = self.decoder.engine
        if token.reset:
            engine.reset()
            self._reset_next = self._poisoned = False
        if out is None:
            engine.skip(1)
            return None, 0
        begin = self.cpu_clock()
        values = engine.step(token)
        infer_ns, out[:] = self.cpu_clock() - begin, values
        return out, infer_ns

    def flush(self) -> None:
        """Close what is still open, so that the laws balance at the end. These bins are not whole: nobody sees them."""
        bins_begun = int((self.binner.watermark_ns - self.binner.grid_ns) // self.binner.bin_ns) + 1
        while self.binner.open_bin < bins_begun:
            if self._close_one(self._counts[0], 0).values is not None:
                self.tokens["superseded"] += 1
