"""Sortings that SpikeInterface has saved to a folder, and acquisition files that neo reads.

neo: Blackrock (.nev), Plexon (.plx) and Open Ephys's own format (a folder with .spikes files).
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neds_core.data.session import UnitTable
from neds_core.errors import DataError
from neds_core.io.formats.given import refuse_useless
from neds_core.io.importing import spikes
from neds_core.io.importing.found import Found
from neds_core.io.importing.options import Options

SAVED = ("si_folder.json", "spikeinterface_info.json", "numpysorting_info.json", "sorting_cached.npz")
QUALITY, REGION, DEPTH = ("quality", "KSLabel", "ks_label"), ("brain_area", "region", "acronym"), ("depth", "depth_um")
READERS = {".nev": "BlackrockRawIO", ".plx": "PlexonRawIO", ".spikes": "OpenEphysRawIO"}
CHANNEL = re.compile(r"(?P<group>ch(?P<number>\d+)|.+)#(?P<unit>\d+)")  # what neo calls a unit
UNSORTED, NOISE = 0, 255  # numbers of units; the second is Blackrock's
FROM_FIRST = "time 0 is the first sample of the recording that was sorted"
APART = 1000  # between the ids of two channels
EVER_S = (0.0, 1e9)  # neo 0.14 takes Open Ephys's first sample for its first second, and finds nothing after it


def suits(path: Path) -> bool:
    """Whether it is a saved sorting or a file of an acquisition system; also one that can only be refused."""
    if path.is_dir():
        saved = path.suffix == ".zarr" or any((path / name).is_file() for name in SAVED)
        return saved or bool(_spike_files(path)) or _is_binary(path)
    return path.suffix.lower() in (".nev", ".plx", ".pl2")


def read(path: Path, options: Options) -> Found:
    """All units that have spikes. Raises `DataError` and `ConfigError` with the remedy."""
    refuse_useless(path, options, f"{path.name} says its own rate")
    if path.is_file() and path.suffix.lower() == ".pl2":
        raise DataError(f"{path}: PL2 is read by Plexon's own library alone; save it as .plx with Plexon's tools")
    if path.is_dir() and not _spike_files(path) and _is_binary(path):
        raise DataError(
            f"{path}: neo reads no spikes of Open Ephys's binary format; sort the recording and import the sorting"
        )
    by_neo = path.is_file() or bool(_spike_files(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' advice to programmers
        return (_of_neo if by_neo else _of_spikeinterface)(path, options)


def _spike_files(path: Path) -> list[Path]:
    return sorted(path.glob("*.spikes"))


def _is_binary(path: Path) -> bool:
    return any(True for depth in range(4) for _ in path.glob("*/" * depth + "structure.oebin"))


# --- SpikeInterface ---


def _of_spikeinterface(path: Path, options: Options) -> Found:
    library = spikes.library("spikeinterface.core", "spikeinterface")
    try:
        saved = library.load(path)
    except Exception as error:  # of many kinds: it trusts the folder
        raise DataError(f"{path} cannot be loaded ({type(error).__name__}: {error}); save the sorting again") from None
    sorting = getattr(saved, "sorting", saved)  # of an analyzer
    if not isinstance(sorting, library.BaseSorting):
        raise DataError(f"{path} holds a {type(saved).__name__}, no sorting; give the folder of the sorting")
    if (n := sorting.get_num_segments()) != 1:
        raise DataError(f"{path} has {n} segments, each with a clock of its own; save one with select_segments first")
    notes: list[str] = []
    vector = sorting.to_spike_vector()
    if not len(vector):
        raise DataError(f"{path} has no spikes; sort the recording again")
    t_s = np.asarray(sorting.sample_index_to_time(vector["sample_index"], segment_index=0), np.float64)
    names = np.asarray(sorting.unit_ids)
    label, region, depth = (_property(sorting, keys) for keys in (QUALITY, REGION, DEPTH))
    units = UnitTable(
        _ids(names, notes),
        np.full(len(names), "?") if region is None else np.array([str(each) or "?" for each in region], dtype=np.str_),
        np.full(len(names), np.nan) if depth is None else depth,
    )
    found = Found(
        name=path.resolve().name, format="SpikeInterface", t_s=t_s, unit=vector["unit_index"], units=units,
        clock="times are those of the recording" if sorting.has_recording() else FROM_FIRST,
        notes=tuple(notes),
    )  # fmt: skip
    return _taken(found, [""] * len(names) if label is None else [str(each) for each in label], path, options)


def _property(sorting: Any, keys: tuple[str, ...]) -> np.ndarray | None:
    """The first of these properties that the units have."""
    key = next((key for key in keys if key in sorting.get_property_keys()), "")
    return np.asarray(sorting.get_property(key)) if key else None


def _ids(names: np.ndarray, notes: list[str]) -> np.ndarray:
    """(U,) int64: the names where they are whole numbers, else rows."""
    texts = [str(name) for name in names.tolist()]
    numbers = [int(text) for text in texts if text.isascii() and text.removeprefix("-").isdigit()]
    if len(numbers) == len(texts) == len(set(numbers)):
        return np.array(numbers, np.int64)
    notes.append(f"units are named by words ({texts[0]!r} first); their ids are the rows in the sorting")
    return np.arange(len(texts))


# --- neo ---


def _of_neo(path: Path, options: Options) -> Found:
    rawio = spikes.library("neo.rawio", "neo")
    kind = READERS[".spikes" if path.is_dir() else path.suffix.lower()]
    more = {"BlackrockRawIO": {"nsx_to_load": []}, "PlexonRawIO": {"progress_bar": False}}.get(kind, {})
    try:
        reader = getattr(rawio, kind)(str(path), **more)
        reader.parse_header()
    except Exception as error:  # of many kinds: it trusts the file
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}); copy it again") from None
    if (n := reader.segment_count(0)) > 1:
        raise DataError(f"{path} has {n} segments, each with a clock of its own; split it and import one")
    times, ids, labels = [], [], []
    groups: dict[str, int] = {}
    bounds = EVER_S if kind == "OpenEphysRawIO" else ()
    for row, channel in enumerate(reader.header["spike_channels"]):
        stamps = reader.get_spike_timestamps(0, 0, row, *bounds)
        times.append(np.asarray(reader.rescale_spike_timestamp(stamps, "float64"), np.float64))
        match = CHANNEL.fullmatch(str(channel["id"])) or CHANNEL.fullmatch(str(channel["name"]))
        if match is None:
            raise DataError(f"{path}: unit {channel['name']!r} has no number; save the file again")
        group, unit = groups.setdefault(match["group"], len(groups)), int(match["unit"])
        ids.append(APART * (int(match["number"]) if match["number"] else group) + unit)
        labels.append({UNSORTED: "unsorted", NOISE: "noise"}.get(unit, "sorted"))
    if not sum(map(len, times)):
        raise DataError(f"{path} has no spikes; give the file in which they were saved")
    found = Found(
        name=path.resolve().stem, format=kind.removesuffix("RawIO"), t_s=np.concatenate(times),
        unit=np.repeat(np.arange(len(times)), [len(each) for each in times]),
        units=UnitTable(np.array(ids, np.int64), np.full(len(ids), "?"), np.full(len(ids), np.nan)),
        clock="times are seconds of the acquisition system's clock, as its file has them",
        notes=(f"the id of a unit is {APART} times its channel plus its number there; 0 is what was not sorted",),
    )  # fmt: skip
    return _taken(found, labels, path, options)


# --- both ---


def _taken(found: Found, labels: list[str], path: Path, options: Options) -> Found:
    """The same with its spikes in order, of the units of the label that is asked for. labels: of all U, '' = none."""
    keep = spikes.kept(np.array(labels, dtype=np.str_), options.quality, str(path))
    t_s = spikes.seconds(found.t_s, 1.0, str(path))
    t_s, unit = spikes.of_kept(t_s, found.unit.astype(np.int32), keep)
    order = np.argsort(t_s, kind="stable")
    units = UnitTable(found.units.ids[keep], found.units.region[keep], found.units.depth_um[keep])
    notes = (*found.notes, *spikes.with_noise(labels, options.quality))
    return replace(
        found, t_s=t_s[order], unit=unit[order], units=units, quality=spikes.labelled(labels), notes=notes
    )  # fmt: skip
