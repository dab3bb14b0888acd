"""ALF folders, as the International Brain Laboratory's ONE keeps them: `object.attribute.ending`, one array a file.

Names are those of https://int-brain-lab.github.io/ONE/alf_intro.html: a namespace such as _ibl_ before the object,
words between attribute and ending, and folders `#date#` of revisions, of which the newest counts. Nothing is fetched
over the network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neds_core.data.session import UnitTable, whole_numbers
from neds_core.errors import ConfigError, DataError
from neds_core.io.formats.alf_behaviour import trials_of, wheel_of
from neds_core.io.formats.given import refuse_useless
from neds_core.io.formats.npy import table, vector
from neds_core.io.importing import spikes
from neds_core.io.importing.found import Found
from neds_core.io.importing.options import Options

NAME = re.compile(r"(_[a-zA-Z0-9]+_)?(?P<object>[a-zA-Z]\w*)\.(?P<attribute>\w+)(\..+)?\.(?P<ending>\w+)")
ENDINGS = ("npy", "pqt", "parquet", "csv", "tsv")  # the first that is there
DEEPEST = 4  # folders below the one given: alf/probe00/pykilosort/#2024-05-06#
PROBE = re.compile(r"probe\w*", re.IGNORECASE)
APART = 1_000_000  # between the ids of two probes
ACRONYMS = ("brainLocationAcronyms_ccf_2017", "acronym", "acronyms")
REGIONS = (*ACRONYMS, "brainLocation", "brainLocationIds_ccf_2017")  # of channels
COLUMNS = ("acronym", "allen_ontology")  # where that is a table
GOOD = 1.0  # label of clusters.metrics: the share of the tests that a unit passes

Files = dict[str, dict[str, Path]]  # object -> attribute -> file


@dataclass(frozen=True, slots=True)
class _Probe:
    """Spikes t_s (n,) with the id of each (n,); of the U units that have some: ids, label, region, depth, (U,) each."""

    t_s: np.ndarray
    cluster: np.ndarray
    ids: np.ndarray
    label: np.ndarray
    region: np.ndarray
    depth: np.ndarray


def suits(path: Path) -> bool:
    """Whether it is a folder with spike times as ALF names them."""
    return path.is_dir() and bool(_holding(path, "spikes", "times"))


def read(path: Path, options: Options) -> Found:
    """The units of all probes below a folder, its wheel and its trials. Raises `DataError` with the remedy."""
    refuse_useless(path, options, "times of ALF are seconds")
    notes: list[str] = []
    folders = _probes(path)
    probes = [_probe(folder, APART * k, notes) for k, folder in enumerate(folders)]
    if len(probes) > 1:
        ids = ", ".join(f"{folder.relative_to(path)} from {APART * k}" for k, folder in enumerate(folders))
        notes.append(f"ids of units are counted apart for each probe: {ids}")
    ids, label, region, depth = (
        np.concatenate([getattr(probe, key) for probe in probes]) for key in ("ids", "label", "region", "depth")
    )
    keep = spikes.kept(label, options.quality, str(path))
    t_s, unit, _ = spikes.of_events(*(np.concatenate([getattr(p, key) for p in probes]) for key in ("t_s", "cluster")))
    t_s, unit = spikes.of_kept(t_s, unit, keep)
    wheel, trials = (_behaviour(path, name, options) for name in ("wheel", "trials"))
    return Found(
        name=path.resolve().name, format="ALF", t_s=t_s, unit=unit,
        units=UnitTable(ids[keep], region[keep], depth[keep]),
        traces=wheel_of(wheel, options.derivative_ms) if wheel else (),
        trials=trials_of(trials, notes) if trials else None,
        clock="times are seconds of the session's clock, whose time 0 is when the session began",
        quality=spikes.labelled(label),
        notes=(*notes, *spikes.with_noise(label, options.quality)),
    )  # fmt: skip


# --- files ---


def _holding(path: Path, what: str, attribute: str) -> list[Path]:
    """The folders, the one given and those below, that hold an attribute of an object; in order."""
    found = set()
    for depth in range(DEEPEST + 1):
        for file in path.glob("*/" * depth + f"*{what}.{attribute}*"):
            match = NAME.fullmatch(file.name)
            if match and (match["object"], match["attribute"]) == (what, attribute):
                found.add(file.parent.parent if _is_revision(file.parent) else file.parent)
    return sorted(found)


def _is_revision(folder: Path) -> bool:
    return len(folder.name) > 2 and folder.name[0] == folder.name[-1] == "#"


def _files(folder: Path) -> Files:
    """The objects of a folder, the newest revision of each attribute. Raises `DataError` where one is there twice."""
    found: Files = {}
    revisions = sorted(each for each in folder.iterdir() if each.is_dir() and _is_revision(each))
    for place in (folder, *revisions):
        here: dict[tuple[str, str], list[Path]] = {}
        for file in sorted(place.iterdir()):
            match = NAME.fullmatch(file.name)
            if match and match["ending"] in ENDINGS:
                here.setdefault((match["object"], match["attribute"]), []).append(file)
        for (name, attribute), files in here.items():
            rank = [ENDINGS.index(file.suffix[1:]) for file in files]
            if rank.count(min(rank)) > 1:
                both = " and ".join(file.name for file in files)
                raise DataError(f"{place} has {name}.{attribute} more than once ({both}); keep one of them")
            found.setdefault(name, {})[attribute] = files[rank.index(min(rank))]
    return found


def _probes(path: Path) -> list[Path]:
    """The folders with spikes. Raises `DataError` for two sortings of one probe."""
    folders, seen = _holding(path, "spikes", "times"), {}
    for folder in folders:
        probe = next((part for part in folder.relative_to(path).parts if PROBE.fullmatch(part)), "")
        if probe in seen:
            raise DataError(
                f"{path} holds more than one sorting of {probe or 'its spikes'} ({seen[probe]}, "
                f"{folder.relative_to(path)}); give one of these folders"
            )
        seen[probe] = folder.relative_to(path)
    return folders


def _behaviour(path: Path, name: str, options: Options) -> dict[str, Path]:
    """The files of `wheel` or `trials`: of the folder, of those below, or of those above it up to `alf`."""
    attributes = ("position", "timestamps") if name == "wheel" else ("table", "intervals")
    folders = sorted({folder for attribute in attributes for folder in _holding(path, name, attribute)})
    parents = list(path.resolve().parents)
    above = next((k + 1 for k, each in enumerate(parents) if each.name == "alf"), 0)
    folders = folders or [each for each in parents[:above] if name in _files(each)]
    if name in options.names:
        folders = [path / options.names[name]]
        if name not in (_files(folders[0]) if folders[0].is_dir() else {}):
            raise ConfigError(f"--name {name}: {folders[0]} holds no {name}; give its folder, below {path}")
    if len(folders) > 1:
        there = ", ".join(str(folder) for folder in folders)
        raise DataError(f"{path} has {name} in {len(folders)} folders ({there}); say which with --name {name}=FOLDER")
    return _files(folders[0])[name] if folders else {}


# --- one probe ---


def _probe(folder: Path, first: int, notes: list[str]) -> _Probe:
    """Its spikes, and what is known of the units that have some."""
    files = _files(folder)
    where = files["spikes"]
    if "clusters" not in where:
        raise DataError(f"{folder} has spikes.times and no spikes.clusters; copy both from one sorting")
    t_s = spikes.seconds(vector(where["times"]), None, str(where["times"]))
    cluster = whole_numbers(vector(where["clusters"]), str(where["clusters"]))
    if len(t_s) != len(cluster) or not len(t_s):
        raise DataError(
            f"{folder}: spikes.times has {len(t_s)} spikes, spikes.clusters {len(cluster)}; copy both from one sorting"
        )
    if n := int((t_s[1:] < t_s[:-1]).sum()):
        notes.append(f"{where['times'].name} of {folder.name} steps back {n} times; its spikes were sorted by time")
    known = np.unique(cluster)
    if known[0] < 0 or known[-1] >= APART:
        raise DataError(f"{where['clusters']} has the cluster {known[0] if known[0] < 0 else known[-1]}; number from 0")
    units, channels = files.get("clusters", {}), files.get("channels", {})
    depth = _of_units(units["depths"], known).astype(np.float32) if "depths" in units else np.full(len(known), np.nan)
    return _Probe(t_s, cluster + first, known + first, _label(units, known), _region(units, channels, known), depth)


def _of_units(path: Path, known: np.ndarray) -> np.ndarray:
    """One value for each unit (U,): a row of the file is a cluster."""
    values = vector(path)
    if known[-1] >= len(values):
        raise DataError(
            f"{path} has {len(values)} clusters and spikes.clusters has number {known[-1]}; copy both from one sorting"
        )
    return values[known]


def _label(units: dict[str, Path], known: np.ndarray) -> np.ndarray:
    """(U,) str. Of clusters.metrics: `good` where `label` is 1, else that share; or Kilosort's word. '' = not known."""
    if "metrics" not in units:
        return np.full(len(known), "", dtype="<U16")
    frame = table(units["metrics"], "ibl")
    if "cluster_id" in frame:
        frame = frame.set_index("cluster_id")
    frame = frame.reindex(known) if frame.index.is_unique else frame[:0]
    if "label" in frame:
        try:
            shares = frame["label"].to_numpy(np.float64)
        except (TypeError, ValueError):
            raise DataError(f"{units['metrics']}: label is no share of tests; compute clusters.metrics again") from None
        return np.array(["" if np.isnan(v) else "good" if v >= GOOD else f"{v:.2f}" for v in shares], dtype=np.str_)
    if "ks2_label" in frame:
        return frame["ks2_label"].fillna("").to_numpy(dtype=np.str_)
    return np.full(len(known), "", dtype="<U16")


def _region(units: dict[str, Path], channels: dict[str, Path], known: np.ndarray) -> np.ndarray:
    """(U,) str: of the units, or of the channel of each; numbers are ids of the Allen CCF. '?' = not known."""
    for name in ACRONYMS:
        if name in units:
            return _of_units(units[name], known).astype(np.str_)
    name = next((name for name in REGIONS if name in channels), "")
    if not name or "channels" not in units:
        return np.full(len(known), "?")
    path, channel = channels[name], _of_units(units["channels"], known)
    values = vector(path) if path.suffix == ".npy" else None
    if values is None:
        frame = table(path, "ibl")
        column = next((column for column in COLUMNS if column in frame), "")
        if not column:
            raise DataError(f"{path} has no column {' or '.join(COLUMNS)}; name the one of the regions so")
        values = frame[column].fillna("?").to_numpy(dtype=np.str_)
    if int(channel.min()) < 0 or int(channel.max()) >= len(values):
        raise DataError(
            f"{path} has {len(values)} channels and clusters.channels names {channel.max()}; copy both again"
        )
    return values[channel].astype(np.str_)
