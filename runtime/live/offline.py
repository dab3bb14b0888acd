"""Drive the real pipeline over a recording with a made-up clock: what a run would have decoded, without sockets."""

from __future__ import annotations

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.data.session import Session
from neds_core.linear import baseline
from runtime.core.binning import Binner
from runtime.core.pipeline import Mark, Pipeline, Rules
from runtime.core.trace import RunLog
from runtime.core.values import SPIKES
from runtime.engines import create as engines, prepare
from runtime.io.lsl_player import GAP_BINS, INSIDE_NS, timeline
from runtime.scoring.score import Truth


def stream(
    checkpoint: Checkpoint, session: Session, decoder: str, *, markers: bool = True, shift_ns: int = 0
) -> RunLog:
    """Feed every segment of `session` through binner, engine and token law; returns what was logged."""
    bin_ns = session.bin_ns
    engine = engines.create(checkpoint, decoder)
    if not markers:
        prepare.refuse_endless(engine)
    binner = Binner(len(session.units), bin_ns, max_age_ns=10**10, future_ns=2_000_000)
    plan = timeline(session, shift_ns)
    n_tokens = sum(s.n_bins + GAP_BINS for s in plan) + GAP_BINS
    log = RunLog(n_tokens, len(session.units), engine.layout.n_values)
    pipeline = Pipeline(binner, engine, Rules(markers=markers), on_token=log.add)
    binner.start(0)
    for s in plan:
        pipeline.mark(Mark(s.start_ns + INSIDE_NS, "segment_start", s.number))
        pipeline.mark(Mark(s.start_ns + s.n_bins * bin_ns - INSIDE_NS, "segment_end", s.number))
    t_ns = np.concatenate([s.t_ns for s in plan])
    spikes = np.zeros(len(t_ns), SPIKES)
    spikes["t_ns"], spikes["unit"] = t_ns, np.concatenate([s.unit for s in plan])
    at = 0
    for k in range(n_tokens - GAP_BINS):
        edge = (k + 1) * bin_ns
        upto = int(np.searchsorted(t_ns, edge))
        pipeline.feed(spikes[at:upto], edge)
        pipeline.alive(edge, edge)
        decoded = pipeline.advance(edge)
        if decoded is not None and decoded.values is not None:
            log.mark_in_time(decoded.token)
        at = upto
    return log


def bins(session: Session, log: RunLog, rows: np.ndarray) -> np.ndarray:
    """(n,) the recording's bin of each of the tokens `rows` of a log."""
    first = dict(zip(session.segment_ids.tolist(), session.segments[:, 0].tolist(), strict=True))
    return np.array([first[int(log.segment[r])] + int(log.clock[r]) for r in rows])


def truth(session: Session, log: RunLog, rows: np.ndarray) -> Truth:
    """Measured behaviour, labels and moments of the recording on the tokens `rows` of a log."""
    at = bins(session, log, rows)
    traces = {s.name: session.values[s.name][at].astype(np.float64) for s in session.specs if s.kind == "continuous"}
    labels = {s.name: session.values[s.name][at] for s in session.specs if s.kind == "class"}
    segment = baseline.segment_of(session, at)
    return Truth(traces, labels, {name: ms[segment] for name, ms in session.moments.items()})
