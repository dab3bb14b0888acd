"""What the machine could do: the same pipeline, engine and messages over a recording, a bin as soon as the one before.

Nobody waits for a bin here, so a pause would be one sample. Each time longer than the median therefore also counts for
the bins that would have come meanwhile (Gil Tene's correction for coordinated omission, as HdrHistogram has it).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks import report
from benchmarks.latency.bench import Asked
from benchmarks.latency.load import Load, made_up
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import ConfigError
from runtime.core.binning import Binner
from runtime.core.latency import Latency
from runtime.core.pipeline import Pipeline, Rules
from runtime.core.run_log import RunLog, describe
from runtime.core.timeline import gap_bins, timeline
from runtime.core.values import Decoded
from runtime.engines import create as engines, prepare
from runtime.io import system
from runtime.io.clock import LiveClock
from runtime.io.publish import Publisher
from runtime.live.loop import Plan, run
from runtime.live.messages import Messages
from runtime.live.offline import SessionSource, SteppedClock

PARTS = ("take_ms", "infer_ms", "send_ms")
LONGEST_S = 600.0  # of made-up spikes


class _Source(SessionSource):
    """Notes when a bin's spikes were in hand."""

    woke_ns = 0

    def wait(self, timeout_s: float) -> np.ndarray:
        found = super().wait(timeout_s)
        self.woke_ns = time.perf_counter_ns()
        return found


class _Sink(Messages):
    """Notes when each estimate left, and how long that took: rows of woke, send begun, sent, engine, ns."""

    rows: list[tuple[int, int, int, int]]

    def estimate(self, decoded: Decoded, now_ns: int, flags: int) -> None:
        before = time.perf_counter_ns()
        super().estimate(decoded, now_ns, flags)
        woke = self.source.woke_ns  # pyright: ignore[reportAttributeAccessIssue]: of `_Source`
        self.rows.append((woke, before, time.perf_counter_ns(), decoded.infer_ns))


def saturated(asked: Asked) -> report.Report:
    """Decode for `asked.seconds`, or until the recording is over, as fast as it goes."""
    torch.set_num_threads(1)
    checkpoint = asked.checkpoint or checkpoints.load(Path(asked.config.checkpoint))
    session = _session(asked, checkpoint)
    stolen_ms = system.stolen_ms()
    rows, log = _run(asked, checkpoint, session)
    return (
        report.begun("latency")
        | {"mode": "saturated", "seconds": asked.seconds, "warm_up_s": asked.warm_up_s}
        | {
            "load": msgspec.to_builtins(asked.load) | {"recording": "" if asked.load.rate else session.name},
            "units": len(session.units), "bin_ms": session.bin_ns * 1e-6, "budget_ms": asked.config.output.budget_ms,
            "decoder": log.header.decoder, "engine": log.header.engine, "model": log.header.model,
            "scheduling": "normal", "checkpoint_sha256": checkpoint.sha, "config_sha256": "",
            "stolen_ms": system.stolen_ms() - stolen_ms, "counters": log.outcome.counters,
        }
        | of(rows, asked.warm_up_s)
    )  # fmt: skip


def _session(asked: Asked, checkpoint: Checkpoint) -> Session:
    bin_ns = checkpoint.header.bin_ns
    if asked.load.rate or asked.load.burst:
        load = Load(rate=asked.load.rate, burst=asked.load.burst)  # measured behaviour does not pass here
        return made_up(load, checkpoint.units, checkpoint.specs, bin_ns, LONGEST_S)
    if not asked.config.score.recording:
        raise ConfigError("the rig has no score.recording to play; set it, or give --rate for made-up spikes")
    return session_file.load(Path(asked.config.score.recording))


def _run(asked: Asked, checkpoint: Checkpoint, session: Session) -> tuple[np.ndarray, RunLog]:
    config, bin_ns = asked.config, session.bin_ns
    decoder = engines.decoder(checkpoint, config.engine.decoder, config.engine.weights, config.engine.device)
    prepare.warm_up(decoder.engine, decoder.n_units)
    plan, clock = timeline(session), SteppedClock()
    source = _Source(plan, bin_ns, clock)
    binner = Binner(len(session.units), bin_ns, max_age_ns=10**10, future_ns=2_000_000)
    pipeline = Pipeline(binner, decoder, Rules(markers=True), time.perf_counter_ns)
    header = describe(decoder, rig=config.rig, source="synthetic", budget_ms=config.output.budget_ms)
    n_tokens = sum(s.n_bins + gap_bins(bin_ns) for s in plan)
    log = RunLog(header, min(n_tokens, 1000), len(session.units), decoder.engine.layout.n_values)
    output = msgspec.structs.replace(config.output, decode_port=0, latest_port=0)
    end = time.perf_counter() + asked.warm_up_s + asked.seconds
    # at normal priority: a thread that never waits is stopped for 50 ms of every second under SCHED_FIFO
    with Publisher(output, config.rig) as publisher, LiveClock():  # without the garbage collector
        sink = _Sink(config, pipeline, source, publisher, "synthetic")
        sink.rows = []
        run(source, pipeline, sink, clock, log, Plan(10**12, stop=lambda: time.perf_counter() > end))
    return np.array(sink.rows, np.int64).reshape(-1, 4), log


def of(rows: np.ndarray, warm_up_s: float) -> dict[str, Any]:
    """The numbers of a run: rows (n, 4) as `_Sink` notes them. Idle bins, which are not decoded, are left out."""
    rows = rows[rows[:, 3] > 0]
    rows = rows[rows[:, 0] >= rows[0, 0] + warm_up_s * 1e9] if len(rows) else rows
    woke, before, sent, infer = rows.T
    took = {"step_ms": sent - woke, "take_ms": before - woke - infer, "infer_ms": infer, "send_ms": sent - before}
    latency = {name: corrected(ns) for name, ns in took.items()}
    each = {name: {"n": len(rows)} | one.summary_ms() for name, one in latency.items()}
    seconds = (int(sent[-1]) - int(woke[0])) * 1e-9 if len(rows) else 0.0
    place = (woke - woke[0]) // 1_000_000_000 if len(rows) else woke
    whole = range(int(seconds))
    statistics = {
        name: {s: [round(float(f(ns[place == k])) * 1e-6, 4) if (place == k).any() else None for k in whole]
               for s, f in (("p50", np.median), ("max", np.max))}
        for name, ns in took.items()
    }  # fmt: skip
    return {
        **each,
        "latencies": [*each],
        "bins_per_s": round(len(rows) / seconds, 1) if seconds else 0.0,
        "blocks": {"seconds": 1.0, "n": [int((place == k).sum()) for k in whole], **statistics},
        "histograms": {name: one.encoded() for name, one in latency.items()},
    }


def corrected(ns: np.ndarray) -> Latency:
    """A histogram of times (n,) that follow one another, corrected for what each of them held up."""
    made = Latency()
    expected_us = int(max(1, np.median(ns) // 1000)) if len(ns) else 1
    for value in ns.tolist():
        made.histogram.record_corrected_value(max(1, int(value) // 1000), expected_us)
    return made
