"""NWB 2 files of any lab: units, time series, tables of intervals, and when all units were observed.

`neds_core.io.nwb` writes and reads our own NWB files, which hold more than NWB says: they are taken as they are, unless
the options ask for something else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neds_core.data.session import UnitTable
from neds_core.errors import DataError, NedsError
from neds_core.files import sha256
from neds_core.io import nwb
from neds_core.io.formats.nwb_behaviour import intervals, traces, trials
from neds_core.io.importing.found import Found
from neds_core.io.importing.options import Options
from neds_core.io.importing.outputs import plain
from neds_core.io.importing.spikes import kept, labelled, library, of_units, seconds, with_noise

REGIONS = ("region", "location", "brain_region", "brain_area", "area", "structure", "anatomical_location")
QUALITIES = ("quality", "ks_label", "KSLabel", "cluster_group", "label")
WHY_NOT = "spikes have to be sorted into units; export them from your sorter, or import its own output"


def suits(path: Path) -> bool:
    """Whether it is one file that ends in .nwb."""
    return path.suffix.lower() == ".nwb" and path.is_file()


def read(path: Path, options: Options) -> Found:
    """Everything of a file. Raises `DataError` with the remedy."""
    io = library("pynwb", "nwb").NWBHDF5IO
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on how the file should have been written
            with io(str(path), "r") as opened:
                file = opened.read()
                return _own(file, path, options) or _found(file, path, options)
    except NedsError:
        raise
    except Exception as error:  # h5py, hdmf and pynwb raise a dozen kinds of error for damaged files
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is not a readable NWB file ({type(error).__name__}: {said}); copy it again") from None


def _own(file: Any, path: Path, options: Options) -> Found | None:
    """The session of a file that neds-rt wrote; None for another one, and where the options ask for something else."""
    if not nwb.is_own(file):
        return None
    session = replace(nwb.session_of(file, path), file_sha=sha256(path))
    bin_ms = session.bin_ns * 1e-6
    if not options.as_it_is(session.bin_ns):
        if session.events is None:
            raise DataError(
                f"{path} has counts in bins of {bin_ms:g} ms and no spike times; import it without options that choose "
                "bins, outputs, trials or units"
            )
        return None
    options.refuse_unused(path)
    t_ns, unit = session.events or (np.zeros(0, np.int64), np.zeros(0, np.int32))
    note = f"neds-rt wrote this file: its session is taken as it is, in bins of {bin_ms:g} ms"
    return Found(
        name=session.name, format="NWB of neds-rt", t_s=t_ns * 1e-9, unit=unit, units=session.units,
        clock=_clock(file) if nwb.notes_of(file, path).origin.start_known else "when time 0 was is not known",
        notes=(note,) if session.events else (note, "it has counts, and no spike times"), session=session,
    )  # fmt: skip


def _clock(file: Any) -> str:
    return f"time 0 is {file.timestamps_reference_time.isoformat()}, as the file says"


def _found(file: Any, path: Path, options: Options) -> Found:
    units = file.units
    if units is None or not len(units) or "spike_times" not in units.colnames:
        raise DataError(f"{path} has no units with spike times; {WHY_NOT}")
    notes: list[str] = []
    labels = _labels(units, options)
    rows = np.flatnonzero(kept(labels, options.quality, str(path)))
    each = [seconds(times, options.rate_hz, f"{path}: unit {units.id[u]}") for u, times in _times(units, rows)]
    t_s, unit, unsorted = of_units(each)
    if unsorted:
        notes.append(f"spike times of {unsorted} units were not in order, and are sorted")
    if silent := sum(not len(times) for times in each):
        notes.append(f"{silent} units have no spikes")
    notes += [*_probes(units, rows), *with_noise(labels, options.quality)]
    observed = _observed(units, rows, file, notes)
    return Found(
        name=plain(path.stem), format="NWB", t_s=t_s, unit=unit,
        units=UnitTable(np.array(units.id[:])[rows], _regions(units)[rows], _depths(units)[rows]),
        traces=tuple(traces(file, notes)), trials=trials(file, options, path, notes), observed_s=observed,
        clock=_clock(file),
        quality=labelled(labels), notes=tuple(notes),
        citation=" ".join("; ".join(_texts(file.related_publications or ())).split()),
    )  # fmt: skip


def _times(units: Any, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Row and spike times of each unit, as they are in the file."""
    column = units["spike_times"]
    stops = np.r_[0, np.array(column.data[:], np.int64)]
    for u in rows.tolist():
        yield u, np.asarray(column.target.data[stops[u] : stops[u + 1]])


def _texts(values: Any) -> np.ndarray:
    return np.array([str(each.decode() if isinstance(each, bytes) else each) for each in values], np.str_)


def _labels(units: Any, options: Options) -> np.ndarray:
    """(U,) str: what the source says of the quality of each unit, '' where it says nothing."""
    wanted = options.names.get("quality")
    if wanted and wanted not in units.colnames:
        raise DataError(f"units have no column {wanted!r} of quality; there is {', '.join(units.colnames)}")
    for name in (wanted,) if wanted else QUALITIES:
        if name in units.colnames and (values := _texts(units[name].data[:])).shape == (len(units),):
            return values
    return np.full(len(units), "")


def _regions(units: Any) -> np.ndarray:
    """(U,) str: a column of the units, or where their electrodes lie; '?' where nothing or several places are said."""
    for name in REGIONS:
        if name in units.colnames and getattr(units[name], "target", None) is None:
            return _named(_texts(units[name].data[:]))
    if "electrodes" in units.colnames:
        return _named(np.array([_place(units, u) for u in range(len(units))], np.str_))
    if "electrode_group" in units.colnames:
        return _named(_texts(group.location for group in units["electrode_group"].data[:]))
    return np.full(len(units), "?")


def _place(units: Any, u: int) -> str:
    """Where all electrodes of a unit lie."""
    found = units["electrodes"]
    ragged = getattr(found, "target", None)
    region = found if ragged is None else ragged
    if ragged is None:
        rows = np.atleast_1d(region.data[u])
    else:
        rows = np.asarray(region.data[int(found.data[u - 1]) if u else 0 : int(found.data[u])])
    if not len(rows) or "location" not in region.table.colnames:
        return "?"
    places = set(_texts(region.table["location"].data[int(row)] for row in rows).tolist())
    return places.pop() if len(places) == 1 else "?"


def _named(regions: np.ndarray) -> np.ndarray:
    clean = [" ".join(str(each).split()) for each in regions]
    return np.array(
        [each if each and each.lower() not in ("unknown", "nan", "none") else "?" for each in clean], np.str_
    )


def _depths(units: Any) -> np.ndarray:
    """(U,) float32 micrometres; NaN where the source has no column that says so."""
    if "depth_um" in units.colnames:
        return np.array(units["depth_um"].data[:], np.float32)
    return np.full(len(units), np.nan, np.float32)


def _probes(units: Any, rows: np.ndarray) -> Iterator[str]:
    """A sentence where the units come from several electrode groups."""
    if "electrode_group" not in units.colnames:
        return
    groups = _texts(units["electrode_group"].data[int(u)].name for u in rows)
    names, n = np.unique(groups, return_counts=True)
    if len(names) > 1:
        joined = ", ".join(f"{name} ({many})" for name, many in zip(names[:8], n[:8], strict=True))
        yield f"units of {len(names)} electrode groups are joined: {joined}{', ...' if len(names) > 8 else ''}"


def _observed(units: Any, rows: np.ndarray, file: Any, notes: list[str]) -> np.ndarray:
    """(K, 2) float64: when all units were observed, without the file's invalid times."""
    found = np.array([[-np.inf, np.inf]])
    if "obs_intervals" in units.colnames:
        column = units["obs_intervals"]
        stops, data = np.r_[0, np.array(column.data[:], np.int64)], np.asarray(column.target.data[:], np.float64)
        seen = {data[stops[u] : stops[u + 1]].tobytes() for u in rows}
        for each in seen - {b""}:
            found = _both(found, np.frombuffer(each).reshape(-1, 2))
        if len(seen) > 1:
            notes.append("units were observed at different times; bins in which one was not are not valid")
        if not len(found):
            raise DataError("there is no time at which all units were observed; keep fewer of them with --quality")
    bad = intervals(file.invalid_times)
    if len(bad):
        edges = np.r_[-np.inf, bad.ravel(), np.inf].reshape(-1, 2)
        found = _both(found, edges)
    return found


def _both(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(K, 2): the stretches that lie in both."""
    pairs = [(max(a, c), min(b, d)) for a, b in one for c, d in other]
    return np.array(sorted(pair for pair in pairs if pair[1] > pair[0])).reshape(-1, 2)
