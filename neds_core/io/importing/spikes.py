"""Spike times of any source in seconds, in one order, checked: what every reader needs."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from neds_core.errors import ConfigError, DataError

CHUNK = 4_000_000  # spikes that are sorted at once
SMALL_IDS = 10_000_000  # ids below it are looked up in a table
ENOUGH = 20  # so many times that are all whole numbers are no seconds
DAY_S = 86_400.0


def library(module: str, extra: str) -> Any:
    """The imported module. Raises `ConfigError` with the pip command where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
    name = module.split(".")[0]
    raise ConfigError(f"this format needs {name}, which is not installed; pip install 'neds-rt[{extra}]'")


def seconds(times: np.ndarray, rate_hz: float | None, origin: str, option: str = "--rate-hz") -> np.ndarray:
    """Times (n,) as float64 seconds. rate_hz: of the samples in which they are given; None: they are seconds.

    option: what gives the rate.

    Raises `DataError` for NaN, for what is no number, and without a rate for whole numbers, which are samples.
    """
    found = np.asarray(times)
    if found.dtype.kind not in "iuf" or found.ndim != 1:
        raise DataError(f"{origin}: times are {found.dtype} {found.shape}, not numbers (n,); name the right ones")
    if (bad := int(found.size - np.isfinite(found).sum())) > 0:
        raise DataError(f"{origin}: {bad} of {found.size} times are NaN or infinite; remove those rows")
    if rate_hz is not None:
        return found / rate_hz
    if found.dtype.kind in "iu" or (found.size >= ENOUGH and found.any() and (found == np.floor(found)).all()):
        last = f" (the last is {found[-1]:.0f})" if found.size else ""
        raise DataError(
            f"{origin}: all times are whole numbers{last}, which looks like samples; "
            f"say how many a second with {option} (1000 for ms, 1 if they are seconds)"
        )
    if found.size and (span := float(found.max() - found.min())) > DAY_S:
        raise DataError(
            f"{origin}: times span {span:.6g}, more than a day of seconds; "
            f"say how many a second with {option} (1000 for ms, 1 if they are seconds)"
        )
    return found.astype(np.float64, copy=False)


def of_units(each: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, int]:
    """The spikes of all units in time order: t_s (n,) float64, unit (n,) int32, and how many units were not sorted.

    each: times of unit after unit, in seconds. Memory beyond input and result does not grow with n. Spikes at one time
    keep the order of their units.
    """
    unsorted = {u for u, times in enumerate(each) if (times[1:] < times[:-1]).any()}
    each = [np.sort(times) if u in unsorted else times for u, times in enumerate(each)]
    n = sum(map(len, each))
    t_s, unit = np.empty(n), np.empty(n, np.int32)
    some = [times for times in each if len(times)]
    low, high = (min(t[0] for t in some), max(t[-1] for t in some)) if some else (0.0, 0.0)
    edges = np.linspace(low, high, n // CHUNK + 2)[1:]
    edges[-1] = np.inf
    at, begin = 0, np.zeros(len(each), np.int64)
    for edge in edges:
        stop = np.array([np.searchsorted(times, edge) for times in each], np.int64)
        part = np.concatenate([times[a:b] for times, a, b in zip(each, begin, stop, strict=True)] or [np.zeros(0)])
        whose = np.repeat(np.arange(len(each), dtype=np.int32), stop - begin)
        order = np.argsort(part, kind="stable")
        t_s[at : at + len(part)], unit[at : at + len(part)] = part[order], whose[order]
        at, begin = at + len(part), stop
    return t_s, unit, len(unsorted)


def of_events(t_s: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spikes (n,) with the id of each: t_s sorted, unit (n,) int32 as rows of the third, the ids (U,) in order."""
    if ids.dtype.kind in "iu" and len(ids) and ids.min() >= 0 and ids.max() < SMALL_IDS:  # without sorting all spikes
        there = np.zeros(int(ids.max()) + 1, bool)
        there[ids] = True
        known, unit = np.flatnonzero(there).astype(ids.dtype), (np.cumsum(there, dtype=np.int32) - 1)[ids]
    else:
        known, unit = np.unique(ids, return_inverse=True)
        unit = unit.astype(np.int32)
    if (t_s[1:] < t_s[:-1]).any():
        order = np.argsort(t_s, kind="stable")
        t_s, unit = t_s[order], unit[order]
    return t_s, unit, known


def repeated(t: np.ndarray, unit: np.ndarray) -> int:
    """How many spikes have time and unit of one before. t (n,) sorted, unit (n,) int."""
    same, tied = t[1:] == t[:-1], np.zeros(len(t), bool)
    tied[1:] |= same
    tied[:-1] |= same  # few, as a rule: only these are put in order
    t, unit = t[tied], unit[tied]
    order = np.lexsort((unit, t))
    return int(((np.diff(t[order]) == 0) & (np.diff(unit[order]) == 0)).sum())


def kept(labels: np.ndarray, wanted: str, origin: str) -> np.ndarray:
    """(U,) bool: units of the label `wanted`; '' keeps all. labels (U,) str. Raises `DataError` where none has it."""
    if not wanted:
        return np.ones(len(labels), bool)
    found = np.asarray(labels) == wanted
    if not found.any():
        known = ", ".join(repr(str(each)) for each in np.unique(labels)) or "none"
        raise DataError(f"{origin}: no unit has the quality {wanted!r}; there is {known}")
    return found


def with_noise(labels: Sequence[str] | np.ndarray, wanted: str) -> tuple[str, ...]:
    """A note where units labelled noise are taken, as no quality is `wanted`; none otherwise. labels (U,) str."""
    noise = sum(str(label).lower() == "noise" for label in labels)
    if wanted or not noise:
        return ()
    others = sorted({str(label) for label in labels if label and str(label).lower() != "noise"})
    what = "good" if "good" in others or not others else others[0]
    be, them = ("is", "it") if noise == 1 else ("are", "them")
    said = f"{noise} of {len(labels)} units {be} labelled noise and {be} taken"
    return (f"{said}; leave {them} out with --quality {what}",)


def labelled(labels: Sequence[str] | np.ndarray) -> dict[str, int]:
    """How many units have each label, of labels (U,) str; '' is none."""
    names, n = np.unique(np.asarray(labels, np.str_), return_counts=True)
    return {str(name): int(k) for name, k in zip(names, n, strict=True) if name}


def of_kept(t_s: np.ndarray, unit: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The spikes (n,) of the units that are kept, keep (U,) bool, with rows among these."""
    if keep.all():
        return t_s, unit
    some, row = keep[unit], np.cumsum(keep, dtype=np.int32) - 1
    return t_s[some], row[unit[some]]
