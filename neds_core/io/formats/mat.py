"""MATLAB files (.mat up to v7 by SciPy, v7.3 by h5py): variables by name, `data.spikes` for a field of a structure.

Spikes are a cell array with the times of unit after unit (`spikes`), or two arrays (`time`, `unit`). Traces are arrays
as long as `trace_time`; trials are arrays as long as `start` and `stop`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neds_core.errors import ConfigError, DataError, NedsError
from neds_core.io.importing.found import Found, Trace, Trials
from neds_core.io.importing.options import BEHAVIOUR, OF_BEHAVIOUR, Options
from neds_core.io.importing.outputs import plain
from neds_core.io.importing.roles import pick, rate_of, unit_table
from neds_core.io.importing.spikes import library, of_events, of_units, seconds

COLUMNS_MOST = 16
V73 = b"\x89HDF\r\n\x1a\n"  # behind MATLAB's own 512 bytes


def suits(path: Path) -> bool:
    """Whether it is one file that ends in .mat."""
    return path.suffix.lower() == ".mat" and path.is_file()


def read(path: Path, options: Options) -> Found:
    """Spikes, and traces and trials where their times are named. Raises `DataError` or `ConfigError`."""
    if options.quality:
        raise DataError(f"{path} is a .mat, of which no quality of units is read; keep the units you want in the file")
    held = _variables(path)
    notes: list[str] = []
    by_time = "time" in options.names
    cells = options.names.get("spikes") or (None if by_time else _only_cell(held, path))
    if cells is not None and not by_time:
        each = _cell(held, cells, path)
        whose = rate_of(cells, options)
        t_s, unit, unsorted = of_units([seconds(t, whose, f"{path}: {cells}") for t in each])
        notes += [f"spike times of {unsorted} units were not in order, and are sorted"] if unsorted else []
        ids, what = np.arange(1, len(each) + 1), cells
    else:
        what, owner = (pick(role, held, options, str(path)) for role in ("time", "unit"))
        times, owners = _vector(held, what, path), _vector(held, owner, path)
        if len(times) != len(owners):
            raise DataError(f"{path}: {what} has {len(times)} values and {owner} {len(owners)}; name two that fit")
        t_s, unit, ids = of_events(_seconds(times, rate_of(what, options), f"{path}: {what}"), owners)
    return Found(
        name=plain(path.stem), format="MATLAB", t_s=t_s, unit=unit, units=unit_table(ids, str(path)),
        traces=_traces(held, path, options) if "trace_time" in options.names else (),
        trials=_trials(held, path, options) if {"start", "stop"} <= set(options.names) else None,
        clock=f"time 0 is that of {what}", notes=(*notes, f"variables: {', '.join(held)}"),
    )  # fmt: skip


def traces(path: Path, options: Options) -> tuple[Trace, ...]:
    """A file of behaviour alone: the traces as long as `trace_time`, or as what is called time."""
    held = _variables(path)
    time = options.names.get("trace_time") or pick("time", held, options, str(path), BEHAVIOUR)
    return _traces(held, path, Options(rate_hz=options.rate_hz, names=options.names | {"trace_time": time}))


def _traces(held: dict[str, Any], path: Path, options: Options) -> tuple[Trace, ...]:
    """Every array of numbers that has one value, or a few, for each time."""
    time = options.names["trace_time"]
    t_s = _seconds(_vector(held, time, path), rate_of(time, options), f"{path}: {time}", OF_BEHAVIOUR)
    found = []
    for name, values in held.items():
        if name == time or not isinstance(values, np.ndarray) or values.ndim != 2 or len(t_s) not in values.shape:
            continue
        columns = values if values.shape[0] == len(t_s) else values.T
        if columns.shape[1] > COLUMNS_MOST or name in options.names.values():
            continue
        for k in range(columns.shape[1]):
            called = plain(name) if columns.shape[1] == 1 else f"{plain(name)}_{k}"
            found.append(Trace(called, t_s, columns[:, k].astype(np.float64), "", f"variable {name} of {path.name}"))
    return tuple(found)


def _trials(held: dict[str, Any], path: Path, options: Options) -> Trials:
    start, stop = (_vector(held, options.names[role], path).astype(np.float64) for role in ("start", "stop"))
    if start.shape != stop.shape:
        raise DataError(f"{path}: {len(start)} starts and {len(stop)} stops of trials; name two that fit")
    order = np.argsort(start, kind="stable")
    columns = {
        name: values.ravel()[order].astype(np.float64)
        for name, values in held.items()
        if isinstance(values, np.ndarray) and values.size == len(start) and name not in options.names.values()
    }
    return Trials(start[order], stop[order], columns)


def _seconds(times: np.ndarray, rate_hz: float | None, origin: str, option: str = "--rate-hz") -> np.ndarray:
    if not len(times):
        raise DataError(f"{origin} is empty; name the variable that has the times")
    return seconds(times, rate_hz, origin, option)


def _vector(held: dict[str, Any], name: str, path: Path) -> np.ndarray:
    """A variable (n,), however it lies."""
    values = held.get(name)
    if not isinstance(values, np.ndarray) or values.size != max(values.shape, default=0):
        what = "is not there" if values is None else "is no vector"
        raise ConfigError(f"names: {name!r} {what} in {path}; there is {', '.join(held) or 'nothing'}")
    return values.ravel()


def _only_cell(held: dict[str, Any], path: Path) -> str | None:
    """The name of the cell array that there is. Raises `ConfigError` where there are several."""
    found = [name for name, values in held.items() if isinstance(values, list)]
    if len(found) > 1:
        raise ConfigError(f"{path} has the cell arrays {', '.join(found)}; say which with --name spikes=NAME")
    return found[0] if found else None


def _cell(held: dict[str, Any], name: str, path: Path) -> list[np.ndarray]:
    cells = held.get(name)
    if not isinstance(cells, list) or not cells:
        raise ConfigError(f"names: {name!r} is no cell array in {path}; there is {', '.join(held) or 'nothing'}")
    return [np.asarray(each).ravel() for each in cells]


def _variables(path: Path) -> dict[str, Any]:
    """Name -> array of numbers (2-D), or list of such for a cell array; fields of structures as `name.field`."""
    try:
        with path.open("rb") as file:
            head = file.read(520)
        return _from_v73(path) if V73 in (head[:8], head[512:]) else _from_v7(path)
    except NedsError:
        raise
    except Exception as error:  # both libraries raise a dozen kinds for damaged bytes
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is no whole .mat file ({type(error).__name__}: {said}); save it again") from None


def _from_v7(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in library("scipy.io", "mat").loadmat(path).items():
        if not name.startswith("__"):
            _put(found, name, value)
    return found


def _put(found: dict[str, Any], name: str, value: Any) -> None:
    """One variable of SciPy's: numbers, a cell array of numbers, or a structure."""
    if not isinstance(value, np.ndarray):
        return
    if value.dtype.names and value.size == 1:
        for field in value.dtype.names:
            _put(found, f"{name}.{field}", value[field].item())
    elif value.dtype.kind == "O":
        cells = list(value.ravel(order="F"))
        if all(isinstance(each, np.ndarray) and each.dtype.kind in "iufb" for each in cells):
            found[name] = cells
    elif value.dtype.kind in "iufb" and value.ndim <= 2:
        found[name] = np.atleast_2d(value)


def _from_v73(path: Path) -> dict[str, Any]:
    h5py = library("h5py", "mat")
    found: dict[str, Any] = {}
    with h5py.File(path, "r") as file:

        def visit(name: str, item: Any) -> None:
            if name.startswith("#") or not isinstance(item, h5py.Dataset):
                return
            called = name.replace("/", ".")
            if item.dtype.kind == "O":
                cells = [file[each] for each in np.ravel(item[()])]
                if all(each.dtype.kind in "iufb" for each in cells):
                    found[called] = [_numbers(each) for each in cells]
            elif item.dtype.kind in "iufb" and item.ndim <= 2 and not _is_text(item):
                found[called] = np.atleast_2d(item[()]).T  # MATLAB's order of axes

        file.visititems(visit)
    return found


def _numbers(item: Any) -> np.ndarray:
    """The values of a variable; one that MATLAB marks as empty holds its shape instead."""
    return np.zeros(0) if item.attrs.get("MATLAB_empty", 0) else item[()]


def _is_text(item: Any) -> bool:
    return bytes(item.attrs.get("MATLAB_class", b"")) == b"char"
