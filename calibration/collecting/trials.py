"""Trials of a run from its markers: where each lies on the grid of bins, and what the task says of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np

from neds_core.data.session import BehaviourSpec
from runtime.core.run_log import RunLog
from runtime.core.values import FAR_S, Label, Mark

STIMULATED = "stimulated"  # the label of a trial in which the brain was stimulated
NOT_SO = ("", "0", "false", "no", "none")  # texts of it
MARKERS_LOST = "markers_lost"  # the event with which a source ends the open segment itself


@dataclass(frozen=True, slots=True)
class Trial:
    """A segment that its own marker has ended: rows [start, stop) of the log."""

    number: int
    start: int
    stop: int
    labels: dict[str, Label]
    stands: dict[str, float] = field(default_factory=dict)  # before its first row, where its marker says so

    @property
    def stimulated(self) -> bool:
        """Whether the task says that it stimulated: what the spikes then say of behaviour is not what they say else."""
        label = self.labels.get(STIMULATED)
        return label.strip().lower() not in NOT_SO if isinstance(label, str) else bool(label)

    def classes(self, specs: Iterable[BehaviourSpec]) -> dict[str, int]:
        """The class of each class output that is labelled with one of its classes."""
        found = ((s.name, s.classes.index(str(self.labels[s.name]))) for s in specs if self.fits(s))
        return dict(found)

    def fits(self, spec: BehaviourSpec) -> bool:
        """Whether the trial's label is a class of this output. Only texts are: 1 is not "1", as in a live run."""
        label = self.labels.get(spec.name)
        return spec.kind == "class" and isinstance(label, str) and label in spec.classes


@dataclass(slots=True)
class Rows:
    """The bins of a run as far as trials need them: start of the first in ns, and (n,) bool and int64: between
    segments, and the number of the segment."""

    grid_ns: int
    bin_ns: int
    idle: np.ndarray
    segment: np.ndarray

    @classmethod
    def of(cls, log: RunLog) -> Rows:
        """Of a whole log."""
        n, bin_ns = log.n, log.header.bin_ns
        grid_ns = int(log.t_end_ns[0]) - bin_ns if n else 0
        return cls(grid_ns, bin_ns, log.idle[:n], log.segment[:n])

    def taken(self, number: int, start: int, stop: int) -> bool:
        """Whether the run took a segment that it may have heard of too late; not so those of another clock."""
        upto = stop + int(FAR_S * 1e9) // self.bin_ns
        return bool((~self.idle[start:upto] & (self.segment[start:upto] == number)).any())


@dataclass(slots=True)
class Found:
    """trials in time order, and how many segments have no end of their own, or lie partly outside the log."""

    trials: list[Trial] = field(default_factory=list)
    cut: int = 0


def find(marks: Iterable[Mark], rows: Rows, lost_ns: Collection[int] = ()) -> Found:
    """The complete segments. By the stamps of their markers, so that a marker that came late moves nothing.

    lost_ns: stamps of ends that the run made up because the sender of markers was gone.
    """
    found, begun = Found(), None
    for mark in sorted(marks):
        if mark.event == "segment_start":
            if begun is not None and mark == begun:
                continue
            found.cut += begun is not None
            begun = mark
        elif begun is not None:
            trial = None
            if mark.segment == begun.segment and mark.t_ns not in lost_ns:
                trial = _trial(begun, mark, rows, found.trials[-1].stop if found.trials else 0)
            found.cut += trial is None
            found.trials += [] if trial is None else [trial]
            begun = None
        elif found.trials and found.trials[-1].number == mark.segment:  # once more: it may bring labels
            found.trials[-1].labels.update(mark.labels)
    found.cut += begun is not None
    return found


def _trial(begin: Mark, end: Mark, rows: Rows, free: int) -> Trial | None:
    """Between two markers; free: the first row after the trial before. None where the log does not hold it whole."""
    first = (begin.t_ns - rows.grid_ns) // rows.bin_ns
    start, stop = max(first, free), (end.t_ns - rows.grid_ns) // rows.bin_ns + 1
    inside = first >= 0 and start < stop <= len(rows.idle)
    if not inside or not rows.taken(begin.segment, start, stop):
        return None
    stands = begin.stands if start == first else {}
    return Trial(begin.segment, start, stop, {**begin.labels, **end.labels}, stands)


def of_log(log: RunLog) -> Found:
    """The complete segments of a log."""
    return find(log.marks, Rows.of(log), {e.t_ns for e in log.events if e.name == MARKERS_LOST})
