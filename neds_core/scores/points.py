"""Median errors of decoded points and angles, with intervals by bootstrap over blocks and training seeds.

A median is no statistic of sums: each resample weighs the errors by how often their block was drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neds_core.data.session import BehaviourSpec
from neds_core.scores import bootstrap
from neds_core.scores.bootstrap import RULES, Interval

AT_ONCE = 100  # resamples whose weights of every error are in memory together


def angles(specs: tuple[BehaviourSpec, ...]) -> dict[str, tuple[BehaviourSpec, BehaviourSpec]]:
    """The cosine and the sine of each angle that has both, by its group's name."""
    sides = {(s.group, s.angle): s for s in specs if s.angle}
    names = dict.fromkeys(group for group, _ in sides)
    return {g: (sides[g, "cos"], sides[g, "sin"]) for g in names if {(g, "cos"), (g, "sin")} <= sides.keys()}


def groups(specs: tuple[BehaviourSpec, ...]) -> dict[str, tuple[BehaviourSpec, ...]]:
    """The outputs of each point by its group's name, and those of each angle, the cosine first."""
    names = sorted({s.group for s in specs if s.group and not s.angle})
    return {name: tuple(s for s in specs if s.group == name) for name in names} | angles(specs)


def distance(target: np.ndarray, value: np.ndarray) -> np.ndarray:
    """(n,) distance of points (n, K), in their unit; NaN where either is unknown."""
    return np.linalg.norm(value - target, axis=1)


def angle_deg(point: np.ndarray) -> np.ndarray:
    """(n,) angle of (cosine, sine) rows (n, 2) of any length above 0, -180 to 180 degrees; NaN where unknown."""
    return np.degrees(np.arctan2(point[:, 1], point[:, 0]))


def turn_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) angle between (cosine, sine) rows (n, 2) the short way round, 0 to 180 degrees; NaN where unknown."""
    return np.abs((angle_deg(second) - angle_deg(first) + 180.0) % 360.0 - 180.0)


class Median(NamedTuple):
    """The median error of all bins, and that of each resample (`RULES.times`,)."""

    value: float
    resampled: np.ndarray


def median(error: np.ndarray, group: np.ndarray, seed: int = 0) -> Median:
    """Of errors (n,), NaN = left out; group (n,): what is drawn together (`Resampling.groups`).

    Errors of the same groups are resampled alike with the same seed, so that their medians can be paired.
    """
    names, index = np.unique(group, return_inverse=True)
    times = bootstrap.times_drawn(np.random.default_rng(seed), len(names), RULES.times).astype(np.int32)
    known = np.flatnonzero(np.isfinite(error))
    order = known[np.argsort(error[known], kind="stable")]
    ranked, place = error[order], index[order]
    each = [_medians(ranked, times[k : k + AT_ONCE, place]) for k in range(0, RULES.times, AT_ONCE)]
    return Median(float(np.median(ranked)) if len(ranked) else float("nan"), np.concatenate(each))


def _medians(ranked: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Medians (R,) of ranked errors (n,), each `times` (R, n) there; NaN where none is."""
    if not len(ranked):
        return np.full(len(times), np.nan)
    upto = np.cumsum(times, axis=1, dtype=np.int32)
    n = upto[:, -1:]
    lower, upper = (np.count_nonzero(upto <= k, axis=1).clip(max=len(ranked) - 1) for k in ((n - 1) // 2, n // 2))
    return np.where(n[:, 0] > 0, 0.5 * (ranked[lower] + ranked[upper]), np.nan)


def pooled(seeds: list[Median]) -> Interval:
    """Mean over training seeds; blocks and seeds are resampled together."""
    return bootstrap.percentiles(_mean(seeds), _over_seeds(np.random.default_rng(0), seeds))


def paired(first: list[Median], second: list[Median]) -> Interval:
    """Mean of `first` over its training seeds minus that of `second`; below 0: the first is nearer."""
    rng = np.random.default_rng(0)
    gain = _over_seeds(rng, first) - _over_seeds(rng, second)
    return bootstrap.percentiles(_mean(first) - _mean(second), gain)


def _over_seeds(rng: np.random.Generator, seeds: list[Median]) -> np.ndarray:
    return bootstrap.over_seeds(rng, np.stack([each.resampled for each in seeds]))


def _mean(seeds: list[Median]) -> float:
    return float(np.mean([each.value for each in seeds]))
