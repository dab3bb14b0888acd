"""Wheel and trials of an ALF folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neds_core.errors import DataError
from neds_core.io.formats.npy import array, table, vector
from neds_core.io.importing.found import Trace, Trials

STEP_S = 0.005  # between two values of the velocity: not a bin's width behind, whatever the bins
START, STOP = "intervals_0", "intervals_1"  # as the table of trials names them


def wheel_of(files: dict[str, Path], derivative_ms: float) -> tuple[Trace, ...]:
    """The wheel's velocity, from nothing later than each of its times: the position less that `derivative_ms` before.

    Between two samples the wheel stands where the first said: encoders are often read only when they move.
    """
    if "position" not in files or "timestamps" not in files:
        lacking = "timestamps" if "position" in files else "position"
        raise DataError(f"{next(iter(files.values())).parent} has no wheel.{lacking}; copy it too")
    place, position = str(files["timestamps"]), vector(files["position"])
    t_s = _times(array(files["timestamps"]), len(position), place)
    if len(t_s) != len(position):
        raise DataError(f"{place} has {len(t_s)} times and wheel.position {len(position)} values; copy both again")
    for what, values in (("wheel.position", position), ("wheel.timestamps", t_s)):
        if bad := int((~np.isfinite(values)).sum()):
            raise DataError(f"{place}: {bad} values of {what} are NaN or infinite; remove those samples")
    if (back := np.flatnonzero(np.diff(t_s) < 0)).size:
        raise DataError(f"{place} goes back at sample {back[0] + 1}; sort the samples of the wheel")
    wide_s = derivative_ms * 1e-3
    grid_s = np.arange(np.ceil((t_s[0] + wide_s) / STEP_S), np.floor(t_s[-1] / STEP_S) + 1) * STEP_S
    if not len(grid_s):
        raise DataError(
            f"{place} lasts {t_s[-1] - t_s[0]:g} s, less than {derivative_ms:g} ms; give a longer recording"
        )
    now, before = (position[np.searchsorted(t_s, at, side="right") - 1] for at in (grid_s, grid_s - wide_s))
    unit = "rad/s" if files["position"].name.startswith("_ibl_") else ""
    said = f"causal: difference of the last samples over {derivative_ms:g} ms"
    sign = "signed as wheel.position"
    return (Trace("wheel_velocity", grid_s, (now - before) / wide_s, unit, "", sign, said, derivative_ms / 2),)


def trials_of(files: dict[str, Path], notes: list[str]) -> Trials:
    """Trials by `intervals`, in time order, with every other value of one number or word a trial."""
    place, columns = next(iter(files.values())).parent, {}
    if "table" in files:
        frame = table(files["table"], "ibl")
        columns = {str(name): frame[name].to_numpy() for name in frame.columns if frame[name].dtype.kind in "biuf"}
        words = {str(name): frame[name].astype(object) for name in frame.columns if str(name) not in columns}
        columns |= {name: column.where(column.notna(), "").to_numpy() for name, column in words.items()}
    for attribute, path in files.items():
        if attribute != "table" and path.suffix == ".npy":
            columns.update(_columns(attribute, array(path)))
    if START not in columns or STOP not in columns:
        raise DataError(f"{place} has trials and no trials.intervals; copy them too, or take --trials none")
    n = len(columns[START])
    if other := next((name for name, values in columns.items() if len(values) != n), ""):
        raise DataError(
            f"{place}: trials.{other} has {len(columns[other])} rows and trials.intervals {n}; copy both again"
        )
    start_s, stop_s = (np.asarray(columns.pop(name), np.float64) for name in (START, STOP))
    known = np.isfinite(start_s) & np.isfinite(stop_s)
    if lost := int((~known).sum()):
        notes.append(f"{lost} of {n} trials have no start or no end and are left out")
    if bad := int((stop_s[known] < start_s[known]).sum()):
        raise DataError(f"{place}: {bad} trials end before they begin; correct trials.intervals")
    rows = np.flatnonzero(known)[np.argsort(start_s[known], kind="stable")]
    usable = {name: _usable(values[rows]) for name, values in columns.items()}
    notes += [f"trials.{name} is neither numbers nor words and is left out" for name, v in usable.items() if v is None]
    return Trials(start_s[rows], stop_s[rows], {name: v for name, v in usable.items() if v is not None})


def _times(stamps: np.ndarray, n: int, place: str) -> np.ndarray:
    """(n,) float64 s. (k, 2): samples whose times are known, and these; the others lie evenly between."""
    if stamps.dtype.kind not in "iuf":
        raise DataError(f"{place} is {stamps.dtype}, not times in seconds; copy it again")
    if stamps.ndim == 1:
        return stamps.astype(np.float64)
    if stamps.ndim != 2 or stamps.shape[1] != 2 or len(stamps) < 2 or (np.diff(stamps[:, 0]) <= 0).any():
        raise DataError(
            f"{place} has the shape {stamps.shape}, not (n,) or rows of a sample and its time; copy it again"
        )
    return np.interp(np.arange(n), stamps[:, 0], stamps[:, 1])


def _columns(attribute: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """An attribute of the trials; two-dimensional ones a column each, named as in the table."""
    if values.ndim == 2:
        return {f"{attribute}_{k}": values[:, k] for k in range(values.shape[1])}
    return {attribute: values} if values.ndim == 1 else {}


def _usable(values: np.ndarray) -> np.ndarray | None:
    """Numbers as float64, words as str; None for what is neither."""
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    if values.dtype.kind == "U":
        return values
    words = values.tolist()
    return np.array(words, dtype=np.str_) if all(isinstance(word, str) for word in words) else None
