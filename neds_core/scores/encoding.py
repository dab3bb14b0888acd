"""What predicted rates are worth on a part of a recording: bits/spike against what training already knew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neds_core.data.scalers import inside
from neds_core.data.session import Session
from neds_core.errors import DataError
from neds_core.linear import linear
from neds_core.scores import bits, bootstrap
from neds_core.scores.bootstrap import Interval

MIN_RATE_HZ = 2.0  # Zhang et al. 2025 keep units above it
WIDTHS = (0.0, 1.0, 2.0, 4.0)  # sd in bins of the Gaussians a trial average may be smoothed with
FOLDS = 5

Row = dict[str, Any]  # one JSON object


def _smoothing(n_phase: int, width: float) -> np.ndarray:
    """(P, P) Gaussian weights over the trial's bins, rows summing to 1."""
    distance = np.subtract.outer(np.arange(n_phase), np.arange(n_phase))
    weight = np.exp(-0.5 * (distance / width) ** 2) if width else np.eye(n_phase)
    return weight / weight.sum(1, keepdims=True)


def _average(counts: np.ndarray, phase: np.ndarray, n_phase: int, width: float) -> np.ndarray:
    """(P, U) smoothed mean counts at each bin of the trial; the mean counts as one trial more, so no rate is 0."""
    total, n = np.zeros((n_phase, counts.shape[1])), np.bincount(phase, minlength=n_phase)
    np.add.at(total, phase, counts)
    return _smoothing(n_phase, width) @ ((total + counts.mean(0)) / (n[:, None] + 1.0))


def trial_average(train: Session, units: np.ndarray) -> np.ndarray:
    """(P, U') rates of `units` at each bin since the segment's start, smoothed as blocks of training prefer.

    P = 1, the mean, for a continuous recording. Rates in spikes a bin.
    """
    rows = inside(train)
    counts, phase = train.counts[rows][:, units].astype(np.float64), train.clock()[rows]
    if train.continuous:
        return counts.mean(0, keepdims=True)
    n_phase = int(phase.max()) + 1
    segment = train.segment_of(np.flatnonzero(rows))
    gain = np.zeros(len(WIDTHS))
    for held in linear.folds(segment, FOLDS):
        for w, width in enumerate(WIDTHS):
            table = _average(counts[~held], phase[~held], n_phase, width)
            gain[w] += bits.gained_bits(counts[held], table[phase[held]], counts[~held].mean(0)).sum()
    return _average(counts, phase, n_phase, WIDTHS[int(gain.argmax())])


@dataclass(frozen=True, slots=True)
class Target:
    """The spikes of a part that are scored, and what was known before it: n bins, U' units.

    rows (n,) int: which of the predicted rows count; units (U,) bool: above 2 Hz in training;
    counts (n, U'); trial (n,); mean (U',) and average (n, U'): the training part's, spikes a bin.
    """

    rows: np.ndarray
    units: np.ndarray
    counts: np.ndarray
    trial: np.ndarray
    mean: np.ndarray
    average: np.ndarray

    def of(self, rates: np.ndarray) -> np.ndarray:
        """The scored rows and units of predicted rates (rows of the part, U)."""
        return rates[self.rows][:, self.units]

    def sums(self, rates: np.ndarray) -> np.ndarray:
        """Bits above the training mean, and spikes, of each trial (trials, 2); rates (n, U')."""
        return bits.bits_sums(self.counts, rates, self.mean, self.trial)


def target(train: Session, part: Session, bins: np.ndarray, trial: np.ndarray) -> Target:
    """What is scored of the predictions at `bins` (n,) of `part`; trial (n,) is what a bootstrap draws."""
    counts = train.counts[inside(train)]
    mean = counts.mean(0)
    units = mean / (train.bin_ns * 1e-9) > MIN_RATE_HZ
    if not units.any():
        raise DataError(f"no unit of {train.name!r} fires above {MIN_RATE_HZ} Hz; encoding is scored on those alone")
    rows = np.flatnonzero(part.valid[bins])
    table = trial_average(train, units)
    phase = np.clip(part.clock()[bins[rows]], 0, len(table) - 1)
    return Target(rows, units, part.counts[bins[rows]][:, units], trial[rows], mean[units], table[phase])


def score(goal: Target, rates: np.ndarray) -> Row:
    """Bits/spike of rates (n, U'): pooled against the training mean (headline), and the other ways to say it."""
    headline = bootstrap.interval(goal.sums(rates), bits.bits_of_sums)
    own = goal.counts.mean(0)
    each, against_own = (bits.unit_bits_per_spike(goal.counts, rates, null) for null in (goal.mean, own))
    above = bits.bits_sums(goal.counts, rates, goal.average, goal.trial)
    return {
        "bits_per_spike": headline.value,
        "ci95": [headline.low, headline.high],
        "mean_over_units": float(np.nanmean(each)),
        "against_test_mean": bits.bits_per_spike(goal.counts, rates, own),
        "mean_over_units_against_test_mean": float(np.nanmean(against_own)),
        "above_trial_average": as_row(bootstrap.interval(above, bits.bits_of_sums)),
    }


def gain(goal: Target, first: list[np.ndarray], second: np.ndarray) -> Row:
    """Bits/spike of `first` (rates of one training seed each) above those of `second`, paired by trial."""
    return as_row(bootstrap.paired([goal.sums(f) for f in first], goal.sums(second), bits.bits_of_sums))


def as_row(found: Interval) -> Row:
    """An interval as JSON."""
    return {"value": found.value, "low": found.low, "high": found.high}
