"""The live loop: one hot thread from the spike inlet to the publisher."""

from __future__ import annotations

import gc
import os
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pylsl
import torch

from neds_core.checkpoint import Checkpoint
from neds_core.errors import StreamError
from runtime import engine as engines, lsl, priority, trace
from runtime.binning import Binner
from runtime.config import RigConfig
from runtime.ingest import BehaviourInlet, MarkerInlet, SpikeInlet
from runtime.pipeline import Pipeline, Rules
from runtime.publish import Publisher, boot_id
from runtime.token import Decoded
from runtime.trace import CAUSES, Latency, RunLog
from runtime.wire import SCHEMA, Decode, Flag, Output, OutputInfo, Status

PULL_S = 0.02
STATUS_NS = 1_000_000_000


@dataclass(slots=True)
class Streams:
    """The inlets of one run."""

    spikes: SpikeInlet
    markers: MarkerInlet | None
    behaviours: dict[str, BehaviourInlet]


@dataclass(slots=True)
class Result:
    """Everything the summary is made of."""

    config: RigConfig
    checkpoint: Checkpoint
    engine: engines.Engine
    pipeline: Pipeline
    log: RunLog
    streams: Streams
    latency: dict[str, Latency]
    misses: dict[str, int]
    source: str
    stopped_by: str
    scheduling: str


def find_streams(config: RigConfig, checkpoint: Checkpoint, allow_replay: bool) -> Streams:
    """Resolve and check every stream of the rig. Raises `StreamError` with the remedy."""
    want = config.input
    try:
        info = lsl.resolve(want.spikes, want.wait_s, want.spikes_source_id)
    except StreamError as error:
        hint = lsl.where_else(want.spikes, config.lsl.session_id) if config.lsl.resolve_scope == "machine" else ""
        raise StreamError(f"{error}{'; ' if hint else ''}{hint}") from None
    try:
        description = lsl.read_description(pylsl.StreamInlet(info).info(5.0))
    except pylsl.util.TimeoutError:
        raise StreamError(f"stream {want.spikes!r} was found but does not answer; restart its sender") from None
    if description.source != "live" and not allow_replay:
        raise StreamError(f"stream {want.spikes!r} is a {description.source}; add --allow-replay to decode it")
    if description.unit_map_sha != checkpoint.header.unit_map_sha:
        raise StreamError(
            f"stream {want.spikes!r} has another unit map ({description.unit_map_sha[:12]}) than the checkpoint "
            f"({checkpoint.header.unit_map_sha[:12]}); calibrate a checkpoint for these units"
        )
    wait_s = min(want.wait_s, 5.0)
    markers = MarkerInlet(lsl.resolve(want.markers, wait_s)) if want.markers else None
    behaviours = {}
    for name, stream in want.behaviours.items():
        found = lsl.resolve(stream, wait_s)
        if found.channel_count() != 1:
            raise StreamError(f"stream {stream!r} has {found.channel_count()} channels; {name} needs exactly one")
        behaviours[name] = BehaviourInlet(name, found)
    return Streams(SpikeInlet(info, description), markers, behaviours)


class LiveRun:
    """Wires streams, pipeline and publisher, and runs the loop until told to stop."""

    def __init__(self, config: RigConfig, checkpoint: Checkpoint, streams: Streams, publisher: Publisher) -> None:
        torch.set_num_threads(config.engine.threads)
        self.config, self.checkpoint, self.streams, self.publisher = config, checkpoint, streams, publisher
        self.engine = engines.create(checkpoint, config.engine.decoder)
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
        capacity = int(config.score.log_s * 1e9 / checkpoint.header.bin_ns)
        self.log = RunLog(capacity, len(checkpoint.units), self.engine.layout.n_values)
        self.pipeline = Pipeline(binner, self.engine, rules, on_token=self._on_token)
        self.latency = {name: Latency() for name in ("edge_to_pub_ms", "infer_ms", "age_ms")}
        self.misses: dict[str, int] = dict.fromkeys(CAUSES, 0)
        self.stop = threading.Event()
        self.boot = boot_id()
        self.seq = 0
        self.gc_ns = 0
        self._gc_began = 0
        self._seen = np.zeros(len(checkpoint.units), bool)
        self._rate_from = (0, 0)
        self._misses_at: list[int] = []

    def _on_token(self, token: object, values: np.ndarray | None, infer_ns: int) -> None:
        self.log.add(token, values, infer_ns)  # pyright: ignore[reportArgumentType]
        if infer_ns:
            self.latency["infer_ms"].record(infer_ns)

    def run(self, seconds: float | None = None) -> Result:
        """Decode until `stop` is set, the recording ends, or `seconds` have passed."""
        spikes, markers = self.streams.spikes, self.streams.markers
        others = [*self.streams.behaviours.values(), *([markers] if markers is not None else [])]
        inlets = [*others, spikes]  # spikes last: a sender starts when they have a consumer
        for inlet in inlets:
            inlet.clock.start()
        engines.warm_up(self.engine, len(self.checkpoint.units))
        gc.collect()
        gc.freeze()
        gc.disable()
        gc.callbacks.append(self._on_gc)
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
            self.misses, spikes.description.source, stopped_by, scheduling,
        )  # fmt: skip

    def _loop(self, spikes: SpikeInlet, markers: MarkerInlet | None, seconds: float | None) -> str:
        pipeline = self.pipeline
        now = lsl.now_ns()
        pipeline.binner.start(now)
        end_ns = now + int(seconds * 1e9) if seconds is not None else None
        status_ns = now
        parent = os.getppid()
        stopped_by = "signal"
        while not self.stop.is_set():
            wait_s = min(PULL_S, max(0.0, (pipeline.due_ns() - lsl.now_ns()) * 1e-9))
            arrived = spikes.pull(wait_s)
            now = lsl.now_ns()
            moment = trace.Moment(now, time.thread_time_ns(), trace.page_faults())
            self.gc_ns = 0
            pipeline.feed(arrived, now)
            if spikes.keep_alive_ns > 0:
                pipeline.alive(spikes.keep_alive_ns, now)
            if markers is not None:
                for mark in markers.pull():
                    pipeline.mark(mark)
            decoded = pipeline.advance(now)
            if decoded is not None:
                self._publish(decoded, moment)
            for inlet in self.streams.behaviours.values():
                inlet.poll()
            if now >= status_ns:
                self._status(now)
                status_ns += STATUS_NS
            if markers is not None and markers.ended:
                stopped_by = "recording_end"
                break
            if (end_ns is not None and now >= end_ns) or os.getppid() != parent:
                stopped_by = "seconds"
                break
        self._say_end(stopped_by)
        return stopped_by

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._gc_began = time.perf_counter_ns()
        else:
            self.gc_ns += time.perf_counter_ns() - self._gc_began

    def _publish(self, decoded: Decoded, moment: trace.Moment) -> None:
        before = lsl.now_ns()
        self.publisher.send(self._message(decoded, before, 0))
        sent = lsl.now_ns()
        if decoded.values is not None:
            self.log.mark_published(decoded.token)
        newest = trace.age_ns(sent, decoded.newest_ns)
        if newest is not None and decoded.values is not None:
            self.latency["age_ms"].record(newest)
        bin_ns = self.checkpoint.header.bin_ns
        for i in range(decoded.superseded + 1):
            self.latency["edge_to_pub_ms"].record(sent - (decoded.t_end_ns - i * bin_ns))
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
            self._misses_at += [sent] * late
        values = {name: inlet.latest() for name, inlet in self.streams.behaviours.items()}
        self.publisher.tell("measured", {"t_ns": sent, "values": values})

    def _outputs(self, values: np.ndarray | None) -> dict[str, Output]:
        layout = self.engine.layout
        found = {}
        for spec in layout.specs:
            if values is None:
                found[spec.name] = Output()
            elif spec.kind == "continuous":
                found[spec.name] = Output(value=float(values[layout.columns[spec.name]][0]))
            else:
                found[spec.name] = Output(probs=[float(p) for p in values[layout.columns[spec.name]]])
        return found

    def _message(self, decoded: Decoded, now: int, extra_flags: int) -> Decode:
        self.seq += 1
        newest = trace.age_ns(now, decoded.newest_ns)
        valid_until = decoded.t_end_ns + int(self.config.output.valid_ms * 1e6)
        flags = decoded.flags | extra_flags | Flag.UNGATED
        if now - decoded.t_end_ns > self.budget_ns:
            flags |= Flag.STALE
        return Decode(
            schema=SCHEMA, seq=self.seq, token=decoded.token, t_end_ns=decoded.t_end_ns, t_pub_ns=now,
            boot_id=self.boot, source=self.streams.spikes.description.source, inputs=["spikes"],
            decoder=self.config.engine.decoder, engine=self.engine.name, outputs=self._outputs(decoded.values),
            age_ms=None if newest is None else newest * 1e-6, infer_ms=decoded.infer_ns * 1e-6,
            edge_to_pub_ms=(now - decoded.t_end_ns) * 1e-6, state=decoded.state, flags=int(flags),
            valid_until_ns=valid_until, valid_for_ms=max(0.0, (valid_until - now) * 1e-6),
            model_sha=self.checkpoint.sha, unit_map_sha=self.checkpoint.header.unit_map_sha,
        )  # fmt: skip

    def _say_end(self, why: str) -> None:
        now = lsl.now_ns()
        end = self.pipeline.binner.edge_ns - self.checkpoint.header.bin_ns
        last = Decoded(self.pipeline.binner.open_bin - 1, end, None, 0, -1, -(2**63), 0, 0, "END")
        self._status(now)
        self.publisher.send(self._message(last, now, Flag.END))

    def counters(self) -> dict[str, int]:
        """Every count of the run, for status and summary."""
        spikes, markers = self.streams.spikes, self.streams.markers
        return {
            **{f"spikes_{k}": v for k, v in self.pipeline.binner.counters().items()},
            **{f"tokens_{k}": v for k, v in self.pipeline.tokens.items()},
            "spikes_lost_upstream": spikes.lost_upstream,
            "clock_jumps": spikes.clock.jumps,
            "late_markers": self.pipeline.late_markers,
            "bad_markers": markers.bad if markers else 0,
            "bad_values": self.pipeline.bad_values,
            "deadline_misses": sum(self.misses.values()),
        }

    def _status(self, now: int) -> None:
        header, markers = self.checkpoint.header, self.streams.markers
        n = min(self.pipeline.binner.open_bin, self.log.capacity)
        recent = self.log.counts[max(0, n - 500) : n]
        self._seen |= recent.any(0)
        last_second = self.log.counts[max(0, n - 50) : n]
        self._misses_at = [t for t in self._misses_at if now - t < 60 * STATUS_NS]
        self.publisher.tell(
            "status",
            Status(
                schema=SCHEMA, rig=self.config.rig, boot_id=self.boot,
                source=self.streams.spikes.description.source, state="RUNNING", t_pub_ns=now,
                decoder=self.config.engine.decoder, engine=self.engine.name, model=header.name,
                model_sha=self.checkpoint.sha, model_created=header.record.created,
                unit_map_sha=header.unit_map_sha,
                outputs=[
                    OutputInfo(s.name, s.kind, s.unit, s.sign, s.filter, list(s.classes))
                    for s in self.engine.layout.specs
                ],
                flag_names={f.name: int(f) for f in Flag if f.name}, counters=self.counters(),
                edge_to_pub_ms=self.latency["edge_to_pub_ms"].recent_ms(),
                misses_last_minute=len(self._misses_at), units_seen=int(self._seen.sum()),
                units_expected=len(self.checkpoint.units),
                population_rate_hz=float(last_second.sum() / max(len(last_second), 1) * 1e9 / header.bin_ns),
                segment=self.pipeline.segment if self.pipeline.segment >= 0 else None,
                last_marker=markers.last if markers else "",
                measured={name: inlet.latest() for name, inlet in self.streams.behaviours.items()},
                budget_ms=self.config.output.budget_ms,
            ),
        )  # fmt: skip
