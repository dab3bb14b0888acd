"""The live loop: one hot thread from the spike inlet to the publisher."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from neds_core.checkpoint import Checkpoint
from neds_core.errors import StreamError
from runtime.config import RigConfig
from runtime.core import trace
from runtime.core.binning import Binner
from runtime.core.engine import Engine
from runtime.core.pipeline import Pipeline, Rules
from runtime.core.trace import CAUSES, Latency, RunLog
from runtime.core.values import NO_TIME, Decoded, Token
from runtime.engines import create as engines, prepare
from runtime.io import system as priority
from runtime.io.lsl_clock import now_ns
from runtime.io.lsl_inlets import MarkerInlet, SpikeInlet
from runtime.io.publish import Publisher
from runtime.io.streams import Streams
from runtime.live.messages import Messages
from runtime.wire import SCHEMA, Event, Flag

PULL_S = 0.02
STATUS_NS = 1_000_000_000
JUMP_NS = 1_000_000_000


@dataclass(slots=True)
class Result:
    """Everything the summary is made of."""

    config: RigConfig
    checkpoint: Checkpoint
    engine: Engine
    pipeline: Pipeline
    log: RunLog
    streams: Streams
    latency: dict[str, Latency]
    misses: dict[str, int]
    source: str
    stopped_by: str
    refusal: str  # why the spike stream may no longer be decoded, or ''
    scheduling: str
    stolen_ms: float  # by a hypervisor, while it ran


class LiveRun:
    """Wires streams, pipeline and publisher, and runs the loop until told to stop."""

    def __init__(
        self,
        config: RigConfig,
        checkpoint: Checkpoint,
        streams: Streams,
        publisher: Publisher,
        player_runs: Callable[[], bool] = lambda: True,
    ) -> None:
        """player_runs: False once a player that this run started has ended."""
        self.player_runs = player_runs
        torch.set_num_threads(1)  # scoring at the end; the engine has one thread of its own
        self.config, self.checkpoint, self.streams, self.publisher = config, checkpoint, streams, publisher
        self.engine = engines.create(checkpoint, config.engine.decoder, config.engine.weights, config.engine.device)
        bins = config.bins
        self.budget_ns = int(config.output.budget_ms * 1e6)
        binner = Binner(
            len(checkpoint.units), checkpoint.header.bin_ns,
            max_age_ns=int(bins.max_age_ms * 1e6), future_ns=int(bins.future_ms * 1e6),
        )  # fmt: skip
        rules = Rules(
            lateness_ns=int(bins.lateness_ms * 1e6),
            silence_ns=0 if streams.spikes.description.keep_alive else int(bins.silence_ms * 1e6),
            markers=bins.use_markers and streams.markers is not None,
        )
        if not rules.markers:
            prepare.refuse_endless(self.engine)
        capacity = int(config.score.log_s * 1e9 / checkpoint.header.bin_ns)
        self.log = RunLog(capacity, len(checkpoint.units), self.engine.layout.n_values)
        self.pipeline = Pipeline(binner, self.engine, rules, on_token=self._on_token)
        per_minute = round(60e9 / checkpoint.header.bin_ns)
        names = ("edge_to_pub_ms", "edge_to_pub_decoded_ms", "wait_ms", "infer_ms", "send_ms", "age_ms")
        self.latency = {name: Latency(per_minute) for name in names}
        self.misses: dict[str, int] = dict.fromkeys(CAUSES, 0)
        self.stop = threading.Event()
        self.refusal = ""
        self.gc_ns = 0
        self._gc_began = 0
        self._state = "STARTING"
        self._jumps = self._jump_left = 0
        self.messages = Messages(config, checkpoint, self.engine, streams, self.pipeline)

    def _on_token(self, token: Token, values: np.ndarray | None, infer_ns: int) -> None:
        self.log.add(token, values, infer_ns)
        self.messages.note(token)
        if infer_ns:
            self.latency["infer_ms"].record(infer_ns)

    def run(self, seconds: float | None = None) -> Result:
        """Decode until `stop` is set, the recording ends, or `seconds` have passed."""
        spikes, markers = self.streams.spikes, self.streams.markers
        inlets = self.streams.all()
        for inlet in inlets:
            inlet.clock.start()
        step_ms = prepare.warm_up(self.engine, len(self.checkpoint.units))
        if slow := prepare.too_slow(self.engine, step_ms, self.checkpoint.header.bin_ns):
            print(slow, file=sys.stderr, flush=True)
        gc.collect()
        gc.freeze()
        gc.disable()
        gc.callbacks.append(self._on_gc)
        stolen_ms = trace.stolen_ms()
        scheduling = priority.raise_priority()  # before the inlets open: their threads inherit it
        with ExitStack() as stack:
            try:
                for inlet in inlets:
                    stack.enter_context(inlet)
                stopped_by = self._loop(spikes, markers, seconds)
            finally:
                priority.lower_priority()
                gc.callbacks.remove(self._on_gc)
                gc.enable()
                gc.unfreeze()
        self.pipeline.flush()
        return Result(
            self.config, self.checkpoint, self.engine, self.pipeline, self.log, self.streams, self.latency,
            self.misses, spikes.description.source, stopped_by, self.refusal, scheduling, trace.stolen_ms() - stolen_ms,
        )  # fmt: skip

    def _loop(self, spikes: SpikeInlet, markers: MarkerInlet | None, seconds: float | None) -> str:
        pipeline = self.pipeline
        now = now_ns()
        pipeline.binner.start(now)
        end_ns = now + int(seconds * 1e9) if seconds is not None else None
        status_ns = now
        stopped_by = "signal"
        while not self.stop.is_set():
            wait_s = min(PULL_S, max(0.0, (pipeline.due_ns() - now_ns()) * 1e-9))
            faults = trace.page_faults()
            arrived = spikes.pull(wait_s)
            now = now_ns()
            moment = trace.Moment(now, time.thread_time_ns(), faults)
            self.gc_ns = 0
            if markers is not None:  # before the spikes: those may close bins that markers rule
                for mark in markers.pull():
                    pipeline.mark(mark)
            pipeline.feed(arrived, now)
            if spikes.keep_alive_ns > 0:
                pipeline.alive(spikes.keep_alive_ns, now)
            decoded = pipeline.advance(now)
            if decoded is not None:
                self._publish(decoded, moment)
            for inlet in self.streams.behaviours.values():
                inlet.pull()
            if now >= status_ns:
                self._tell_status(now)
                status_ns += STATUS_NS
                if spikes.resumed():
                    threading.Thread(target=self._recheck, name="recheck", daemon=True).start()
                if self.refusal:
                    stopped_by = "stream_changed"
                    break
                if not self.player_runs() and not (markers is not None and markers.ended):
                    stopped_by = "player_gone"
                    break
            if markers is not None and markers.ended:
                stopped_by = "recording_end"
                break
            if end_ns is not None and now >= end_ns:
                stopped_by = "seconds"
                break
        self._say_end()
        return stopped_by

    def _recheck(self) -> None:
        """After the sender came back: it may send other units under the old name."""
        try:
            self.streams.recheck()
        except StreamError as error:
            self.refusal = str(error)

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._gc_began = time.perf_counter_ns()
        else:
            self.gc_ns += time.perf_counter_ns() - self._gc_began

    def _publish(self, decoded: Decoded, moment: trace.Moment) -> None:
        before = now_ns()
        self.publisher.send(self.messages.decode(decoded, before, self._clock_flag()))
        sent = now_ns()
        if decoded.values is not None and sent - decoded.t_end_ns <= self.budget_ns:
            self.log.mark_in_time(decoded.token)
        self.latency["wait_ms"].record(moment.t_ns - decoded.t_end_ns)
        self.latency["send_ms"].record(sent - before)
        newest = trace.age_ns(sent, decoded.newest_ns)
        if newest is not None and decoded.values is not None:
            self.latency["age_ms"].record(newest)
        bin_ns = self.checkpoint.header.bin_ns
        for i in range(decoded.superseded + 1):
            self.latency["edge_to_pub_ms"].record(sent - (decoded.t_end_ns - i * bin_ns))
            if decoded.values is not None:
                self.latency["edge_to_pub_decoded_ms"].record(sent - (decoded.t_end_ns - i * bin_ns))
        if sent - decoded.t_end_ns > self.budget_ns or decoded.superseded:
            cause = trace.miss_cause(
                edge_ns=decoded.t_end_ns, arrived_ns=moment.t_ns, closed=decoded.superseded + 1,
                infer_ns=decoded.infer_ns, before_ns=before, sent_ns=sent,
                cpu_ns=time.thread_time_ns() - moment.cpu_ns, faults=trace.page_faults() - moment.faults,
                gc_ns=self.gc_ns, budget_ns=self.budget_ns, lateness_ns=self.pipeline.rules.lateness_ns,
                due_ns=decoded.t_end_ns + self.pipeline.rules.lateness_ns,
            )  # fmt: skip
            late = sum(sent - (decoded.t_end_ns - i * bin_ns) > self.budget_ns for i in range(decoded.superseded + 1))
            self.misses[cause] += late
            self.messages.misses_at += [sent] * late
        self.publisher.tell("measured", {"t_ns": sent, "values": self.streams.measured(sent, bin_ns)})
        if decoded.state != self._state:
            self.publisher.tell("event", Event(SCHEMA, "state", sent, f"{self._state} to {decoded.state}"))
            self._state = decoded.state

    def _clock_flag(self) -> Flag:
        """CLOCK_JUMP for a second after the sender's clock stepped, and one event."""
        jumps = self.streams.spikes.clock.jumps
        if jumps != self._jumps:
            self._jumps, self._jump_left = jumps, JUMP_NS // self.checkpoint.header.bin_ns + 1
            detail = f"the sender's clock stepped, {jumps} times so far"
            self.publisher.tell("event", Event(SCHEMA, "clock_jump", now_ns(), detail))
        self._jump_left = max(0, self._jump_left - 1)
        return Flag.CLOCK_JUMP if self._jump_left else Flag(0)

    def _tell_status(self, now: int) -> None:
        self.publisher.tell("status", self.messages.status(now, self.latency["edge_to_pub_ms"], self.misses))

    def _say_end(self) -> None:
        """A last status, and a message without values that says END."""
        now = now_ns()
        end = self.pipeline.binner.edge_ns - self.checkpoint.header.bin_ns
        last = Decoded(self.pipeline.binner.open_bin - 1, end, None, 0, -1, NO_TIME, 0, 0, "END")
        self._tell_status(now)
        self.publisher.send(self.messages.decode(last, now, Flag.END))
