"""The summary of a run: scores over what was published, exactness, latencies and every count."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from neds_core.data import session as sessions
from runtime.core import trace
from runtime.live.loop import Result
from runtime.scoring.score import Truth, all_decoders, exactness, score

PACKAGES = ("neds-rt", "torch", "numpy", "numba", "pylsl", "pyzmq")


def versions() -> dict[str, str]:
    """Versions and machine that a measurement depends on."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def counts_difference(result: Result, rows: np.ndarray, phase: np.ndarray) -> int | None:
    """Sum of |binned - recorded| counts over the scored tokens, where the rig names the recording."""
    markers, path = result.streams.markers, result.config.score.recording
    if not path or markers is None:
        return None
    session = sessions.load(Path(path))
    if session.units.sha256 != result.checkpoint.header.unit_map_sha:
        return None
    log, total, matched = result.log, 0, False
    for row, at in zip(rows, phase, strict=True):
        first = markers.first_bin.get(int(log.segment[row]))
        if first is not None and 0 <= at < session.n_bins - first:  # off the grid, a segment fills one bin more
            matched = True
            total += int(np.abs(log.counts[row].astype(int) - session.counts[first + at]).sum())
    return total if matched else None


def truth(result: Result, rows: np.ndarray) -> Truth:
    """Behaviour and labels as they were received over LSL, on the tokens `rows`."""
    log, specs, markers = result.log, result.engine.layout.specs, result.streams.markers
    bin_ns = result.checkpoint.header.bin_ns
    traces = {name: inlet.at(log.t_end_ns[rows], bin_ns) for name, inlet in result.streams.behaviours.items()}
    told = markers.labels if markers else {}
    labels = {}
    for spec in specs:
        if spec.kind == "class":
            index: dict[object, int] = {name: i for i, name in enumerate(spec.classes)}
            labels[spec.name] = np.array(
                [index.get(told.get(int(s), {}).get(spec.name, ""), -1) for s in log.segment[rows]], np.int64
            )
    return Truth(traces, labels)


def scored_outputs(result: Result) -> dict[str, object]:
    """The part of the summary that decodes the log again: scores, exactness, and the counts' difference."""
    log, checkpoint, layout = result.log, result.checkpoint, result.engine.layout
    rows = np.flatnonzero(~log.idle[: log.n])
    empty = {"outputs": {}, "scored": 0, "streamed_vs_offline_max_abs": None, "counts_vs_recording_diff": None}
    if len(rows) == 0 or result.stopped_by == "signal":
        return empty
    found = all_decoders(checkpoint, log, rows)
    outputs, scored = score(checkpoint, layout, log, rows, found, truth(result, rows))
    own = found[result.config.engine.decoder]
    return {
        "outputs": outputs,
        "scored": scored,
        "streamed_vs_offline_max_abs": exactness(layout, log.values[rows], own, log.valid[rows]),
        "counts_vs_recording_diff": counts_difference(result, rows, log.clock[rows]),
    }


def build(result: Result) -> dict[str, object]:
    """The one JSON object of `neds-rt run --json`. A run stopped by a signal is not scored, so that it ends at once."""
    spikes = result.streams.spikes
    scores = scored_outputs(result)
    scored = scores.pop("scored")
    return {
        **scores,
        **{name: result.latency[name].summary_ms() for name in result.latency},
        "source_delay_ms": trace.percentiles(spikes.delays.kept()),
        "tokens": {**result.pipeline.tokens, "scored": scored},
        "deadline_misses": sum(result.misses.values()),
        "miss_causes": result.misses,
        "spikes": result.pipeline.binner.counters(),
        "lost_upstream": spikes.lost_upstream,
        "late_markers": result.pipeline.late_markers,
        "stopped_by": result.stopped_by,
        "source": result.source,
        "device": "cuda" if "-cuda" in result.engine.name else "cpu",
        "scheduling": result.scheduling,
        "stolen_ms": result.stolen_ms,
        "engine": result.engine.name,
        "decoder": result.config.engine.decoder,
        "model": result.checkpoint.header.name,
        "model_sha": result.checkpoint.sha,
        "versions": versions(),
    }
