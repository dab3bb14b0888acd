"""The summary of a run, from its log alone: scores over what was published, exactness, latencies and every count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import lead
from neds_core.files import sha256
from runtime.core.binning import COUNTERS
from runtime.core.latency import percentiles
from runtime.core.pipeline import TOKENS
from runtime.core.run_log import LOG_FULL, RunLog, told_as
from runtime.engines.layout import layout
from runtime.scoring import truth
from runtime.scoring.score import all_decoders, exactness, score_log


def scored(log: RunLog, checkpoint: Checkpoint) -> dict[str, Any]:
    """The part of the summary that decodes the log again: scores, exactness, and the counts' difference.

    Scores and exactness are of the header's decoder: of the bins before another took over, or after it came back.
    """
    rows = log.decoded_rows()
    ours = rows[log.of_header(rows)]
    if len(ours) == 0 or log.outcome.stopped_by == "signal":
        return {
            "outputs": {}, "scored": 0, "streamed_vs_offline_max_abs": None, "counts_vs_recording_diff": None,
            "counts_vs_recording_why": "",
        }  # fmt: skip
    found, difference = score_log(checkpoint, log, ours, truth.received(log, ours)), truth.counts_difference(log, rows)
    return {
        "outputs": found.outputs,
        "scored": found.n_scored,
        "streamed_vs_offline_max_abs": found.exact,
        "counts_vs_recording_diff": None if difference is None else difference.spikes,
        "counts_vs_recording_why": "" if difference is None else difference.why,
    }


def exchanges(log: RunLog) -> list[dict[str, Any]]:
    """The decoders that took over, and how exactly each decoded what offline does on the same bins, where its
    checkpoint still lies where it was."""
    found = []
    for k, each in enumerate(log.outcome.exchanges):
        path, exact = Path(each.path), None
        if each.path and path.is_file() and sha256(path) == each.model_sha and log.outcome.stopped_by != "signal":
            exact = exact_of_exchange(log, k, checkpoints.load(path))
        found.append(msgspec.structs.asdict(each) | {"streamed_vs_offline_max_abs": exact})
    return found


def exact_of_exchange(log: RunLog, k: int, checkpoint: Checkpoint) -> float | None:
    """Largest |streamed - offline| of the decoder of the k-th exchange, in z-scores; None where it decoded nothing.

    checkpoint: its own. Offline begins where its engine was primed, as the log says.
    """
    rows = log.decoded_rows()
    rows = rows[log.of_exchange(k, rows)]
    if len(rows) == 0:
        return None
    offline = all_decoders(checkpoint, log, rows)[log.outcome.exchanges[k].decoder]
    return exactness(layout(checkpoint), log.values[rows], offline, log.valid[rows])


def coverage(log: RunLog) -> dict[str, Any]:
    """How much of the run its log holds, and therefore what its scores cover."""
    bin_s = log.header.bin_ns * 1e-9
    full = any(event.name == LOG_FULL for event in log.events)
    closed = log.outcome.counters["tokens_closed"]
    return {"log_full": full, "log_s": log.n * bin_s, "run_s": closed * bin_s if full else log.n * bin_s}


def happened(log: RunLog) -> dict[str, Any]:
    """What people have to know of a run: name of an event -> how often it came, and the newest one in words."""
    found: dict[str, Any] = {}
    for event in log.events:
        if told := told_as(event.name, event.detail):
            found[told] = {"n": found.get(told, {"n": 0})["n"] + 1, "detail": event.detail}
    return found


def build(log: RunLog, checkpoint: Checkpoint) -> dict[str, Any]:
    """The one JSON object of `neds-rt run --json` and `neds-rt report`.

    A run that a signal stopped is not scored, so that it ends at once.
    """
    scores = scored(log, checkpoint)
    n_scored = scores.pop("scored")
    header, outcome = log.header, log.outcome
    counts = outcome.counters
    return {
        **scores,
        **{name: latency.summary_ms() for name, latency in log.latency.items()},
        "source_delay_ms": percentiles(log.source_delay_ms),
        "tokens": {**{name: counts[f"tokens_{name}"] for name in TOKENS}, "scored": n_scored},
        "deadline_misses": sum(outcome.misses.values()),
        "miss_causes": outcome.misses,
        "spikes": {name: counts.get(f"spikes_{name}", 0) for name in COUNTERS},
        "lost_upstream": counts["spikes_lost_upstream"],
        "late_markers": counts["late_markers"],
        "bad_markers": counts.get("bad_markers", 0),
        "counters": counts,
        "events": happened(log),
        **coverage(log),
        "exchanges": exchanges(log),
        "stopped_by": outcome.stopped_by,
        "source": header.source,
        "device": "cuda" if "-cuda" in header.engine else "cpu",
        "scheduling": header.scheduling,
        "stolen_ms": outcome.stolen_ms,
        "engine": header.engine,
        "decoder": header.decoder,
        "recommended": checkpoint.header.verdicts,
        "ahead": list(lead.lines(header.specs)),
        "model": header.model,
        "model_sha": header.model_sha,
        "versions": header.versions,
        "certificate": header.certificate,
    }
