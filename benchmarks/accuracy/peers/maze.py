"""Bayes filter over the place in a maze: as `place`, on visited cells of a grid, a field for all directions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from benchmarks.accuracy.peers.place import MIN_RATE_HZ, Fields, Say, best_of, fitted, follow
from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, Task, shown_counts, targets
from neds_core.data.session import Session

CELL_PX = 12.0
LEAST_S = 0.2  # a cell in which less time was spent in training is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Maze(Fields):
    """`Fields` over K visited cells; point (K, 2): the mean training position in each."""

    point: np.ndarray


def fit(position: np.ndarray, counts: np.ndarray, bin_s: float, setting: Setting) -> Maze:
    """Fields from positions (n, 2) px and counts (n, U) of the training part.

    A field is smoothed spikes over smoothed time; field_px and walk_px are the Gaussians' widths, jump the
    probability of a step to anywhere.
    """
    square = np.floor((position - position.min(0)) / CELL_PX).astype(np.int64)
    _, cell = np.unique(square, axis=0, return_inverse=True)
    cell = cell.ravel()
    kept = np.bincount(cell) * bin_s >= LEAST_S
    cell, inside = (np.cumsum(kept) - 1)[cell], kept[cell]
    cell, position, counts = cell[inside], position[inside], counts[inside]
    spent = np.bincount(cell).astype(np.float64)
    spikes = np.stack([np.bincount(cell, unit, len(spent)) for unit in counts.T], axis=1)
    point = np.stack([np.bincount(cell, position[:, k]) for k in range(2)], axis=1) / spent[:, None]
    far = np.linalg.norm(point[:, None] - point[None], axis=2)
    near = np.exp(-0.5 * (far / setting["field_px"]) ** 2)
    rate = np.maximum((near @ spikes) / (near @ spent)[:, None], MIN_RATE_HZ * bin_s)
    walk = np.exp(-0.5 * (far / setting["walk_px"]) ** 2)
    step = (1 - setting["jump"]) * walk / walk.sum(1, keepdims=True) + setting["jump"] / len(spent)
    return Maze(rate=rate, log_rate=np.log(rate), step=step, prior=spent / spent.sum(), point=point)


def read(maze: Maze, belief: np.ndarray, how: str) -> np.ndarray:
    """A point (2,) of p (K,): its mean, or its most likely cell."""
    return belief @ maze.point if how == "mean" else maze.point[int(belief.argmax())]


def fit_on(task: Task, setting: Setting, before: Session) -> Maze:
    """The filter of a setting on a part of the recording."""
    y = targets(task, before)
    known = np.isfinite(y).all(1)
    counts = shown_counts(task, before)[before.bins()][known].astype(np.float64)
    return fit(y[known], counts, before.bin_ns * 1e-9, setting)


def reader(maze: Maze, setting: Setting) -> Say:
    """`read` of one maze and setting."""
    return lambda belief: read(maze, belief, setting["read"])


def grid(quick: bool) -> list[Setting]:
    """Width of fields and of the random walk (px a bin), and jumps."""
    fields, walks, jumps = ((16.0,), (6.0,), (1e-6,)) if quick else ((10.0, 16.0, 24.0), (3.0, 6.0, 12.0), (1e-4, 1e-6))
    return [
        {"field_px": field, "walk_px": walk, "jump": jump, "read": "mean"}
        for field, walk, jump in product(fields, walks, jumps)
    ]


def search(task: Task) -> tuple[Setting, str]:
    """Fields and walk by median error on the rolling origins, then the read-out."""

    def decode(setting: Setting, before: Session, after: Session) -> np.ndarray:
        maze = fit_on(task, setting, before)
        return follow(task, maze, reader(maze, setting), after)

    settings = grid(task.quick)
    best = best_of(task, settings, decode)
    best = best_of(task, [{**best, "read": how} for how in ("mean", "most likely")], decode)
    return best, f"{len(settings) + 2} settings by median error on rolling origins"


def refit(task: Task, setting: Setting, seed: int) -> Fitted:
    """The chosen filter on training + validation."""
    maze = fit_on(task, setting, task.parts.development)
    return fitted(task, maze, reader(maze, setting), 3)


BAYES = Peer("Bayes filter, place fields in a plane", search, refit)
