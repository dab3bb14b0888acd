"""Scores of predicted spike counts, in bits a spike: Pei et al. 2021 (Neural Latents Benchmark), co-smoothing metric.

bits/spike = (log L(rates) - log L(null)) / (number of spikes * ln 2), Poisson, pooled over bins
and units. counts, rates and nulls are (n, U) or broadcast to it, rates in spikes a bin.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LOWEST_RATE = 1e-6  # spikes a bin; a rate of 0 would make one spike infinitely surprising


def gained_bits(counts: np.ndarray, rates: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Poisson log-likelihood of `rates` above that of `null`, in bits, (n, U): ln x! cancels."""
    above, below = np.maximum(rates, LOWEST_RATE).astype(np.float64), np.maximum(null, LOWEST_RATE).astype(np.float64)
    return (counts * np.log(above / below) - (above - below)) / np.log(2.0)


def bits_per_spike(counts: np.ndarray, rates: np.ndarray, null: np.ndarray) -> float:
    """Pooled over units; NaN where no unit spikes."""
    n_spikes = float(counts.sum())
    return float(gained_bits(counts, rates, null).sum()) / n_spikes if n_spikes else float("nan")


def unit_bits_per_spike(counts: np.ndarray, rates: np.ndarray, null: np.ndarray) -> np.ndarray:
    """(U,) for each unit by itself; NaN for a unit without spikes. Zhang et al. 2025 report its mean."""
    n_spikes = counts.sum(0, dtype=np.float64)
    return np.where(n_spikes > 0, gained_bits(counts, rates, null).sum(0) / np.maximum(n_spikes, 1), np.nan)


def bits_sums(counts: np.ndarray, rates: np.ndarray, null: np.ndarray, trial: np.ndarray) -> np.ndarray:
    """Rows of (bits, spikes) for each trial: enough for the pooled bits/spike of any resample."""
    _, index = np.unique(trial, return_inverse=True)
    columns = (gained_bits(counts, rates, null).sum(1), counts.sum(1, dtype=np.float64))
    return np.stack([np.bincount(index, c) for c in columns], axis=1)


def bits_of_sums(sums: np.ndarray) -> np.ndarray:
    """Bits/spike of rows as `bits_sums` makes them, added up (..., 2); NaN without spikes."""
    bits, spikes = np.moveaxis(sums, -1, 0)
    return np.where(spikes > 0, bits / np.maximum(spikes, 1.0), np.nan)


class Tuning(NamedTuple):
    """Mean counts of units against a behaviour: K ranges of its values, U units."""

    centre: np.ndarray  # (K,) mean value in each range
    empirical: np.ndarray  # (K, U) spikes a bin
    predicted: np.ndarray  # (K, U) spikes a bin


def tuning(value: np.ndarray, counts: np.ndarray, rates: np.ndarray, n_ranges: int = 10) -> Tuning:
    """Empirical and predicted tuning to value (n,), NaN = unknown; a class's values are its labels.

    Ranges hold equal numbers of bins, so that each mean rests on as many; equal values stay in one range.
    """
    known = np.isfinite(value)
    y = value[known]
    edges = np.unique(np.quantile(y, np.linspace(0.0, 1.0, n_ranges + 1)[1:-1]))
    _, row = np.unique(np.searchsorted(edges, y, side="right"), return_inverse=True)
    member = np.eye(int(row.max()) + 1)[row]  # (n, K)
    share = member / member.sum(0)
    return Tuning(share.T @ y, share.T @ counts[known], share.T @ rates[known])
