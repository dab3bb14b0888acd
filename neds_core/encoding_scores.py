"""Scores of predicted spike rates."""

from __future__ import annotations

import numpy as np

MIN_RATE = 1e-6  # spikes a bin: a rate of 0 would make one spike infinitely unlikely


def bits_per_spike(rates: np.ndarray, counts: np.ndarray, null_rates: np.ndarray) -> float:
    """Gain in log-likelihood over a null model, in bits a spike, pooled over bins and units.

    (sum x log r - r of the model, minus the same of the null) / (spikes * ln 2): Pei et al. 2021
    (Neural Latents Benchmark), pooled as there. rates (T, U) in spikes a bin, counts (T, U),
    null_rates (U,) or (T, U). NaN where no spike was counted.
    """
    n_spikes = float(counts.sum())
    if n_spikes == 0:
        return float("nan")
    model = np.maximum(rates, MIN_RATE)
    null = np.maximum(np.broadcast_to(null_rates, counts.shape), MIN_RATE)
    gain = (counts * (np.log(model) - np.log(null)) - (model - null)).sum(dtype=np.float64)
    return float(gain / (n_spikes * np.log(2.0)))
