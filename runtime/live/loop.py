"""The loop: from a source of spikes to a sink of estimates. Source, sink and clock are arguments: no socket here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from runtime.core.accounting import Accounting, counters
from runtime.core.handover import Handover
from runtime.core.misses import Passage
from runtime.core.pipeline import Pipeline
from runtime.core.run_log import LOG_FULL, Outcome, RunLog, exchanged
from runtime.core.state import State, StateTrack
from runtime.core.values import Decoded, Token
from runtime.live.rims import Clock, Sink, Source
from runtime.live.warming import Warming
from runtime.wire import Flag

PULL_NS = 20_000_000  # at most so long a pass waits
STATUS_NS = 1_000_000_000
RAISE_LOG_S = "scores and --save-log cover these; raise score.log_s"
JUMP_NS = 1_000_000_000  # so long `Flag.CLOCK_JUMP` stays set
CLOCK_JUMP = int(Flag.CLOCK_JUMP)


@dataclass(frozen=True, slots=True)
class Plan:
    """When a run ends, and what is on time. stop: asked once a pass, True = end now. handover: of a run whose decoder
    may be exchanged. warming: what the loop does before a bin closes, None = it waits."""

    budget_ns: int
    seconds: float | None = None
    stop: Callable[[], bool] = lambda: False
    handover: Handover | None = None
    warming: Warming | None = None


def run(
    source: Source,
    pipeline: Pipeline,
    sink: Sink,
    clock: Clock,
    log: RunLog,
    plan: Plan,
    track: StateTrack | None = None,
) -> None:
    """Decode until the plan's stop, its seconds, or the source's end; what happened is in `log`.

    track: in READY; None = a fresh one.
    """
    _Loop(source, pipeline, sink, clock, log, plan).run(track or StateTrack.ready())


class _Loop:
    def __init__(
        self, source: Source, pipeline: Pipeline, sink: Sink, clock: Clock, log: RunLog, plan: Plan
    ) -> None:  # fmt: skip
        self.source, self.pipeline, self.sink, self.clock = source, pipeline, sink, clock
        self.log, self.plan = log, plan
        self.accounting = Accounting(pipeline.decoder.bin_ns, plan.budget_ns)
        log.latency = self.accounting.latency
        self._jumps = self._jump_left = 0
        self._woke_ns = 0  # in the newest pass, 0 = there was none
        self._log_full = self._resent = False

    def run(self, track: StateTrack) -> None:
        self.track = track
        clock, stolen_ms = self.clock, self.clock.stolen_ms()
        now = clock.now_ns()
        self.pipeline.binner.start(now)
        stopped_by = self._until_over(now)
        self._end(clock.now_ns())
        self.pipeline.flush()
        self.log.outcome = Outcome(
            stopped_by=stopped_by,
            refusal=self.source.refusal(),
            counters=counters(self.pipeline, self.accounting, self.source.counters()),
            misses=dict(self.accounting.misses),
            stolen_ms=clock.stolen_ms() - stolen_ms,
            exchanges=tuple(exchanged(turn) for turn in self.pipeline.exchanges),
        )

    def _until_over(self, now: int) -> str:
        plan, source = self.plan, self.source
        end_ns = None if plan.seconds is None else now + int(plan.seconds * 1e9)
        status_ns = now
        while not plan.stop():
            now = self._pass()
            if now >= status_ns:
                self.sink.status(now, self.track.state, self.accounting)
                status_ns += STATUS_NS
            why = source.over(now)
            for name, detail in source.events():
                self._say(now, name, detail)
            if why:
                return why
            if end_ns is not None and now >= end_ns:
                return "seconds"
        return "signal"

    def _pass(self) -> int:
        """Wait for spikes, take in what has come, close what is due, publish the newest. Returns when it woke."""
        source, pipeline, clock, faults = self.source, self.pipeline, self.clock, self.clock.faults()
        spikes, began, busy_ns, warm_ns = self._wait()
        now, cpu_ns, gc_ns = clock.now_ns(), clock.cpu_ns(), clock.gc_ns()
        self._woke_ns = now
        marks, unended, astray = source.marks(), pipeline.unended, pipeline.astray_markers
        self.log.marks += marks
        pipeline.withheld = source.withheld
        closed = pipeline.take(spikes, source.alive_ns, marks, now)
        if pipeline.unended > unended:
            self._say(now, "segment_unended", f"segment {pipeline.segment} was closed: no marker ended it in time")
        if pipeline.astray_markers and not astray:
            self._say(now, "markers_astray", _astray(pipeline.astray_ns))
        if said := pipeline.start.news():
            self._say(now, "start_held", said)
        passage = None
        if closed:
            before = clock.now_ns()
            self.sink.estimate(closed[-1], before, self._clock_flag(before) | source.flags)
            sent, edge_ns = clock.now_ns(), closed[-1].token.t_end_ns
            passage = Passage(
                edge_ns=edge_ns, due_ns=edge_ns + pipeline.rules.lateness_ns, woke_ns=now, before_ns=before,
                sent_ns=sent, closed=len(closed), infer_ns=closed[-1].infer_ns, cpu_ns=clock.cpu_ns() - cpu_ns,
                faults=clock.faults() - faults, gc_ns=clock.gc_ns() - gc_ns, began_ns=began, busy_ns=busy_ns,
                warm_ns=warm_ns,
            )  # fmt: skip
            self._account(closed, passage)
        if self.plan.handover is not None:
            for name, detail in self.plan.handover.after(closed, passage):
                self._say(now, name, detail)
        for name, t_ns, value in source.behaviour():
            self.log.measured(name, t_ns, value)
        return now

    def _wait(self) -> tuple[np.ndarray, int, int, int]:
        """The pass before is over: spikes (n,) `SPIKES`, since when they were waited for, busy_ns and warm_ns."""
        source, pipeline, warming, began = self.source, self.pipeline, self.plan.warming, self.clock.now_ns()
        due_ns, busy_ns = pipeline.due_ns(), began - self._woke_ns if self._woke_ns else 0
        self.log.rests(began)
        close_ns = pipeline.binner.edge_ns if pipeline.rules.keep_alive or pipeline.binner.ordered else due_ns
        if warming is None or (warm_ns := warming.due_ns(close_ns, pipeline.decoder.engine, began)) >= due_ns:
            return source.wait(_seconds(due_ns - began)), began, busy_ns, 0
        spikes, now = source.wait(_seconds(warm_ns - began)), self.clock.now_ns()
        if len(spikes) or source.alive_ns > 0 or now < warm_ns:
            return spikes, began, busy_ns, 0
        over_ns, until_ns = 0, min(due_ns, began + PULL_NS)
        if now < close_ns:  # else it was the wait that took too long
            warming.prepare()
            began = now = self.clock.now_ns()
            busy_ns = over_ns = max(0, now - close_ns)
        return source.wait(_seconds(until_ns - now)), began, busy_ns, over_ns

    def _account(self, closed: list[Decoded], passage: Passage) -> None:
        """After the send: nothing here delays the estimate."""
        newest, sent = closed[-1], passage.sent_ns
        for decoded in closed:
            if not self.log.add(decoded) and not self._log_full:
                self._log_full = True
                held_s = self.log.n * self.pipeline.decoder.bin_ns * 1e-9
                self._say(passage.sent_ns, LOG_FULL, f"the log is full: it holds the first {held_s:g} s; {RAISE_LOG_S}")
            if decoded.token.resent and not self._resent:
                self._resent = True
                self._say(sent, "spikes_resent", "spikes were sent again and dropped; look at their sender")
            self.sink.note(decoded)
            self.accounting.stepped(decoded)
        in_time = self.accounting.published(passage, newest)
        self.log.published(newest.token.index, passage, in_time, self.accounting.cause)
        self.sink.measured(sent, self.source.measured(sent))
        self._enter(newest.state, sent)

    def _enter(self, state: State, now: int) -> None:
        if said := self.track.enter(state):
            reason = self.pipeline.reason
            self._say(now, "state", f"{said}: {reason}" if reason else said)

    def _say(self, now: int, name: str, detail: str) -> None:
        self.log.happened(now, name, detail)
        self.sink.event(now, name, detail)

    def _clock_flag(self, now: int) -> int:
        """CLOCK_JUMP for a second after the sender's clock stepped, and one event."""
        jumps = self.source.clock_jumps
        if jumps != self._jumps:
            self._jumps, self._jump_left = jumps, JUMP_NS // self.pipeline.decoder.bin_ns + 1
            self._say(now, "clock_jump", f"the sender's clock stepped, {jumps} times so far")
        self._jump_left = max(0, self._jump_left - 1)
        return CLOCK_JUMP if self._jump_left else 0

    def _end(self, now: int) -> None:
        """A last status, and a message without values that says END."""
        binner, bin_ns = self.pipeline.binner, self.pipeline.decoder.bin_ns
        none = np.zeros(0, np.uint16)
        last = Token(binner.open_bin - 1, binner.edge_ns - bin_ns, none, valid=False)
        self._enter(State.ENDED, now)
        self.sink.status(now, State.ENDED, self.accounting)
        self.sink.estimate(Decoded(last, None, 0, 0, State.ENDED), now, Flag.END)


def _seconds(ns: int) -> float:
    return min(PULL_NS, max(0, ns)) * 1e-9


def _astray(off_ns: int) -> str:
    """What is said of markers that are stamped by another clock. off_ns: stamp minus now."""
    way = "ahead" if off_ns > 0 else "behind"
    return f"markers are stamped {abs(off_ns) * 1e-9:.3g} s {way}: not of the LSL clock; stamp with local_clock()"
