"""Time series and tables of intervals of an NWB file, as traces and trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neds_core.errors import ConfigError, DataError
from neds_core.io.importing.found import Trace, Trials
from neds_core.io.importing.options import NONE, Options
from neds_core.io.importing.outputs import plain

NO_TRACES = ("ElectricalSeries", "ImageSeries", "AnnotationSeries", "IntervalSeries", "DecompositionSeries")
ROOMS = ("acquisition", "processing")
SAMPLES_MOST, COLUMNS_MOST = 50_000_000, 16
UNSAID = ("", "na", "n.a.", "n/a", "none", "unknown", "unspecified", "no comments", "no description")
AXES = "xyz"


def traces(file: Any, notes: list[str]) -> Iterator[Trace]:
    """Every time series of numbers in acquisition and processing, one trace a column."""
    series = [each for each in file.objects.values() if _is_series(each)]
    series.sort(key=lambda each: _path(each))
    for each, name in zip(series, _names(series), strict=True):
        shape = list(each.data.shape if hasattr(each.data, "shape") else np.shape(each.data))
        many = shape[1] if len(shape) == 2 else 1
        if len(shape) > 2 or many > COLUMNS_MOST or shape[0] * many > SAMPLES_MOST:
            notes.append(f"{name} has {' x '.join(map(str, shape))} values, too many for a behaviour, and is left out")
            continue
        yield from _columns(each, name, many)


def _names(series: list[Any]) -> list[str]:
    """What each is called: by its own name, by that of its interface too where it is short or there twice, and by all
    that it lies in where two would be called alike."""
    short = Counter(each.name for each in series)
    names = [
        plain(f"{each.parent.name}_{each.name}" if _inside(each) and (len(each.name) < 3 or short[each.name] > 1)
              else each.name)
        for each in series
    ]  # fmt: skip
    twice = Counter(names)
    whole = (plain("_".join(_path(each)).removeprefix("processing_")) for each in series)
    return [long if twice[name] > 1 else name for long, name in zip(whole, names, strict=True)]


def _is_series(found: Any) -> bool:
    """Whether it is a time series of numbers of the animal, and no recording, picture or stimulus."""
    kinds = [kind.__name__ for kind in type(found).__mro__]
    if "TimeSeries" not in kinds or any(kind in NO_TRACES for kind in kinds) or found.data is None:
        return False
    dtype = getattr(found.data, "dtype", None) or np.asarray(found.data).dtype
    return dtype.kind in "iufb" and bool(set(_path(found)) & set(ROOMS))


def _path(found: Any) -> list[str]:
    """The names from the file down: what it lies in first."""
    names, at = [], found
    while at.parent is not None:
        names.append(at.name)
        if at.parent.parent is None:  # directly in the file, which says in which room
            rooms = [room for room in ROOMS if at.name in getattr(at.parent, room)]
            names += rooms if rooms and getattr(at.parent, rooms[0])[at.name] is at else []
        at = at.parent
    return names[::-1]


def _inside(found: Any) -> bool:
    """Whether it lies in an interface such as Position, and not in a room or module."""
    return type(found.parent).__name__ not in ("NWBFile", "ProcessingModule")


def _columns(series: Any, name: str, many: int) -> Iterator[Trace]:
    values = np.array(series.data[:], np.float64).reshape(-1, many) * series.conversion + (series.offset or 0.0)
    t_s = np.array(series.get_timestamps()[:], np.float64)
    if len(t_s) != len(values):
        raise DataError(f"{name} has {len(values)} values and {len(t_s)} time stamps; write it again")
    unit = str(series.unit or "").strip()
    about = [str(getattr(series, key, None) or "") for key in ("description", "reference_frame")]
    words = "; ".join(" ".join(each.split())[:150] for each in about if each.strip().lower() not in UNSAID)
    places = (
        AXES if many <= len(AXES) and "SpatialSeries" in [k.__name__ for k in type(series).__mro__] else range(many)
    )
    for k, place in zip(range(many), places, strict=False):
        called = name if many == 1 else f"{name}_{place}"
        yield Trace(called, t_s, values[:, k], "" if unit.lower() in UNSAID else unit, words)


def trials(file: Any, options: Options, path: Path, notes: list[str]) -> Trials | None:
    """The table that the options name, else the file's trials. Raises `ConfigError` where there is no such table."""
    tables = dict(file.intervals.items()) if file.intervals else {}
    tables |= {name: table for name in ("trials", "epochs") if (table := getattr(file, name)) is not None}
    tables.pop("invalid_times", None)
    if tables:
        notes.append(f"tables of stretches: {', '.join(f'{n} ({len(t)} rows)' for n, t in sorted(tables.items()))}")
    wanted = options.trials or "trials"
    if wanted in tables:
        return _trials(tables[wanted])
    if options.trials in ("", NONE):
        return None
    raise ConfigError(f"trials: {path} has no table {wanted!r}; it has {', '.join(sorted(tables)) or 'none'}")


def intervals(table: Any) -> np.ndarray:
    """(S, 2) float64 start and stop in s of a table of intervals, in order."""
    if table is None or not len(table):
        return np.zeros((0, 2))
    edges = np.stack([np.asarray(table[edge].data[:], np.float64) for edge in ("start_time", "stop_time")], 1)
    return edges[np.argsort(edges[:, 0], kind="stable")]


def _trials(table: Any) -> Trials:
    start, stop = (np.asarray(table[edge].data[:], np.float64) for edge in ("start_time", "stop_time"))
    order = np.argsort(start, kind="stable")
    found = {}
    for name in table.colnames:
        if name not in ("start_time", "stop_time") and (values := _column(table[name], len(start))) is not None:
            found[name] = values[order]
    return Trials(start[order], stop[order], found)


def _column(column: Any, n: int) -> np.ndarray | None:
    """(S,) float64 or str; lists of texts are joined; None for what is neither, such as references."""
    target = getattr(column, "target", None)
    if target is not None:
        rows = [column[k] for k in range(n)]
        if not all(isinstance(each, str | bytes) for row in rows for each in row):
            return None
        return np.array([",".join(map(_text, row)) for row in rows], np.str_)
    values = np.asarray(column.data[:])
    if values.ndim != 1 or len(values) != n:
        return None
    if values.dtype.kind == "b":
        return np.where(values, "true", "false")
    if values.dtype.kind in "iuf":
        return values.astype(np.float64)
    if all(isinstance(each, str | bytes) for each in values.tolist()):
        return np.array([_text(each) for each in values.tolist()], np.str_)
    return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
