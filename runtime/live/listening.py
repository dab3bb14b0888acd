"""Streams heard for a while as a run would take them in: its binner, its rules, its readers; nothing is published."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from runtime.core.pipeline import Pipeline
from runtime.core.state import State
from runtime.core.values import SENT_AGAIN, Mark
from runtime.io.lsl_clock import now_ns
from runtime.io.streams import Streams
from runtime.wire import Flag

POLL_S = 0.002  # how far apart markers and behaviours are looked at: the resolution of their delays
SETTLE_S = 0.3  # spikes stamped before the first bin are not late, as they come
MOST_FOREIGN = 1000


@dataclass(slots=True)
class Heard:
    """fired (U,): spikes of each unit; foreign: unit numbers outside the map -> spikes; counters: of the binner after
    the first moment; fault: why a run would have stopped decoding, '' = it would not; labels: name -> labels given;
    values: of each behaviour."""

    fired: np.ndarray
    foreign: dict[int, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    coarse: bool = False
    closed: int = 0  # bins
    unsaid: int = 0  # of them those that closed by the clock, before a keep-alive said that they were complete
    fault: str = ""
    starts: int = 0
    astray: int = 0  # marks that a run would leave out: stamped by another clock
    labels: dict[str, set[str]] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)


def listen(streams: Streams, pipeline: Pipeline, seconds: float) -> Heard:
    """Take in every stream for so long."""
    heard = Heard(np.zeros(pipeline.binner.n_units, np.int64), values={name: [] for name in streams.behaviours})
    begun = time.monotonic()
    before: dict[str, int] = {}
    pipeline.binner.start(now_ns())
    while (passed := time.monotonic() - begun) < seconds:
        if not before and passed >= min(SETTLE_S, seconds / 2):
            before = pipeline.binner.totals()
        spikes = streams.spikes.pull(POLL_S)
        now = now_ns()
        marks = streams.markers.pull() if streams.markers is not None else []
        _marks(heard, marks)
        _units(heard, spikes["unit"][spikes["unit"] != SENT_AGAIN])
        for decoded in pipeline.take(spikes, streams.spikes.keep_alive_ns, marks, now):
            heard.coarse |= bool(decoded.flags & Flag.COARSE_STAMPS)
            heard.closed += bool(before)
            heard.unsaid += bool(before) and pipeline.binner.complete_ns < decoded.token.t_end_ns
        if before and pipeline.health is not None and pipeline.health.state is State.FAULT:
            heard.fault = pipeline.health.reason
        for name, inlet in streams.behaviours.items():
            heard.values[name] += [value for _, value in inlet.pull()]
    for name, shown in streams.markers.odd_labels.items() if streams.markers is not None else ():
        heard.labels.setdefault(name, set()).add(shown)
    heard.astray = pipeline.astray_markers
    heard.counters = {name: n - before.get(name, 0) for name, n in pipeline.binner.totals().items()}
    return heard


def _marks(heard: Heard, marks: list[Mark]) -> None:
    for mark in marks:
        heard.starts += mark.event == "segment_start"
        for name, label in mark.labels.items():
            heard.labels.setdefault(name, set()).add(str(label))


def _units(heard: Heard, unit: np.ndarray) -> None:
    """Count spikes of each unit, inside the map and outside."""
    known = (unit >= 0) & (unit < len(heard.fired))
    heard.fired += np.bincount(unit[known], minlength=len(heard.fired))
    if known.all():
        return
    for number, n in zip(*np.unique(unit[~known], return_counts=True), strict=True):
        if len(heard.foreign) < MOST_FOREIGN or int(number) in heard.foreign:
            heard.foreign[int(number)] = heard.foreign.get(int(number), 0) + int(n)
