"""Sessions as Neurodata Without Borders (NWB 2), for other tools, and back.

Units hold spike times, region and depth; `trials` start, stop and label of every segment; the processing module
`behavior` each trace on the grid of bins; `invalid_times` the bins with a fault. Times are seconds from the start of
bin 0, which is the session's start. What NWB has no place for (bin width, what a behaviour is, where the session is
from) stands in `notes` as JSON.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from neds_core.data.check import check, check_width
from neds_core.data.session import BehaviourSpec, Session, UnitTable, bin_events
from neds_core.errors import ConfigError, DataError
from neds_core.files import whole

FORMAT = 1
MOMENT = "moment_"  # of columns of trials: ms from the trial's start
LABEL = "label_"
STANDS = "stands_"  # where a trace stood when the trial began
UNKNOWN = ""  # the label of a trial without one
MODULE = "behavior"
WHAT = "Spikes and behaviour on a common grid of bins, from which a decoder is calibrated (neds-rt)."
ANY_AGE = "P0D/"  # an interval of ISO 8601: born, and nothing more is known
AGE = re.compile(r"P(?=\d)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?")
SEXES = ("M", "F", "O", "U")


class Subject(Struct, frozen=True):
    """The animal, as NWB wants it: species in Latin or as a link to NCBI, sex one of `SEXES`, age as ISO 8601 (P90D).
    '' = not known."""

    id: str = ""
    species: str = ""
    sex: str = ""
    age: str = ""

    def refuse(self) -> None:
        """Raise `ConfigError` for a sex or an age that NWB does not know."""
        if self.sex and self.sex not in SEXES:
            raise ConfigError(f"--sex {self.sex!r}: NWB knows {', '.join(SEXES)}; leave it out where not known")
        if self.age and not AGE.fullmatch(self.age):
            raise ConfigError(f"--age {self.age!r}: give a time as ISO 8601 writes it, such as P90D or P12W")


class Origin(Struct, frozen=True):
    """Where a session is from. start_utc_ns: of bin 0, ns since 1970. versions: of software. more: anything else."""

    start_utc_ns: int
    subject: Subject = Subject()
    versions: dict[str, str] = {}
    more: dict[str, Any] = {}


class Notes(Struct, frozen=True):
    """What `notes` holds, as JSON."""

    neds_rt: int  # format
    bin_ns: int
    n_bins: int
    behaviours: tuple[BehaviourSpec, ...]
    licence: str
    citation: str
    origin: Origin


def save(session: Session, path: Path, origin: Origin) -> None:
    """Check and write a session, and read it once; nothing half-written is left behind.

    Raises `DataError` for a session without spike times, or with a class that changes within a segment: NWB has one
    label a trial.
    """
    check(session, str(path))
    if session.events is None:
        raise DataError(f"{path}: the session has counts and no spike times, which NWB is about; keep its Session.npz")
    io = _library().NWBHDF5IO
    made = _file(session, origin)
    with whole(path) as partial:
        with _quiet(), io(str(partial), "w") as file:
            file.write(made)
        _read(partial, path)


def load(path: Path) -> Session:
    """Read and check what `save` wrote. Raises `DataError` with the remedy."""
    if not path.is_file():
        raise DataError(f"recording {path} does not exist; check the path")
    return _read(path, path)


def _library() -> Any:
    try:
        import pynwb
    except ImportError:
        raise ConfigError("NWB files need pynwb, which is not installed; pip install pynwb") from None
    return pynwb


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's advice: the file lies under another ending until it is whole, and the like."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _file(session: Session, origin: Origin) -> Any:
    pynwb = _library()
    notes = Notes(
        FORMAT, session.bin_ns, session.n_bins, session.specs, session.licence, session.citation, origin
    )  # fmt: skip
    start = datetime.fromtimestamp(origin.start_utc_ns // 1_000_000_000, UTC)
    text = msgspec.json.encode(notes).decode()
    start = start.replace(microsecond=origin.start_utc_ns // 1000 % 1_000_000)
    file = pynwb.NWBFile(
        session_description=f"{session.name}: {len(session.segments)} segments, {len(session.units)} units",
        identifier=f"{session.name}-{session.units.sha256[:12]}-{origin.start_utc_ns}",
        session_start_time=start, session_id=session.name, notes=text,
        keywords=["spikes", "behavior", "closed loop"], experiment_description=WHAT,
        was_generated_by=[list(each) for each in origin.versions.items()] or None,
        subject=_subject(pynwb, origin.subject),
    )  # fmt: skip
    _add_units(file, session)
    _add_trials(file, session)
    _add_invalid(file, session)
    traces = [spec for spec in session.specs if spec.kind == "continuous"]
    if traces:
        module = file.create_processing_module(MODULE, "what was measured of the animal, one value a bin")
        for spec in traces:
            module.add(_trace(pynwb, spec, session))
    return file


def _subject(pynwb: Any, subject: Subject) -> Any:
    return pynwb.file.Subject(
        subject_id=subject.id or "unknown", species=subject.species or None, sex=subject.sex or "U",
        age=subject.age or ANY_AGE, description="of this session" if subject.id else "not named",
    )  # fmt: skip


def _add_units(file: Any, session: Session) -> None:
    """Spike times of every unit; ids are the sorter's."""
    assert session.events is not None
    t_ns, unit = session.events
    file.units = _library().misc.Units(name="units", description="spikes of every unit of the stream", resolution=1e-9)
    file.add_unit_column("region", "brain region, ? = not known")
    deep = not np.isnan(session.units.depth_um).all()
    if deep:
        file.add_unit_column("depth_um", "depth in micrometres, NaN = not known")
    order = np.argsort(unit, kind="stable")
    edges = np.searchsorted(unit[order], np.arange(len(session.units) + 1))
    end_s = session.n_bins * session.bin_ns * 1e-9
    for u in range(len(session.units)):
        times = t_ns[order[edges[u] : edges[u + 1]]] * 1e-9
        file.add_unit(
            id=int(session.units.ids[u]), spike_times=times, obs_intervals=np.array([[0.0, end_s]]),
            region=str(session.units.region[u]), **({"depth_um": float(session.units.depth_um[u])} if deep else {}),
        )  # fmt: skip


def _add_trials(file: Any, session: Session) -> None:
    classes = [spec for spec in session.specs if spec.kind == "class"]
    file.add_trial_column("segment_id", "the task's number of the trial")
    for spec in classes:
        file.add_trial_column(f"{LABEL}{spec.name}", f"one of {', '.join(spec.classes)}; empty = not known")
    for name in session.moments:
        file.add_trial_column(f"{MOMENT}{name}", "when in the trial, ms from its start, NaN = it did not happen")
    for name in session.starts:
        unit = session.spec(name).unit or "n.a."
        file.add_trial_column(f"{STANDS}{name}", f"{name} before the trial's first bin, in {unit}, NaN = not known")
    for s, (start, stop) in enumerate(session.segments.tolist()):
        row: dict[str, Any] = {f"{MOMENT}{name}": float(ms[s]) for name, ms in session.moments.items()}
        row |= {f"{STANDS}{name}": float(values[s]) for name, values in session.starts.items()}
        for spec in classes:
            found = np.unique(session.values[spec.name][start:stop])
            if len(found) > 1:
                raise DataError(f"{spec.name} changes within segment {s}, and NWB has one label a trial; keep the .npz")
            row[f"{LABEL}{spec.name}"] = spec.classes[found[0]] if found[0] >= 0 else UNKNOWN
        seconds = (start * session.bin_ns * 1e-9, stop * session.bin_ns * 1e-9)
        file.add_trial(*seconds, segment_id=int(session.segment_ids[s]), **row)


def _add_invalid(file: Any, session: Session) -> None:
    edges = np.diff(np.r_[0, (~session.valid).astype(np.int8), 0])
    for start, stop in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        file.add_invalid_time_interval(start * session.bin_ns * 1e-9, stop * session.bin_ns * 1e-9)


def _trace(pynwb: Any, spec: BehaviourSpec, session: Session) -> Any:
    """One value a bin: the last sample at or before its right edge."""
    said = (("sign", spec.sign), ("filter", spec.filter), ("labels", spec.labels), ("note", spec.labels_note))
    words = [f"{key}: {value}" for key, value in said if value]
    words += [f"delay of the filter: {spec.filter_delay_ms:g} ms"] if spec.filter_delay_ms else []
    words += [f"holds what happened up to {spec.future_ms:g} ms later"] if spec.future_ms else []
    return pynwb.TimeSeries(
        name=spec.name, data=session.values[spec.name], unit=spec.unit or "n.a.",
        starting_time=session.bin_ns * 1e-9, rate=1e9 / session.bin_ns, continuity="continuous",
        description=f"{spec.name}: last sample at or before each bin's right edge, NaN = not measured",
        comments="; ".join(words) or "no comments",
    )  # fmt: skip


def _read(place: Path, path: Path) -> Session:
    """Read what lies in `place`; errors call it `path`."""
    io = _library().NWBHDF5IO
    try:
        with _quiet(), io(str(place), "r") as opened:
            file = opened.read()
            notes = msgspec.json.decode(file.notes or "", type=Notes)
            if notes.neds_rt != FORMAT:
                raise DataError(f"{path} has format {notes.neds_rt}, not {FORMAT}; convert it with this version")
            session = _session(file, notes, path)
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise DataError(f"{path} was not written by neds-rt; make a Session.npz of it (docs/recording.md)") from None
    except DataError:
        raise
    except Exception as error:  # h5py, hdmf and pynwb raise a dozen kinds of error for damaged files
        raise DataError(f"{path} is not a readable NWB file ({type(error).__name__}: {error})") from None
    check(session, str(path))
    return session


def _ns(seconds: Any) -> np.ndarray:
    """Seconds as whole ns (n,) int64: exact up to 2^52 ns, 52 days."""
    return np.rint(np.asarray(seconds, np.float64) * 1e9).astype(np.int64)


def _session(file: Any, notes: Notes, path: Path) -> Session:
    check_width(notes.bin_ns)
    units, trials, n_bins, bin_ns = file.units, file.trials, notes.n_bins, notes.bin_ns
    ids, region = np.array(units.id[:], np.int64), np.array(units["region"][:], np.str_)
    deep = "depth_um" in units.colnames
    table = UnitTable(ids, region, np.array(units["depth_um"][:] if deep else np.full(len(ids), np.nan), np.float32))
    each = [_ns(units["spike_times"][u]) for u in range(len(table))]
    t_ns = np.concatenate(each)
    unit = np.repeat(np.arange(len(table), dtype=np.int32), [len(times) for times in each])
    order = np.argsort(t_ns, kind="stable")
    t_ns, unit = t_ns[order], unit[order]
    segments = np.stack([_ns(trials["start_time"][:]), _ns(trials["stop_time"][:])], 1) // bin_ns
    valid = np.ones(n_bins, bool)
    if file.invalid_times is not None:
        gaps = (_ns(file.invalid_times[edge][:]) // bin_ns for edge in ("start_time", "stop_time"))
        for start, stop in zip(*gaps, strict=True):
            valid[start:stop] = False
    values = {}
    for spec in notes.behaviours:
        if spec.kind == "continuous":
            values[spec.name] = np.array(file.processing[MODULE][spec.name].data[:], np.float32)
        else:
            values[spec.name] = np.full(n_bins, -1, np.int64)
            for (start, stop), label in zip(segments, trials[f"{LABEL}{spec.name}"][:], strict=True):
                values[spec.name][start:stop] = -1 if label == UNKNOWN else spec.classes.index(str(label))
    moments, starts = (
        {n.removeprefix(of): np.array(trials[n][:], np.float64) for n in trials.colnames if n.startswith(of)}
        for of in (MOMENT, STANDS)
    )
    return Session(
        name=str(file.session_id), bin_ns=bin_ns, units=table, valid=valid, specs=notes.behaviours, values=values,
        counts=bin_events(t_ns, unit, bin_ns, n_bins, len(table), str(path)), events=(t_ns, unit), segments=segments,
        segment_ids=np.array(trials["segment_id"][:], np.int64), licence=notes.licence, citation=notes.citation,
        moments=moments, starts=starts,
    )  # fmt: skip
