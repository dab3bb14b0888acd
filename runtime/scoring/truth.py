"""What was measured while a run decoded: as it was received, or as the recording has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neds_core.data import session_file
from neds_core.data.session import Session
from runtime.core.run_log import RunLog
from runtime.core.values import Label


@dataclass(frozen=True, slots=True)
class Truth:
    """What was measured on the n decoded tokens: traces name -> (n,) float64, NaN = unknown;
    labels name -> (n,) int64 class of the token's segment, -1 = unknown; moments name -> (n,) float ms from the start
    of the token's segment, NaN = it did not happen there."""

    traces: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    moments: dict[str, np.ndarray] = field(default_factory=dict)


def received(log: RunLog, rows: np.ndarray) -> Truth:
    """Behaviour and labels as they came in during the run, on the tokens `rows`."""
    bin_ns = log.header.bin_ns
    traces = {name: trace.at(log.t_end_ns[rows], bin_ns) for name, trace in log.behaviours.items()}
    given: dict[int, dict[str, Label]] = {}
    for mark in log.marks:
        given.setdefault(mark.segment, {}).update(mark.labels)
    labels = {}
    for spec in log.header.specs:
        if spec.kind == "class":
            index: dict[object, int] = {name: i for i, name in enumerate(spec.classes)}
            found = [index.get(given.get(int(s), {}).get(spec.name, ""), -1) for s in log.segment[rows]]
            labels[spec.name] = np.array(found, np.int64)
    return Truth(traces, labels)


def bins(session: Session, log: RunLog, rows: np.ndarray) -> np.ndarray:
    """(n,) the recording's bin of each of the tokens `rows` of a log."""
    first = dict(zip(session.segment_ids.tolist(), session.segments[:, 0].tolist(), strict=True))
    return np.array([first[int(log.segment[r])] + int(log.clock[r]) for r in rows])


def recorded(session: Session, log: RunLog, rows: np.ndarray) -> Truth:
    """Measured behaviour, labels and moments of the recording on the tokens `rows` of a log."""
    at = bins(session, log, rows)
    traces = {s.name: session.values[s.name][at].astype(np.float64) for s in session.specs if s.kind == "continuous"}
    labels = {s.name: session.values[s.name][at] for s in session.specs if s.kind == "class"}
    segment = session.segment_of(at)
    return Truth(traces, labels, {name: ms[segment] for name, ms in session.moments.items()})


def counts_difference(log: RunLog, rows: np.ndarray) -> int | None:
    """Sum of |binned - recorded| counts over the tokens `rows`, where the run names the recording that was played.

    None where there is nothing to compare with: no recording, one that has gone, or one of other units.
    """
    first_bin = {m.segment: m.first_bin for m in log.marks if m.first_bin is not None}
    if not log.header.recording or not first_bin or not Path(log.header.recording).is_file():
        return None
    session = session_file.load(Path(log.header.recording))
    if session.units.sha256 != log.header.unit_map_sha:
        return None
    total, matched = 0, False
    for row, at in zip(rows, log.clock[rows], strict=True):
        first = first_bin.get(int(log.segment[row]))
        if first is not None and 0 <= at < session.n_bins - first:  # off the grid, a segment fills one bin more
            matched = True
            total += int(np.abs(log.counts[row].astype(int) - session.counts[first + at]).sum())
    return total if matched else None
