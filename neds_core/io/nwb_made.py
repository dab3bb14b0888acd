"""A session, and the run that it is of, as pynwb's objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import msgspec
import numpy as np

from neds_core.data.session import BehaviourSpec, Session, UnitTable
from neds_core.io import nwb_notes
from neds_core.io.nwb_notes import LABEL, MOMENT, STANDS, UNKNOWN, Notes, Origin, Subject
from neds_core.io.of_run import OfRun, Series, Table

WHAT = "Spikes and behaviour on a common grid of bins, from which a decoder is calibrated (neds-rt)."
ANY_AGE = "P0D/"  # an interval of ISO 8601: born, and nothing more is known
EDGE = "last sample at or before each bin's right edge, NaN = not measured"
NO_UNIT = "n.a."


def made(pynwb: ModuleType, session: Session, origin: Origin, run: OfRun | None) -> Any:
    """The `NWBFile` of a checked session."""
    written = nwb_notes.written([*(spec.name for spec in session.specs), *session.moments])
    notes = Notes(
        nwb_notes.FORMAT, session.bin_ns, session.n_bins, session.specs, session.licence, session.citation, origin,
        written,
    )  # fmt: skip
    start = datetime.fromtimestamp(origin.start_utc_ns // 1_000_000_000, UTC)
    start = start.replace(microsecond=origin.start_utc_ns // 1000 % 1_000_000)
    unknown = "" if origin.start_known else "; when it began is not known, and its start time stands for nothing"
    file = pynwb.NWBFile(
        session_description=f"{session.name}: {len(session.segments)} segments, {len(session.units)} units{unknown}",
        identifier=f"{session.name}-{session.units.sha256[:12]}-{origin.start_utc_ns}",
        session_start_time=start, session_id=session.name, notes=msgspec.json.encode(notes).decode(),
        keywords=["spikes", "behavior", "closed loop"], experiment_description=WHAT,
        was_generated_by=[list(each) for each in origin.versions.items()] or None,
        subject=_subject(pynwb, origin.subject),
    )  # fmt: skip
    if session.events is None:
        _add_counts(pynwb, file, session)
    else:
        _add_units(pynwb, file, session)
    _add_trials(file, session, written)
    for begin, end in stretches(~session.valid).tolist():
        file.add_invalid_time_interval(begin * session.bin_ns * 1e-9, end * session.bin_ns * 1e-9)
    if traces := [spec for spec in session.specs if spec.kind == "continuous" or not by_trial(session, spec)]:
        module = file.create_processing_module(nwb_notes.BEHAVIOUR, "measured of the animal, one value a bin")
        for spec in traces:
            module.add(_trace(pynwb, spec, session, written.get(spec.name, spec.name)))
    if run is not None:
        _add_run(pynwb, file, run, session.bin_ns)
    return file


def stretches(which: np.ndarray) -> np.ndarray:
    """(K, 2) int64: first bin of each stretch of True in which (T,) bool, and the first one after it."""
    edges = np.diff(np.r_[0, which.astype(np.int8), 0])
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], 1)


def by_trial(session: Session, spec: BehaviourSpec) -> bool:
    """Whether the labels of its trials say all of a class: one in each, and none between them."""
    said = np.full(session.n_bins, -1, np.int64)
    for start, stop in session.segments:
        said[start:stop] = session.values[spec.name][start]
    return spec.kind == "class" and np.array_equal(said, session.values[spec.name])


def labels(session: Session, spec: BehaviourSpec) -> list[str] | None:
    """The label of each segment, '' = not known; None where one changes within a segment."""
    found: list[str] = []
    for start, stop in session.segments:
        values = np.unique(session.values[spec.name][start:stop])
        if len(values) > 1:
            return None
        found.append(spec.classes[values[0]] if values[0] >= 0 else UNKNOWN)
    return found


def _subject(pynwb: ModuleType, subject: Subject) -> Any:
    return pynwb.file.Subject(
        subject_id=subject.id or "unknown", species=subject.species or None, sex=subject.sex or "U",
        age=subject.age or ANY_AGE, description="of this session" if subject.id else "not named",
    )  # fmt: skip


def _add_units(pynwb: ModuleType, file: Any, session: Session) -> None:
    """Spike times of every unit; ids are the sorter's. Bins without a fault, or with a spike, were observed."""
    assert session.events is not None
    units, n_units = session.units, len(session.units)
    t_ns, unit = session.events
    order = np.argsort(unit, kind="stable")
    stops = np.searchsorted(unit[order], np.arange(n_units), side="right")
    observed = stretches(session.valid | session.counts.any(1)) * session.bin_ns * 1e-9
    columns = [
        *_ragged(pynwb, "spike_times", _packed(pynwb, t_ns[order] * 1e-9), stops, "times of its spikes, in s"),
        *_ragged(
            pynwb, "obs_intervals", np.tile(observed, (n_units, 1)), np.arange(1, n_units + 1) * len(observed),
            "when it was observed, in s",
        ),
        *_about_units(pynwb, units),
    ]  # fmt: skip
    about = "spikes of every unit of the stream, in the order of their rows in it"
    file.units = pynwb.misc.Units(name="units", description=about, columns=columns, id=units.ids, resolution=1e-9)


def _about_units(pynwb: ModuleType, units: UnitTable) -> list[Any]:
    columns = [_column(pynwb, "region", units.region, "brain region, ? = not known")]
    if not np.isnan(units.depth_um).all():
        columns.append(_column(pynwb, "depth_um", units.depth_um, "depth in micrometres, NaN = not known"))
    return columns


def _ragged(pynwb: ModuleType, name: str, data: Any, stops: np.ndarray, about: str) -> list[Any]:
    """Rows of any length: where each ends in the data of all."""
    column = pynwb.core.VectorData(name=name, description=about, data=data)
    return [pynwb.core.VectorIndex(name=f"{name}_index", data=stops, target=column), column]


def _packed(pynwb: ModuleType, values: np.ndarray) -> Any:
    return pynwb.H5DataIO(values, compression="gzip")


def _add_counts(pynwb: ModuleType, file: Any, session: Session) -> None:
    """Counts and the table of their units, where nobody knows when in its bin a spike was."""
    units, rows = session.units, np.arange(len(session.units))
    module = file.create_processing_module(nwb_notes.SPIKES, "spikes a bin and unit; times of spikes are not known")
    about = "the units, in the order of the columns of spike_counts"
    row = _column(pynwb, "row", rows, "column of spike_counts, and row of the unit on the wire")
    columns = [row, *_about_units(pynwb, units)]
    module.add(pynwb.core.DynamicTable(name=nwb_notes.UNITS, description=about, columns=columns, id=units.ids))
    counts = Series(nwb_notes.COUNTS, session.counts, "spikes", "spikes in each bin, one column a unit")
    module.add(_series(pynwb, counts, session.bin_ns))


def _add_trials(file: Any, session: Session, written: Mapping[str, str]) -> None:
    """written: names as the file has them, where it has another."""

    def column(of: str, name: str) -> str:
        return f"{of}{written.get(name, name)}"

    given = {spec.name: labels(session, spec) for spec in session.specs if spec.kind == "class"}
    known = {name: each for name, each in given.items() if each is not None}
    file.add_trial_column("segment_id", "the task's number of the trial")
    for name in known:
        classes = ", ".join(session.spec(name).classes)
        file.add_trial_column(column(LABEL, name), f"one of {classes}; empty = not known")
    for name in session.moments:
        file.add_trial_column(column(MOMENT, name), "when in the trial, ms from its start, NaN = it did not happen")
    for name in session.starts:
        unit = session.spec(name).unit or NO_UNIT
        file.add_trial_column(column(STANDS, name), f"{name} before the trial's first bin, in {unit}, NaN = not known")
    for s, (start, stop) in enumerate(session.segments.tolist()):
        row: dict[str, Any] = {column(MOMENT, name): float(ms[s]) for name, ms in session.moments.items()}
        row |= {column(STANDS, name): float(values[s]) for name, values in session.starts.items()}
        row |= {column(LABEL, name): each[s] for name, each in known.items()}
        seconds = (start * session.bin_ns * 1e-9, stop * session.bin_ns * 1e-9)
        file.add_trial(*seconds, segment_id=int(session.segment_ids[s]), **row)


def _trace(pynwb: ModuleType, spec: BehaviourSpec, session: Session, name: str) -> Any:
    """One value a bin: the last sample at or before its right edge. name: in the file."""
    said = (("sign", spec.sign), ("filter", spec.filter), ("labels", spec.labels), ("note", spec.labels_note))
    words = [f"{key}: {value}" for key, value in said if value]
    words += [f"delay of the filter: {spec.filter_delay_ms:g} ms"] if spec.filter_delay_ms else []
    words += [f"holds what happened up to {spec.future_ms:g} ms later"] if spec.future_ms else []
    classes = ", ".join(f"{k} {name}" for k, name in enumerate(spec.classes))
    about = f"{spec.name}: {f'class at each bin, -1 = not known; {classes}' if classes else EDGE}"
    series = Series(name, session.values[spec.name], spec.unit, about)
    return _series(pynwb, series, session.bin_ns, "; ".join(words) or "no comments")


def _series(pynwb: ModuleType, series: Series, bin_ns: int, comments: str = "no comments") -> Any:
    return pynwb.TimeSeries(
        name=series.name, data=_packed(pynwb, series.values), unit=series.unit or NO_UNIT,
        starting_time=bin_ns * 1e-9, rate=1e9 / bin_ns, continuity="continuous", description=series.about,
        comments=comments,
    )  # fmt: skip


def _add_run(pynwb: ModuleType, file: Any, run: OfRun, bin_ns: int) -> None:
    """What a run decoded, what it received of the animal, and how it went."""
    written = nwb_notes.written(each.name for each in (*run.decoded, *run.measured))
    if run.decoded:
        module = file.create_processing_module(nwb_notes.DECODED, "decoded live from spikes alone, one value a bin")
        for series in run.decoded:
            module.add(_series(pynwb, replace(series, name=written.get(series.name, series.name)), bin_ns))
    for each in run.measured:
        file.add_acquisition(
            pynwb.TimeSeries(
                name=written.get(each.name, each.name), data=_packed(pynwb, each.values), unit=each.unit or NO_UNIT,
                timestamps=_packed(pynwb, each.t_ns * 1e-9), continuity="continuous", description=each.about,
            )
        )  # fmt: skip
    columns = [_column(pynwb, each.name, each.values, each.about) for each in run.bins.columns]
    file.add_time_intervals(pynwb.epoch.TimeIntervals(name=run.bins.name, description=run.bins.about, columns=columns))
    if tables := [table for table in run.tables if len(table.columns[0].values)]:
        module = file.create_processing_module(nwb_notes.RUN, "markers that came, and what happened")
        for table in tables:
            module.add(_table(pynwb, table))


def _table(pynwb: ModuleType, table: Table) -> Any:
    columns = [_column(pynwb, each.name, each.values, each.about) for each in table.columns]
    return pynwb.core.DynamicTable(name=table.name, description=table.about, columns=columns)


def _column(pynwb: ModuleType, name: str, values: np.ndarray, about: str) -> Any:
    data = values.tolist() if values.dtype.kind == "U" else values
    return pynwb.core.VectorData(name=name, description=about, data=data)
