"""How far a decoder may be from what is measured: a standard deviation for each bin, and what its intervals cover."""

from __future__ import annotations

import numpy as np

LEVELS = {"50": 0.6745, "80": 1.2816, "95": 1.9600}  # percent of a normal distribution within so many sd
SHARES = np.linspace(0.0, 1.0, 201)
SMALLEST = 1e-9  # share of the mean variance: where all networks agree, no error is infinitely unlikely


def fit(error: np.ndarray, s: np.ndarray) -> tuple[float, float]:
    """floor and slope >= 0 of sd^2 = floor^2 + (slope s)^2 with the greatest Gaussian likelihood of the errors (n,).

    s (n,): standard deviation between networks, 0 where there is one. As the spread of an ensemble is scaled in
    Lakshminarayanan et al. 2017, with the noise that all networks share beside it. For each share of the two parts the
    best scale is known, so that one dimension is searched.
    """
    square, between = error.astype(np.float64) ** 2, s.astype(np.float64) ** 2
    unit = float(between.mean())
    if not unit > 0.0:
        return float(np.sqrt(square.mean())), 0.0
    best, found = np.inf, (0.0, 0.0)
    for share in SHARES:
        shape = np.maximum((1.0 - share) + share * between / unit, SMALLEST)
        scale = float((square / shape).mean())
        loss = float(np.log(shape).mean()) + np.log(max(scale, np.finfo(float).tiny))
        if loss < best:
            best, found = loss, (float(np.sqrt(scale * (1.0 - share))), float(np.sqrt(scale * share / unit)))
    return found


def coverage(error: np.ndarray, sd: np.ndarray | float) -> dict[str, float]:
    """Share of errors (n,) within the interval of each level, by percent; sd (n,), or one for all."""
    return {level: float((np.abs(error) <= z * sd).mean()) for level, z in LEVELS.items()}
