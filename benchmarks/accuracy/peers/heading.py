"""Bayes filter over an angle: tuning curves on the circle, Poisson spikes, a random walk (see `place`)."""

from __future__ import annotations

from itertools import product

import numpy as np

from benchmarks.accuracy.peers.place import MIN_RATE_HZ, Fields, fitted, follow
from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, Task, shown_counts, targets
from neds_core.data.session import Session
from neds_core.scores import points

CELLS = 72  # of 5 degrees


def centres() -> np.ndarray:
    """(K,) angle of each cell's middle, degrees."""
    return (np.arange(CELLS) + 0.5) * 360.0 / CELLS


def circle(sigma: float) -> np.ndarray:
    """(K, K) a Gaussian of `sigma` cells round the circle; rows sum to 1."""
    reach = np.abs(np.arange(CELLS)[:, None] - np.arange(CELLS))
    near = np.exp(-0.5 * (np.minimum(reach, CELLS - reach) / sigma) ** 2)
    return near / near.sum(1, keepdims=True)


def walk(sigma: float, jump: float) -> np.ndarray:
    """(K, K) transition of one bin: a Gaussian step of `sigma` cells, anywhere with probability `jump`."""
    return (1 - jump) * circle(sigma) + jump / CELLS


def fit(degrees: np.ndarray, counts: np.ndarray, setting: Setting) -> Fields:
    """Tuning curves from angles (n,) and counts (n, U): smoothed spikes over smoothed time.

    setting["weight"]: share of the spikes' evidence that is used, below 1 where they vary more than a Poisson process.
    """
    cell = (np.floor(degrees / (360.0 / CELLS)) % CELLS).astype(np.int64)
    smooth = circle(setting["field_cells"])
    spent = np.bincount(cell, minlength=CELLS).astype(np.float64)
    spikes = np.stack([np.bincount(cell, c, CELLS) for c in counts.T], axis=1)
    rate = np.maximum(smooth @ spikes / np.maximum(smooth @ spent, 1e-3)[:, None], setting["floor"])
    weight, prior = setting["weight"], (spent + 1.0) / (spent + 1.0).sum()
    step = walk(setting["step_cells"], setting["jump"])
    return Fields(rate=weight * rate, log_rate=weight * np.log(rate), step=step, prior=prior)


def read(belief: np.ndarray) -> np.ndarray:
    """(2,) mean cosine and sine of p (K,): the least squared error, and the mean direction."""
    radians = np.radians(centres())
    return np.array([belief @ np.cos(radians), belief @ np.sin(radians)])


def fit_on(task: Task, setting: Setting, before: Session) -> Fields:
    """The filter of a setting on a part of the recording."""
    y, bins = targets(task, before), before.bins()
    known = np.isfinite(y).all(1)
    counts = shown_counts(task, before)[bins][known].astype(np.float64)
    return fit(points.angle_deg(y[known]), counts, setting | {"floor": MIN_RATE_HZ * before.bin_ns * 1e-9})


def grid(quick: bool) -> list[Setting]:
    """Width of the tuning curves' smoothing and of the random walk (cells), jumps, weight of the spikes."""
    keys = ("field_cells", "step_cells", "jump", "weight")
    fields, steps, jumps, weights = (1.5,), (0.5, 1.0), (1e-4,), (0.5, 1.0)
    if not quick:
        fields, steps, jumps, weights = (1.0, 2.0, 3.0), (0.3, 0.5, 0.7, 1.0), (0.0, 1e-5, 1e-3), (0.25, 0.5, 1.0)
    return [dict(zip(keys, row, strict=True)) for row in product(fields, steps, jumps, weights)]


def search(task: Task) -> tuple[Setting, str]:
    """Least median error over the rolling origins."""
    settings, errors = grid(task.quick), []
    for setting in settings:
        fits = [(after, follow(task, fit_on(task, setting, before), read, after)) for before, after in task.folds]
        errors.append(sum(np.nanmedian(points.turn_deg(targets(task, after), value)) for after, value in fits))
    return settings[int(np.argmin(errors))], f"{len(settings)} settings by median error on rolling origins"


def refit(task: Task, setting: Setting, seed: int) -> Fitted:
    """The chosen filter on training + validation."""
    return fitted(task, fit_on(task, setting, task.parts.development), read, 3)


BAYES = Peer("Bayes filter, tuning curves", search, refit)
