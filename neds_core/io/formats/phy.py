"""Phy folders, which Kilosort 2.5 to 4 and SpikeInterface write: samples of spikes, their clusters, tables of labels.

`params.py` says the sampling rate. It is read as text and never run. Labels given by hand in Phy (`group`) go before
those of Kilosort (`KSLabel`).
"""

from __future__ import annotations

import ast
import csv
from pathlib import Path

import numpy as np

from neds_core.data.session import UnitTable, whole_numbers
from neds_core.errors import ConfigError, DataError
from neds_core.io.formats.given import refuse_useless
from neds_core.io.formats.npy import vector
from neds_core.io.importing import spikes
from neds_core.io.importing.found import Found
from neds_core.io.importing.options import Options

TIMES, CLUSTERS, INFO = "spike_times.npy", "spike_clusters.npy", "cluster_info.tsv"
LABELS = (  # file, column; the first that labels a cluster counts
    ("cluster_group.tsv", "group"),
    (INFO, "group"),
    ("cluster_group.tsv", "KSLabel"),  # Kilosort writes its own labels under this name, too
    ("cluster_KSLabel.tsv", "KSLabel"),
    (INFO, "KSLabel"),
)
REGIONS = ("region", "brain_region", "acronym", "location")  # columns that labs add to cluster_info.tsv
UNSORTED = "unsorted"  # Phy's word for a cluster without a label


def suits(path: Path) -> bool:
    """Whether it is a folder with spike times as Phy reads them."""
    return path.is_dir() and (path / TIMES).is_file()


def read(path: Path, options: Options) -> Found:
    """All clusters that have spikes. Raises `DataError` and `ConfigError` with the remedy."""
    refuse_useless(path, options)
    samples, ids = _samples(path), _ids(path)
    if len(samples) != len(ids):
        raise DataError(
            f"{path}: {TIMES} has {len(samples)} spikes, {CLUSTERS} has {len(ids)}; copy both from one sorting"
        )
    notes = []
    if n := int((samples[1:] < samples[:-1]).sum()):
        notes.append(f"{TIMES} steps back {n} times; the spikes were sorted by time")
    samples, unit, known = spikes.of_events(samples, ids)
    info = _table(path / INFO)
    _refuse_other_counts(path, info, known, np.bincount(unit, minlength=len(known)))
    labels, where = _labels(path, info, known)
    keep = spikes.kept(labels, options.quality, str(path))
    if not where:
        notes.append("no table labels the clusters; all are kept")
    t_s = spikes.seconds(samples, _rate_hz(path, options.rate_hz), f"{path / TIMES}")
    t_s, unit = spikes.of_kept(t_s, unit, keep)
    return Found(
        name=path.resolve().name,
        format="Phy",
        t_s=t_s,
        unit=unit,
        units=UnitTable(known[keep], _regions(info, known)[keep], _depths(path, info, known)[keep]),
        clock="time 0 is the first sample of the recording that was sorted",
        quality=spikes.labelled(labels),
        notes=(*notes, *spikes.with_noise(labels, options.quality)),
    )


def _samples(path: Path) -> np.ndarray:
    """(n,) int64."""
    times = vector(path / TIMES)
    if times.dtype.kind == "f" and np.isfinite(times).all() and (times != np.floor(times)).any():
        raise DataError(
            f"{path / TIMES} holds fractions, so times in seconds; Phy keeps samples: import a table of times instead"
        )
    samples = whole_numbers(times, str(path / TIMES))
    if not len(samples):
        raise DataError(f"{path / TIMES} is empty; sort the recording again")
    if (n := int((samples < 0).sum())) > 0:
        raise DataError(f"{path / TIMES} has {n} negative samples; remove those spikes in the sorter and export again")
    return samples


def _ids(path: Path) -> np.ndarray:
    return whole_numbers(vector(path / CLUSTERS), str(path / CLUSTERS))


def _rate_hz(path: Path, given: float | None) -> float:
    """Samples a second, of params.py or of the option."""
    params = path / "params.py"
    if not params.is_file():
        if given is None:
            raise ConfigError(
                f"{path / TIMES} holds samples and there is no params.py beside it; "
                "say how many a second with --rate-hz, such as --rate-hz 30000"
            )
        return given
    rate = _assigned(params, "sample_rate")
    if given is not None and given != rate:
        raise ConfigError(f"--rate-hz {given:g}: {params} says {rate:g}; leave the option out, or correct the file")
    return rate


def _assigned(path: Path, name: str) -> float:
    """The positive number that a file of Python assigns to a name; nothing of it is run."""
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); write {name} = 30000.0 into it") from None
    found: object = None
    for line in body:
        if isinstance(line, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in line.targets):
            found = line.value.value if isinstance(line.value, ast.Constant) else ast.unparse(line.value)
    number = float(found) if isinstance(found, int | float) and not isinstance(found, bool) else 0.0
    if not 0 < number < float("inf"):
        raise DataError(f"{path}: {name} is {found!r}, not a number of samples a second; write {name} = 30000.0")
    return number


def _table(path: Path) -> dict[int, dict[str, str]]:
    """Rows of a table by cluster; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}); save in Phy again") from None
    key = next((name for name in ("cluster_id", "id") if lines and name in lines[0]), "")
    if lines and not key:
        raise DataError(f"{path} has no column cluster_id; save in Phy again")
    rows: dict[int, dict[str, str]] = {}
    for line in lines:
        try:
            number = int(line[key])
        except (TypeError, ValueError):
            raise DataError(f"{path}: cluster_id {line[key]!r} is no whole number; save in Phy again") from None
        if number in rows:
            raise DataError(f"{path}: cluster {number} is there twice; save in Phy again")
        rows[number] = {name: text.strip() for name, text in line.items() if name and isinstance(text, str)}
    return rows


def _refuse_other_counts(path: Path, info: dict[int, dict[str, str]], known: np.ndarray, n: np.ndarray) -> None:
    """cluster_info.tsv counts each cluster's spikes: other counts are of another sorting, or not saved."""
    for cluster, counted in zip(known.tolist(), n.tolist(), strict=True):
        told = info.get(cluster, {}).get("n_spikes", "")
        if told.isdigit() and int(told) != counted:
            raise DataError(
                f"{path / INFO} counts {told} spikes of cluster {cluster}, {CLUSTERS} has {counted}; save in Phy again"
            )


def _labels(path: Path, info: dict[int, dict[str, str]], known: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """(U,) str, a label for each cluster, and the files that labelled one."""
    tables = {name: info if name == INFO else _table(path / name) for name, _ in LABELS}
    labels, where = [], set()
    for cluster in known.tolist():
        named = ((name, tables[name].get(cluster, {}).get(column, "")) for name, column in LABELS)
        name, label = next(((name, text) for name, text in named if text and text != "nan"), ("", UNSORTED))
        labels.append(label)
        where.add(name)
    return np.array(labels, dtype=np.str_), tuple(sorted(where - {""}))


def _regions(info: dict[int, dict[str, str]], known: np.ndarray) -> np.ndarray:
    """(U,) str, '?' where no column says it."""
    rows = [info.get(cluster, {}) for cluster in known.tolist()]
    return np.array([next((row[c] for c in REGIONS if row.get(c)), "?") for row in rows], dtype=np.str_)


def _depths(path: Path, info: dict[int, dict[str, str]], known: np.ndarray) -> np.ndarray:
    """(U,) float32 in micrometres along the probe, as Phy shows it; NaN where it says none."""
    found = []
    for cluster in known.tolist():
        text = info.get(cluster, {}).get("depth", "")
        try:
            found.append(float(text or "nan"))
        except ValueError:
            raise DataError(
                f"{path / INFO}: depth {text!r} of cluster {cluster} is no number; save in Phy again"
            ) from None
    return np.array(found, np.float32)
