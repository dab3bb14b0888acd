"""Everything that is estimated from the training part before a model sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neds_core.data import filters
from neds_core.data.checks.session import varies
from neds_core.data.filters import Filters
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import DataError


@dataclass(frozen=True, slots=True)
class Scalers:
    """kept (U,) bool: units at or above the rate floor; spike_mean, spike_gain (U,) float32 of
    sqrt(counts), gain 0 where filtered; mean, sd: name -> float; prior: class name -> (C,)
    float64; trial_mean: name -> (bins,) float32, the training part's trial average by bins
    since segment start (empty for a continuous recording); filters: of a model with `filter_taus_ms`."""

    kept: np.ndarray
    spike_mean: np.ndarray
    spike_gain: np.ndarray
    mean: dict[str, float]
    sd: dict[str, float]
    prior: dict[str, np.ndarray]
    trial_mean: dict[str, np.ndarray]
    filters: Filters | None = None


def inside(session: Session) -> np.ndarray:
    """(T,) bool: valid bins inside the session's segments."""
    out = np.zeros(session.n_bins, bool)
    for start, stop in session.segments:
        out[start:stop] = True
    return out & session.valid


def known(session: Session, spec: BehaviourSpec) -> np.ndarray:
    """(T,) bool: valid bins inside the segments where a behaviour is defined. Refuses a part without any."""
    values = session.values[spec.name]
    rows = inside(session) & (values >= 0 if spec.kind == "class" else np.isfinite(values))
    if not rows.any():
        raise DataError(
            f"recording {session.name!r} has no {spec.name} in a part it is split into; leave it out of the outputs"
        )
    return rows


def longest_silence(train: Session, kept: np.ndarray) -> int:
    """The longest run of valid bins inside one segment in which no unit of kept (U,) bool fired; 0 = there was none."""
    longest = 0
    for start, stop in train.segments:
        rows = slice(start, stop)
        silent = train.valid[rows] & ~train.counts[rows][:, kept].any(1)
        edges = np.flatnonzero(np.diff(np.r_[False, silent, False]))
        longest = max(longest, int((edges[1::2] - edges[::2]).max(initial=0)))
    return longest


def fit(
    train: Session, specs: tuple[BehaviourSpec, ...], min_rate_hz: float, filter_taus_ms: tuple[float, ...] = ()
) -> Scalers:
    """Estimate the scalers on a training part; filter_taus_ms: those of the model."""
    rows = inside(train)
    counts = train.counts[rows].astype(np.float32)
    kept = counts.mean(0) / (train.bin_ns * 1e-9) >= min_rate_hz
    if not kept.any():
        raise DataError(
            f"recording {train.name!r}: no unit reaches min_rate_hz = {min_rate_hz:g} in the training part; lower it"
        )
    root = np.sqrt(counts)
    gain = np.where(kept, 1.0 / np.maximum(root.std(0), 1e-6), 0.0).astype(np.float32)
    mean, sd, prior, trial_mean = {}, {}, {}, {}
    clock = train.clock()
    for spec in specs:
        values, defined = train.values[spec.name], known(train, spec)
        if spec.kind == "class":
            n = np.bincount(values[defined], minlength=len(spec.classes))
            prior[spec.name] = (n + 1.0) / (n + 1.0).sum()
            continue
        mean[spec.name], sd[spec.name] = float(values[defined].mean()), float(values[defined].std())
        if not varies(values[defined]) or not 0.0 < sd[spec.name] < np.inf:
            raise DataError(
                f"recording {train.name!r}: {spec.name} does not vary in the training part; leave it out of outputs"
            )
        trial_mean[spec.name] = np.zeros(0, np.float32)
        if not train.continuous:
            n_phase = int(clock.max()) + 1
            total = np.bincount(clock[defined], values[defined], n_phase)
            n = np.bincount(clock[defined], minlength=n_phase)
            average = np.where(n > 0, total / np.maximum(n, 1), mean[spec.name])
            trial_mean[spec.name] = average.astype(np.float32)
    of_filters = filters.fit(train, kept, filter_taus_ms) if filter_taus_ms else None
    return Scalers(kept, root.mean(0), gain, mean, sd, prior, trial_mean, of_filters)
