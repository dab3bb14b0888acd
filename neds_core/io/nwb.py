"""Sessions as Neurodata Without Borders (NWB 2), for other tools, and back.

Units hold spike times, region and depth; `trials` start, stop and label of every segment; the processing module
`behavior` each trace on the grid of bins, and classes that change within a trial; `invalid_times` the bins with a
fault. A session without spike times has its counts in the module `ecephys` instead of units. Times are seconds from the
start of bin 0, which is the session's start. What NWB has no place for (bin width, what a behaviour is, where the
session is from) stands in `notes` as JSON.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from neds_core.data.checks.session import check
from neds_core.data.checks.spec import check_width
from neds_core.data.session import Session, UnitTable, bin_events
from neds_core.errors import ConfigError, DataError
from neds_core.files import whole
from neds_core.io import nwb_made, nwb_notes
from neds_core.io.nwb_notes import LABEL, MOMENT, STANDS, UNKNOWN, Notes, Origin, Subject
from neds_core.io.of_run import OfRun

__all__ = ["Notes", "Origin", "Subject", "is_own", "load", "notes_of", "save", "session_of"]


def save(session: Session, path: Path, origin: Origin, run: OfRun | None = None) -> None:
    """Check and write a session, and read it once; nothing half-written is left behind.

    run: the one that the session was received in, which may be without a spike. Raises `DataError` for another session
    that cannot be trained on.
    """
    check(session, str(path), silent=run is not None)
    pynwb = _library()
    with _quiet():
        made = nwb_made.made(pynwb, session, origin, run)
    with whole(path) as partial:
        with _quiet(), pynwb.NWBHDF5IO(str(partial), "w") as file:
            file.write(made)
        _read(partial, path, silent=run is not None)


def load(path: Path) -> Session:
    """Read and check what `save` wrote. Raises `DataError` with the remedy."""
    if not path.is_file():
        raise DataError(f"recording {path} does not exist; check the path")
    return _read(path, path)


def is_own(file: Any) -> bool:
    """Whether an open `NWBFile` is one that `save` wrote."""
    return str(file.notes or "").startswith('{"neds_rt":')


def notes_of(file: Any, path: Path) -> Notes:
    """What an open `NWBFile` that `save` wrote says of itself. Raises `DataError` for another one."""
    try:
        notes = msgspec.json.decode(file.notes or "", type=Notes)
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise DataError(f"{path} was not written by neds-rt; make a Session.npz of it (docs/recording.md)") from None
    if notes.neds_rt != nwb_notes.FORMAT:
        raise DataError(f"{path} has format {notes.neds_rt}, not {nwb_notes.FORMAT}; convert it with this version")
    return notes


def session_of(file: Any, path: Path, *, silent: bool = False) -> Session:
    """The session of an open `NWBFile` that `save` wrote, checked. Raises `DataError`, which calls the file `path`.

    silent: as in `check`.
    """
    notes = notes_of(file, path)
    session = _session(file, notes, path)
    check(session, str(path), silent=silent)
    return session


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


def _read(place: Path, path: Path, *, silent: bool = False) -> Session:
    """Read what lies in `place`; errors call it `path`."""
    io = _library().NWBHDF5IO
    try:
        with _quiet(), io(str(place), "r") as opened:
            return session_of(opened.read(), path, silent=silent)
    except DataError:
        raise
    except Exception as error:  # h5py, hdmf and pynwb raise a dozen kinds of error for damaged files
        raise DataError(f"{path} is not a readable NWB file ({type(error).__name__}: {error})") from None


def _ns(seconds: Any) -> np.ndarray:
    """Seconds as whole ns (n,) int64: exact up to 2^52 ns, 52 days."""
    return np.rint(np.asarray(seconds, np.float64) * 1e9).astype(np.int64)


def _session(file: Any, notes: Notes, path: Path) -> Session:
    check_width(notes.bin_ns)
    trials, n_bins, bin_ns = file.trials, notes.n_bins, notes.bin_ns
    if file.units is None:
        module = file.processing[nwb_notes.SPIKES]
        table, events = _unit_table(module[nwb_notes.UNITS]), None
        counts = np.array(module[nwb_notes.COUNTS].data[:])
    else:
        table, events = _unit_table(file.units), _events(file.units)
        counts = bin_events(*events, bin_ns, n_bins, len(table), str(path))
    segments = np.stack([_ns(trials["start_time"][:]), _ns(trials["stop_time"][:])], 1) // bin_ns
    valid = np.ones(n_bins, bool)
    if file.invalid_times is not None:
        gaps = (_ns(file.invalid_times[edge][:]) // bin_ns for edge in ("start_time", "stop_time"))
        for start, stop in zip(*gaps, strict=True):
            valid[start:stop] = False
    moments, starts = (_of_trials(trials, of, notes) for of in (MOMENT, STANDS))
    return Session(
        name=str(file.session_id), bin_ns=bin_ns, units=table, valid=valid, specs=notes.behaviours,
        values=_values(file, notes, segments), counts=counts, events=events, segments=segments,
        segment_ids=np.array(trials["segment_id"][:], np.int64), licence=notes.licence, citation=notes.citation,
        moments=moments, starts=starts,
    )  # fmt: skip


def _of_trials(trials: Any, of: str, notes: Notes) -> dict[str, np.ndarray]:
    """The columns (S,) float64 whose names begin with `of`, by the names that the session gives them."""
    real: dict[str, str] = {called: name for name, called in notes.written.items()}
    columns: dict[str, str] = {name.removeprefix(of): name for name in trials.colnames if name.startswith(of)}
    return {real.get(called, called): np.array(trials[name][:], np.float64) for called, name in columns.items()}


def _unit_table(units: Any) -> UnitTable:
    ids, region = np.array(units.id[:], np.int64), np.array(units["region"][:], np.str_)
    deep = "depth_um" in units.colnames
    return UnitTable(ids, region, np.array(units["depth_um"][:] if deep else np.full(len(ids), np.nan), np.float32))


def _events(units: Any) -> tuple[np.ndarray, np.ndarray]:
    """Spike times (n,) int64 ns in order, and unit (n,) int32."""
    column = units["spike_times"]
    t_ns, stops = _ns(column.target.data[:]), np.asarray(column.data[:], np.int64)
    unit = np.repeat(np.arange(len(stops), dtype=np.int32), np.diff(stops, prepend=0))
    order = np.argsort(t_ns, kind="stable")
    return t_ns[order], unit[order]


def _values(file: Any, notes: Notes, segments: np.ndarray) -> dict[str, np.ndarray]:
    """Traces (T,) float32 and classes (T,) int64, each from its series, or from the labels of the trials."""
    module = file.processing.get(nwb_notes.BEHAVIOUR)
    values: dict[str, np.ndarray] = {}
    for spec in notes.behaviours:
        kind = np.float32 if spec.kind == "continuous" else np.int64
        called = notes.written.get(spec.name, spec.name)
        if module is not None and called in module.data_interfaces:
            values[spec.name] = np.array(module[called].data[:], kind)
            continue
        values[spec.name] = np.full(notes.n_bins, -1, np.int64)
        for (start, stop), label in zip(segments, file.trials[f"{LABEL}{called}"][:], strict=True):
            values[spec.name][start:stop] = -1 if label == UNKNOWN else spec.classes.index(str(label))
    return values
