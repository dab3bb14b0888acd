"""Which block a task is in: a 3-state filter across trials.

Blocks of p(left) = 0.5, 0.2, 0.8 follow the rule of the International Brain Laboratory's task: it starts
at 0.5, leaves it for good, and then alternates. A filter belief is a forward pass of a hidden Markov
model (Rabiner, Proc. IEEE 77:257, 1989, eq. 19-20, normalised at each trial), so it is causal over trials.
"""

from __future__ import annotations

import numpy as np

from neds_core.data.synthetic import P_LEFT
from neds_core.errors import DataError

HAZARD = (1 / 90, 1 / 51, 1 / 51)  # of leaving 0.5, 0.2, 0.8: 90 trials, then 51 in the mean of the task's rule


def transitions(hazard: tuple[float, float, float] = HAZARD) -> np.ndarray:
    """(3, 3): p(block of the next trial | block of this one), rows sum to 1."""
    first, low, high = hazard
    return np.array([[1 - first, first / 2, first / 2], [0.0, 1 - low, low], [0.0, high, 1 - high]])


def side_evidence(left: np.ndarray) -> np.ndarray:
    """Log-likelihood (S, 3) of the stimulus sides: left (S,) 1.0 left, 0.0 right, NaN not seen."""
    p = np.array(P_LEFT)
    seen = np.log(np.where(left[:, None] > 0.5, p, 1 - p))
    return np.where(np.isnan(left)[:, None], 0.0, seen)


def filter_blocks(evidence: np.ndarray, hazard: tuple[float, float, float] = HAZARD) -> np.ndarray:
    """Posterior (S, 3) of the block given the trials so far, its own included.

    evidence (S, 3): log p(what was seen in the trial | block), of spikes, sides, or their sum; zeros where
    nothing was seen. The first trial is in block 0.5.
    """
    if evidence.ndim != 2 or evidence.shape[1] != 3 or not np.isfinite(evidence).all():
        raise DataError(f"block evidence is {evidence.shape} or not finite; give log-likelihoods (trials, 3)")
    step = transitions(hazard)
    belief = np.array([1.0, 0.0, 0.0])
    out = np.empty(evidence.shape)
    for s, seen in enumerate(evidence):
        prior = belief if s == 0 else belief @ step
        joint = prior * np.exp(seen - seen.max())
        total = joint.sum()
        # Evidence beyond float64 against every possible block says nothing: keep the prior.
        belief = joint / total if total > 0 else prior
        out[s] = belief
    return out
