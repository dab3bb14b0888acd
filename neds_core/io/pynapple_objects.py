"""A session, and the run that it is of, as pynapple's objects, and as pynapple's own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from neds_core.data.session import Session
from neds_core.files import whole
from neds_core.io.importing.spikes import library
from neds_core.io.nwb_made import labels, stretches
from neds_core.io.of_run import OfRun

NAMES = ("units", "counts", "behaviours", "valid", "trials", "decoded")
APART_S = 1e-6  # pynapple joins two intervals that touch, and takes so much of the first where they may not


def of(session: Session, run: OfRun | None = None) -> dict[str, Any]:
    """pynapple's objects by name; times in s from the start of bin 0, values at each bin's centre, which
    lies in one interval: restricted to a trial, they are those of its bins.

    units: `TsGroup` with the unit ids as keys, row, region and depth_um as metadata; counts in its place, a `TsdFrame`
    of T x U, where the session has no spike times. behaviours: `TsdFrame` of the traces, and of classes that change
    within a trial as numbers, NaN = not known. valid, trials: `IntervalSet`, trials with segment_id, labels and
    moments; a stop that the next start touches is 1 us earlier. decoded: `TsdFrame` of a run's values, probabilities
    and sd. Raises `ConfigError` where pynapple is not installed.
    """
    nap = library("pynapple", "pynapple")
    found: dict[str, Any] = {}
    if session.events is None:
        columns = {str(uid): session.counts[:, u] for u, uid in enumerate(session.units.ids)}
        found["counts"] = _frame(nap, session, columns)
    else:
        found["units"] = _units(nap, session, session.events)
    if traces := _traces(session):
        found["behaviours"] = _frame(nap, session, traces)
    found["valid"] = _intervals(nap, stretches(session.valid), session.bin_ns)
    found["trials"] = _intervals(nap, session.segments, session.bin_ns, _of_trials(session))
    if run is not None and run.decoded:
        found["decoded"] = _frame(nap, session, _decoded(run))
    return found


def save(objects: Mapping[str, Any], folder: Path) -> None:
    """Write each object to NAME.npz of a folder that exists, as pynapple's `load_file` reads it."""
    for name, each in objects.items():
        with whole(folder / f"{name}.npz") as partial:
            ending = partial.with_name(f"{partial.name}.npz")  # pynapple adds it
            each.save(str(ending))
            ending.replace(partial)


def _support(nap: ModuleType, session: Session) -> Any:
    return nap.IntervalSet(0.0, session.n_bins * session.bin_ns * 1e-9)


def _units(nap: ModuleType, session: Session, events: tuple[np.ndarray, np.ndarray]) -> Any:
    t_s, unit, units = events[0] * 1e-9, events[1], session.units
    order = np.argsort(unit, kind="stable")
    edges = np.searchsorted(unit[order], np.arange(len(units) + 1))
    each = {int(units.ids[u]): nap.Ts(t_s[order[edges[u] : edges[u + 1]]]) for u in range(len(units))}
    rows = np.argsort(units.ids)  # it puts its units in the order of their keys
    about = {"row": rows, "region": units.region[rows], "depth_um": units.depth_um[rows].astype(np.float64)}
    return nap.TsGroup(each, time_support=_support(nap, session), metadata=about)


def _frame(nap: ModuleType, session: Session, columns: Mapping[str, np.ndarray]) -> Any:
    """Columns (T,) at the centres of the bins."""
    centres = (np.arange(session.n_bins) + 0.5) * (session.bin_ns * 1e-9)
    data = np.stack(list(columns.values()), 1)
    return nap.TsdFrame(t=centres, d=data, columns=list(columns), time_support=_support(nap, session))


def _traces(session: Session) -> dict[str, np.ndarray]:
    found = {spec.name: session.values[spec.name] for spec in session.specs if spec.kind == "continuous"}
    for spec in (spec for spec in session.specs if spec.kind == "class" and labels(session, spec) is None):
        values = session.values[spec.name]
        found[spec.name] = np.where(values < 0, np.nan, values).astype(np.float32)
    return found


def _of_trials(session: Session) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {"segment_id": session.segment_ids}
    for spec in (spec for spec in session.specs if spec.kind == "class"):
        if (each := labels(session, spec)) is not None:
            found[spec.name] = np.array(each, np.str_)
    return found | {f"{name}_ms": ms for name, ms in session.moments.items()}


def _decoded(run: OfRun) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for series in run.decoded:
        if series.columns:
            found |= {f"{series.name}_{name}": series.values[:, k] for k, name in enumerate(series.columns)}
        else:
            found[series.name] = series.values
    return found


def _intervals(
    nap: ModuleType, bins: np.ndarray, bin_ns: int, about: Mapping[str, np.ndarray] | None = None
) -> Any:  # fmt: skip
    """Stretches (K, 2) of bins."""
    start, stop = (bins[:, side] * (bin_ns * 1e-9) for side in (0, 1))
    touches = np.r_[bins[1:, 0] == bins[:-1, 1], False]
    return nap.IntervalSet(start, stop - touches * APART_S, metadata=dict(about or {}))
