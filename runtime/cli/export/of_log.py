"""The log of a run as a session, and what the run adds to it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from neds_core.data.session import BehaviourSpec, Session, UnitTable
from neds_core.errors import DataError
from neds_core.io.importing.outputs import plain
from neds_core.io.of_run import Column, OfRun, Samples, Series, Table
from runtime.core.misses import CAUSES
from runtime.core.run_log import STATES, RunLog
from runtime.core.values import NO_TIME
from runtime.io.unit_maps import of_rows
from runtime.wire import Flag

if TYPE_CHECKING:
    from runtime.core.values import Mark

FLAGS = ", ".join(f"{flag.value} {flag.name}" for flag in Flag)


@dataclass(frozen=True, slots=True)
class Taken:
    """A session with all that is known of it. run: what decoded while it was received, None = nothing. start_ns: of
    bin 0, ns since 1970, None = not known. more: anything else that is worth keeping. notes: a sentence each."""

    session: Session
    run: OfRun | None = None
    start_ns: int | None = None
    versions: dict[str, str] | None = None
    more: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def taken(log: RunLog, path: Path, checkpoint: Path | None, *, markers: bool) -> Taken:
    """A log that was read from `path`. checkpoint: of the run, for its units where the log does not name them.

    markers: segments are the trials of the markers, if the run had any; else each unbroken stretch is one. Raises
    `DataError` where there is none.
    """
    from calibration.collecting import session as sessions

    header = log.header
    if not log.n:
        raise DataError(f"{path} has no bin; give the log of a run that closed some")
    marked = markers and bool(log.marks)
    one = copy.copy(log)
    one.header = msgspec.structs.replace(header, specs=_measurable(log))
    try:
        made = sessions.make([one], _units(log, path, checkpoint), path.stem, marked=marked)
    except DataError as error:
        hint = "; --no-markers exports it without trials" if marked else ""
        raise DataError(f"{path}: {error}{hint}") from None
    grid_ns = int(log.t_end_ns[0]) - header.bin_ns
    more = {
        "run": {k: v for k, v in msgspec.to_builtins(header).items() if k not in ("units", "versions")},
        "outcome": msgspec.to_builtins(log.outcome),
        "bin_0_lsl_ns": grid_ns,
    }
    cut = (f"{made.cut} segments are incomplete, and are no trials",) if made.cut else ()
    start_ns = header.utc_ns + grid_ns if header.utc_ns else None
    run = _run(log, made.session.n_bins, grid_ns)
    return Taken(made.session, run, start_ns, header.versions, more, (*cut, *made.notes))


def _measurable(log: RunLog) -> tuple[BehaviourSpec, ...]:
    """What may have been measured: the outputs, without their leads, and behaviours that are none."""
    came = {name for name, trace in log.behaviours.items() if len(trace.t_ns)}
    specs = [msgspec.structs.replace(spec, lead_ms=0.0) for spec in log.header.specs]
    halves = {spec.group for spec in specs if spec.angle and spec.name not in came}  # of an angle: the other is a trace
    found = [msgspec.structs.replace(s, group="", angle="") if s.group in halves else s for s in specs]
    known = {spec.name for spec in specs}
    return (*found, *(BehaviourSpec(name, "continuous") for name in log.behaviours if name not in known))


def _units(log: RunLog, path: Path, checkpoint: Path | None) -> UnitTable:
    """The units of the log, or of the checkpoint that decoded it. Raises `DataError` where neither is known."""
    from neds_core import checkpoint as checkpoints

    if log.header.units:
        return of_rows(log.header.units)
    place = checkpoint or Path(log.header.checkpoint)
    if not place.is_file():
        raise DataError(
            f"{path} does not name its units, and {place}, which decoded this run, is not there; "
            "give it with --checkpoint"
        )
    units = checkpoints.load(place).units
    if units.sha256 != log.header.unit_map_sha:
        raise DataError(
            f"{place} has other units ({units.sha256[:12]}) than {path} ({log.header.unit_map_sha[:12]}); "
            "give the checkpoint that decoded this run with --checkpoint"
        )
    return units


def _run(log: RunLog, n: int, grid_ns: int) -> OfRun:
    """The first n bins of a log."""
    measured = []
    for name, trace in log.behaviours.items():
        if len(trace.t_ns):
            t_ns, values = np.array(trace.t_ns), np.array(trace.values)
            order = np.argsort(t_ns, kind="stable")
            about = f"samples of {name} as they were received, on this machine's LSL clock"
            unit = next((spec.unit for spec in log.header.specs if spec.name == name), "")
            measured.append(Samples(f"{name}_received", t_ns[order] - grid_ns, values[order], unit, about))
    marks = sorted(log.marks, key=lambda mark: mark.t_ns)
    tables = (_markers(marks, grid_ns), _events(log, grid_ns))
    return OfRun(tuple(_decoded(log, n)), tuple(measured), _bins(log, n), tables)


def _decoded(log: RunLog, n: int) -> Iterator[Series]:
    """Values, probabilities and their sd as they were logged, those that nobody saw (superseded) too."""
    at, names = 0, {spec.name for spec in log.header.specs}
    for spec in log.header.specs if log.values.shape[1] else ():
        wide = 1 if spec.kind == "continuous" else len(spec.classes)
        values, sd = (each[:n, at : at + wide] for each in (log.values, log.sd))
        at += wide
        later = f" of {spec.lead_ms:g} ms later" if spec.lead_ms else ""
        if spec.kind == "continuous":
            yield Series(spec.name, values[:, 0], spec.unit, f"decoded {spec.name}{later}, NaN = null")
            if np.isfinite(sd).any():
                about = f"how far {spec.name} may be from what is measured, one sd, NaN = not known"
                called = f"{spec.name}_sd"
                while called in names:
                    called += "_"
                names.add(called)
                yield Series(called, sd[:, 0], spec.unit, about)
        else:
            about = f"probability of {', '.join(spec.classes)}, one column each, NaN = null"
            yield Series(spec.name, values, "1", about, spec.classes)


def _bins(log: RunLog, n: int) -> Table:
    """One row a bin: where it lies, what became of it, and how long that took."""
    bin_s, sent = log.header.bin_ns * 1e-9, log.sent_ns[:n] > 0
    newest = log.newest_ns[:n]
    ages = np.where(sent & (newest != NO_TIME), log.sent_ns[:n] - newest, 0)
    turn = np.searchsorted([each.token for each in log.outcome.exchanges], np.arange(n), side="right")
    words = np.array([str(state) for state in STATES], np.str_)
    causes = np.array(["", *CAUSES], np.str_)
    columns = (
        Column("start_time", np.arange(n) * bin_s, "left edge, in s"),
        Column("stop_time", np.arange(1, n + 1) * bin_s, "right edge, in s"),
        Column("state", words[log.state[:n]], "state of the run (docs/wire.md of neds-rt)"),
        Column("flags", log.flags[:n], f"sum of {FLAGS}"),
        Column("valid", log.valid[:n], "whether it had live data inside a segment"),
        Column("reset", log.reset[:n], "whether the decoder started cold with it"),
        Column("idle", log.idle[:n], "whether it lies between segments, where nothing is decoded"),
        Column("segment", log.segment[:n], "number of its segment, -1 = none"),
        Column("clock", log.clock[:n], "bins since its segment began, -1 = none"),
        Column("published", sent, "whether a message was sent of it"),
        Column("in_time", log.in_time[:n], f"published with values, within {log.header.budget_ms:g} ms of its edge"),
        Column("latency_ms", _ms(log.sent_ns[:n] - log.t_end_ns[:n], sent), "right edge to sent, NaN = not sent"),
        Column("wait_ms", _ms(log.wait_ns[:n], sent), "right edge to the loop's wake-up, NaN = not sent"),
        Column("infer_ms", _ms(log.infer_ns[:n], log.infer_ns[:n] > 0), "step of the decoder, NaN = none"),
        Column("age_ms", _ms(ages, ages > 0), "newest spike to sent, NaN = not known"),
        Column("miss", causes[log.miss[:n]], "why it was late, empty = it was not"),
        Column("decoder", turn, "which decoder: 0 = the first, k = the k-th exchange in the outcome (notes)"),
    )
    return Table("bins", "bins of the run, one a row", columns)


def _ms(ns: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.where(known, ns * 1e-6, np.nan)


def _markers(marks: list[Mark], grid_ns: int) -> Table:
    """Markers with their labels, as text, and where outputs stood."""
    names = list(dict.fromkeys(name for mark in marks for name in mark.labels))
    stands = list(dict.fromkeys(name for mark in marks for name in mark.stands))
    columns = [
        Column("time", np.array([mark.t_ns - grid_ns for mark in marks]) * 1e-9, "stamp, in s"),
        Column("event", np.array([mark.event for mark in marks], np.str_), "segment_start or segment_end"),
        Column("segment", np.array([mark.segment for mark in marks], np.int64), "number of the segment"),
    ]
    for k, name in enumerate(names):
        said = [mark.labels.get(name) for mark in marks]
        values = np.array(["" if each is None else str(each) for each in said], np.str_)
        columns.append(Column(_called("label", name, k, names), values, f"label {plain(name)}, empty = not said"))
    for k, name in enumerate(stands):
        values = np.array([mark.stands.get(name, np.nan) for mark in marks])
        columns.append(Column(_called("stands", name, k, stands), values, f"where {plain(name)} stood, NaN = not said"))
    return Table("markers", "markers of the task, as they came", tuple(columns))


def _called(what: str, name: str, k: int, names: list[str]) -> str:
    """A column's name: of one that is alike once it is plain, its place too."""
    alike = [plain(each) for each in names].count(plain(name)) > 1
    return f"{what}_{plain(name)}{f'_{k}' if alike else ''}"


def _events(log: RunLog, grid_ns: int) -> Table:
    columns = (
        Column("time", np.array([event.t_ns - grid_ns for event in log.events]) * 1e-9, "when, in s"),
        Column("event", np.array([event.name for event in log.events], np.str_), "what happened"),
        Column("detail", np.array([event.detail for event in log.events], np.str_), "more of it, in words"),
    )
    return Table("events", "changes of state and what else happened in the run", columns)
