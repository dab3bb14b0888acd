"""Whether a probability means what it says: Guo et al. 2017, "On Calibration of Modern Neural Networks"."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

N_BINS = 15
LOWEST = 1e-9  # probability below which a logarithm says no more
TEMPERATURES = (0.05, 20.0)


class Reliability(NamedTuple):
    """Trials by confidence, in equal bins of (0, 1]: (K,) each, NaN where a bin is empty."""

    confidence: np.ndarray  # mean probability of the guessed class
    accuracy: np.ndarray  # share of guesses that are right
    n: np.ndarray  # trials


def reliability(probs: np.ndarray, label: np.ndarray, n_bins: int = N_BINS) -> Reliability:
    """probs (n, C), label (n,) int. Guo et al. 2017, sec. 2: the bins behind the reliability diagram."""
    confidence, right = probs.max(1), probs.argmax(1) == label
    row = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    n = np.bincount(row, minlength=n_bins)
    sure, good = (np.bincount(row, v, n_bins) / np.maximum(n, 1) for v in (confidence, right))
    return Reliability(np.where(n > 0, sure, np.nan), np.where(n > 0, good, np.nan), n)


def reliability_error(probs: np.ndarray, label: np.ndarray, n_bins: int = N_BINS) -> float:
    """Mean |accuracy - confidence| over confidence bins, weighted by their trials: 0 to 1.

    probs (n, C), label (n,) int. Guo et al. 2017, eq. 3, where it is called expected calibration error.
    """
    found = reliability(probs, label, n_bins)
    return float(np.nansum(np.abs(found.accuracy - found.confidence) * found.n) / len(label))


def with_temperature(probs: np.ndarray, temperature: float, prior: np.ndarray | None = None) -> np.ndarray:
    """softmax(log p + log(probs / p) / temperature) (n, C): above 1 less sure, below 1 surer.

    prior p (C,), None = even odds: what is said without evidence. Whichever class has the most probability over its
    prior stays the same.
    """
    logits = np.log(np.maximum(probs, LOWEST))
    base = np.zeros(probs.shape[1]) if prior is None else np.log(prior)
    logits = base + (logits - base) / temperature
    power = np.exp(logits - logits.max(1, keepdims=True))
    return power / power.sum(1, keepdims=True)


def fit_temperature(probs: np.ndarray, label: np.ndarray, prior: np.ndarray | None = None) -> float:
    """The temperature with the least cross-entropy (Guo et al. 2017, sec. 4.2), by golden section on its logarithm.

    Give it trials that serve nothing else: neither training, nor stopping, nor scoring. prior: see `with_temperature`.
    Cross-entropy is convex in 1 / temperature, so there is one minimum.
    """

    def cost(log_temperature: float) -> float:
        scaled = with_temperature(probs, float(np.exp(log_temperature)), prior)
        return float(-np.log(np.maximum(scaled[np.arange(len(label)), label], LOWEST)).mean())

    low, high = np.log(TEMPERATURES)
    golden = (np.sqrt(5.0) - 1.0) / 2.0
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if cost(left) < cost(right) else (left, high)
    return float(np.exp((low + high) / 2.0))
