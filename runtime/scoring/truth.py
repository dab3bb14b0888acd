"""What was measured while a run decoded: as it was received, or as the recording has it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from neds_core.data import lead, session_file
from neds_core.data.session import Session
from runtime.core.run_log import RunLog
from runtime.core.timeline import INSIDE_NS
from runtime.core.values import Label, Mark
from runtime.core.words import LONGEST, plain


@dataclass(frozen=True, slots=True)
class Truth:
    """What was measured on the n decoded tokens: traces name -> (n,) float64, NaN = unknown, of an output with a lead
    so much later in the same segment;
    labels name -> (n,) int64 class of the token's segment, -1 = unknown; moments name -> (n,) float ms from the start
    of the token's segment, NaN = it did not happen there; strange name -> a label received that is no class."""

    traces: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    moments: dict[str, np.ndarray] = field(default_factory=dict)
    strange: dict[str, str] = field(default_factory=dict)


class CountsDifference(NamedTuple):
    """spikes: sum of |binned - recorded| counts; why: what explains them, '' where there are none."""

    spikes: int
    why: str


def occurrences(log: RunLog, rows: np.ndarray) -> np.ndarray:
    """(n,) int64: which segment of the run each of the tokens `rows` lies in, counted from 0.

    Each segment_start begins one: a task that numbers its trials from 1 in every block repeats the numbers.
    """
    if len(rows) == 0:
        return np.zeros(0, np.int64)
    segment, clock = log.segment[rows], log.clock[rows]
    begins = (segment[1:] != segment[:-1]) | ((clock[1:] >= 0) & (clock[1:] <= clock[:-1]))
    return np.cumsum(np.r_[0, begins]).astype(np.int64)


def _placed(log: RunLog, rows: np.ndarray, occurrence: np.ndarray) -> Iterator[tuple[Mark, int, int]]:
    """Each mark with the occurrence that it is about, and the start of that one's first bin in ns."""
    first = np.flatnonzero(np.r_[True, np.diff(occurrence) != 0]) if len(occurrence) else np.zeros(0, np.int64)
    begun: dict[int, list[tuple[int, int]]] = {}
    for k, row in enumerate(rows[first].tolist()):
        start_ns = int(log.t_end_ns[row]) - (max(0, int(log.clock[row])) + 1) * log.header.bin_ns
        begun.setdefault(int(log.segment[row]), []).append((start_ns, k))
    for mark in sorted(log.marks, key=lambda mark: mark.t_ns):
        known = begun.get(mark.segment, [])
        at = bisect_right(known, (mark.t_ns, len(first)))
        if known:
            start_ns, k = known[max(0, at - 1)]
            yield mark, k, start_ns


def received(log: RunLog, rows: np.ndarray) -> Truth:
    """Behaviour and labels as they came in during the run, on the tokens `rows`."""
    bin_ns, leads = log.header.bin_ns, lead.of(log.header.specs)
    occurrence = occurrences(log, rows)
    traces = {
        name: trace.at(_later(log.t_end_ns[rows], occurrence, leads.get(name, 0.0)), bin_ns)
        for name, trace in log.behaviours.items()
    }
    given: dict[int, dict[str, Label]] = {}
    for mark, k, _ in _placed(log, rows, occurrence):
        given.setdefault(k, {}).update(mark.labels)
    labels, strange = {}, {}
    for spec in log.header.specs:
        if spec.kind == "class":
            index: dict[object, int] = {name: i for i, name in enumerate(spec.classes)}
            found = [index.get(given.get(k, {}).get(spec.name), -1) for k in occurrence.tolist()]
            labels[spec.name] = np.array(found, np.int64)
            came = {repr(each[spec.name]) for each in given.values() if each.get(spec.name) is not None}
            if more := sorted(came - {repr(name) for name in spec.classes}):
                strange[spec.name] = plain(more[0], LONGEST)
    return Truth(traces, labels, strange=strange)


def _later(t_end_ns: np.ndarray, occurrence: np.ndarray, lead_ms: float) -> np.ndarray:
    """(n,) int64: the right edges t_end_ns (n,), in time order, a lead later; before all samples where that is beyond
    the segment."""
    if not lead_ms:
        return t_end_ns
    at = t_end_ns + round(lead_ms * 1e6)
    last = t_end_ns[np.searchsorted(occurrence, occurrence, side="right") - 1]
    return np.where(at <= last, at, np.iinfo(np.int64).min // 2)


def bins(session: Session, log: RunLog, rows: np.ndarray) -> np.ndarray:
    """(n,) the recording's bin of each of the tokens `rows` of a log."""
    first = dict(zip(session.segment_ids.tolist(), session.segments[:, 0].tolist(), strict=True))
    occurrence = occurrences(log, rows)
    told = {k: mark.first_bin for mark, k, _ in _placed(log, rows, occurrence) if mark.first_bin is not None}
    begins = [told.get(k, first.get(int(log.segment[r]), 0)) for k, r in zip(occurrence.tolist(), rows, strict=True)]
    return np.array(begins, np.int64) + log.clock[rows]


def recorded(session: Session, log: RunLog, rows: np.ndarray) -> Truth:
    """Measured behaviour, labels and moments of the recording on the tokens `rows` of a log."""
    at = bins(session, log, rows)
    session = lead.ahead(session, lead.of(log.header.specs))
    traces = {s.name: session.values[s.name][at].astype(np.float64) for s in session.specs if s.kind == "continuous"}
    labels = {s.name: session.values[s.name][at] for s in session.specs if s.kind == "class"}
    segment = session.segment_of(at)
    return Truth(traces, labels, {name: ms[segment] for name, ms in session.moments.items()})


def counts_difference(log: RunLog, rows: np.ndarray) -> CountsDifference | None:
    """Counts of the tokens `rows` against the recording that was played, where the run names it.

    None where there is nothing to compare with: no recording, one that has gone, or one of other units.
    """
    occurrence = occurrences(log, rows)
    starts = [(m, k, ns) for m, k, ns in _placed(log, rows, occurrence) if m.first_bin is not None]
    first_bin = {k: m.first_bin for m, k, _ in starts}
    if not log.header.recording or not first_bin or not Path(log.header.recording).is_file():
        return None
    session = session_file.load(Path(log.header.recording))
    if session.units.sha256 != log.header.unit_map_sha:
        return None
    total, clipped, matched = 0, 0, False
    most = np.iinfo(session.counts.dtype).max if session.counts.dtype.kind in "iu" else 0
    for k, row, at in zip(occurrence.tolist(), rows, log.clock[rows], strict=True):
        first = first_bin.get(k)
        if first is not None and 0 <= at < session.n_bins - first:  # off the grid, a segment fills one bin more
            matched = True
            counts, there = log.counts[row].astype(int), session.counts[first + at].astype(int)
            total += int(np.abs(counts - there).sum())
            clipped += int((counts - there)[(there == most) & (counts > most)].sum())
    off_grid = any(_off_grid(mark, start_ns, log.header.bin_ns) for mark, _, start_ns in starts)
    return CountsDifference(total, _why(log, clipped, off_grid) if total else "") if matched else None


def _off_grid(mark: Mark, start_ns: int, bin_ns: int) -> bool:
    """Whether a segment was played shifted against the recording's bins."""
    inside_ns = (mark.t_ns - INSIDE_NS - start_ns) % bin_ns
    return min(inside_ns, bin_ns - inside_ns) > INSIDE_NS // 2


def _why(log: RunLog, clipped: int, off_grid: bool) -> str:
    """What explains that counts differ."""
    counters = log.outcome.counters
    causes = ("late", "lost_upstream", "dropped_backlog", "quarantined", "out_of_range", "resent")
    found = [
        f"{counters[f'spikes_{name}']} {name.replace('_', ' ')}" for name in causes if counters.get(f"spikes_{name}")
    ]
    if clipped:
        found.append(f"{clipped} clipped in the recording")
    if off_grid:
        found.append("segments were played off the recording's grid")
    return ", ".join(found) or "no counter explains them"
