"""Bayes filter over the place on a track, with directional place fields.

Poisson likelihood of the spikes (Zhang et al. 1998, J Neurophysiol 79:1017), carried in time by a
random walk (Brown et al. 1998, J Neurosci 18:7411), on a grid of places times two running directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, Task, shown_counts, targets
from neds_core.data.session import Session

CELLS = 60  # places along the track
MIN_RATE_HZ = 0.05  # a field is never silent: one spike may not rule a place out
HALF_S = 0.5  # direction and speed in training: displacement over one second


@dataclass(frozen=True, slots=True)
class Track:
    """The track as a line: places along the first principal axis of the training positions.

    centre, axis (2,); edges (K+1,); point (K, 2) mean position of each cell.
    """

    centre: np.ndarray
    axis: np.ndarray
    edges: np.ndarray
    point: np.ndarray

    def cell(self, position: np.ndarray) -> np.ndarray:
        """Cell (n,) of positions (n, 2)."""
        along = (position - self.centre) @ self.axis
        return np.clip(np.searchsorted(self.edges, along, side="right") - 1, 0, len(self.point) - 1)


def line(position: np.ndarray, n_cells: int = CELLS) -> Track:
    """The track of training positions (n, 2); x and y are one variable on it."""
    centre = position.mean(0)
    axis = np.linalg.svd(position - centre, full_matrices=False)[2][0]
    along = (position - centre) @ axis
    edges = np.linspace(along.min(), along.max() + 1e-9, n_cells + 1)
    cell = np.clip(np.searchsorted(edges, along, side="right") - 1, 0, n_cells - 1)
    seen = np.bincount(cell, minlength=n_cells)
    total = np.stack([np.bincount(cell, position[:, k], n_cells) for k in range(2)], axis=1)
    middle = centre + (0.5 * (edges[1:] + edges[:-1]))[:, None] * axis
    return Track(centre, axis, edges, np.where(seen[:, None] > 0, total / np.maximum(seen, 1)[:, None], middle))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """rate, log_rate (N, U) spikes a bin in each state; step (N, N), row = from; prior (N,)."""

    rate: np.ndarray
    log_rate: np.ndarray
    step: np.ndarray
    prior: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Fields):
    """`Fields` over a track: N = 2K states, one running direction, then the other."""

    track: Track


def _smooth(x: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing along axis 0, in cells."""
    reach = np.arange(len(x))
    kernel = np.exp(-0.5 * ((reach[:, None] - reach[None]) / sigma) ** 2)
    return kernel @ x


def walk(n_cells: int, sigma: float, turn: float, jump: float) -> np.ndarray:
    """(2K, 2K) transition of one bin: a Gaussian step, a turn with probability `turn`, anywhere with `jump`."""
    reach = np.arange(n_cells)
    near = np.exp(-0.5 * ((reach[:, None] - reach[None]) / sigma) ** 2)
    near /= near.sum(1, keepdims=True)
    both = np.kron(np.array([[1 - turn, turn], [turn, 1 - turn]]), near)
    return (1 - jump) * both + jump / (2 * n_cells)


def fit(position: np.ndarray, velocity: np.ndarray, counts: np.ndarray, setting: Setting) -> Model:
    """Fields from positions (n, 2), displacements over a second (n, 2) and counts (n, U) of the training part.

    A field is smoothed spikes over smoothed time, each running direction for itself; samples at
    rest (below setting["rest"] px/s) count for both.
    """
    track = line(position)
    n_cells, cell = len(track.point), track.cell(position)
    along = velocity @ track.axis
    fields, time = [], []
    for way in (along >= -setting["rest"], along <= setting["rest"]):
        spikes = np.stack([np.bincount(cell[way], c, n_cells) for c in counts[way].T], axis=1)
        spent = np.bincount(cell[way], minlength=n_cells).astype(np.float64)
        spread = _smooth(spent, setting["field_cells"])
        fields.append(_smooth(spikes, setting["field_cells"]) / np.maximum(spread, 1e-3)[:, None])
        time.append(spent + 1.0)
    rate = np.maximum(np.concatenate(fields), setting["floor"])
    prior = np.concatenate(time)
    step = walk(n_cells, setting["step_cells"], setting["turn"], setting["jump"])
    return Model(track=track, rate=rate, log_rate=np.log(rate), step=step, prior=prior / prior.sum())


Say = Callable[[np.ndarray], np.ndarray]  # a point (2,) of p (N,)


class Filter:
    """The recursion p(state | spikes so far), one bin at a time."""

    def __init__(self, model: Fields) -> None:
        self.model, self.total = model, model.rate.sum(1)
        self.reset()

    def reset(self) -> None:
        """A cold start: where the animal was in training."""
        self.belief, self.first = self.model.prior.copy(), True

    def step(self, counts: np.ndarray | None) -> np.ndarray:
        """counts (U,), None = not seen; returns p (N,)."""
        if not self.first:
            self.belief = self.belief @ self.model.step
        self.first = False
        if counts is not None:
            score = self.model.log_rate @ counts - self.total
            self.belief = self.belief * np.exp(score - score.max())
            self.belief /= self.belief.sum()
        return self.belief


def read(track: Track, belief: np.ndarray, how: str) -> np.ndarray:
    """A point (2,) of p (2K,): the posterior median place (least absolute error on a line), or its mean."""
    place = belief.reshape(2, -1).sum(0)
    if how == "mean":
        return place @ track.point
    return track.point[int(np.searchsorted(np.cumsum(place), 0.5))]


def fit_on(task: Task, setting: Setting, before: Session) -> Model:
    """The filter of a setting on a part of the recording."""
    y, bins = targets(task, before), before.bins()
    half = round(HALF_S * 1e9 / before.bin_ns)
    velocity = np.full_like(y, np.nan)
    velocity[half:-half] = (y[2 * half :] - y[: -2 * half]) / (2 * half * before.bin_ns * 1e-9)
    known = np.isfinite(y).all(1) & np.isfinite(velocity).all(1)
    counts = shown_counts(task, before)[bins][known].astype(np.float64)
    floor = {"floor": MIN_RATE_HZ * before.bin_ns * 1e-9}
    return fit(y[known], velocity[known], counts, setting | floor)


def follow(task: Task, model: Fields, say: Say, session: Session) -> np.ndarray:
    """What `say` reads off (n, 2), cold at each segment."""
    bins, counts = session.bins(), shown_counts(task, session).astype(np.float64)
    first = np.isin(bins, session.segments[:, 0])
    run, out = Filter(model), np.zeros((len(bins), 2))
    for row, t in enumerate(bins):
        if first[row]:
            run.reset()
        out[row] = say(run.step(counts[t] if session.valid[t] else None))
    return out


def fitted(task: Task, model: Fields, say: Say, n_settings: int) -> Fitted:
    """A filter as a peer, with its settings among the parameters."""
    run = Filter(model)

    def step(counts: np.ndarray, clock: int) -> object:
        return say(run.step(counts.astype(np.float64)))

    return Fitted(lambda session: follow(task, model, say, session), model.rate.size + n_settings, step)


def reader(model: Model, setting: Setting) -> Say:
    """`read` of one track and setting."""
    return lambda belief: read(model.track, belief, setting["read"])


def grid(quick: bool) -> list[Setting]:
    """Width of fields, of the random walk (cells a bin), turns, jumps, and the read-out."""
    keys = ("field_cells", "step_cells", "turn", "jump", "read", "rest")
    fields, steps, turns, jumps = (1.5, 2.5), (0.7, 1.0), (0.003, 0.01), (1e-6, 1e-8)
    if not quick:
        fields, steps = (1.0, 1.5, 2.0, 3.0), (0.5, 0.7, 1.0, 1.4)
        turns, jumps = (0.001, 0.003, 0.01, 0.03), (1e-4, 1e-6, 1e-8, 0.0)
    return [dict(zip(keys, row, strict=True)) for row in product(fields, steps, turns, jumps, ("median",), (25.0,))]


def median_error(y: np.ndarray, value: np.ndarray) -> float:
    """Median distance of points (n, 2) where they are known."""
    return float(np.nanmedian(np.linalg.norm(y - value, axis=1)))


def best_of(
    task: Task, settings: Sequence[Setting], decode: Callable[[Setting, Session, Session], np.ndarray]
) -> Setting:
    """Least median error over the rolling origins. decode: fits a setting on one part and decodes another."""
    errors = np.zeros(len(settings))
    for s, setting in enumerate(settings):
        for before, after in task.folds:
            errors[s] += median_error(targets(task, after), decode(setting, before, after))
    return settings[int(errors.argmin())]


def search(task: Task) -> tuple[Setting, str]:
    """Fields and walk by median error on the rolling origins, then the read-out."""

    def decode(setting: Setting, before: Session, after: Session) -> np.ndarray:
        model = fit_on(task, setting, before)
        return follow(task, model, reader(model, setting), after)

    settings = grid(task.quick)
    best = best_of(task, settings, decode)
    best = best_of(task, [{**best, "read": how} for how in ("median", "mean")], decode)
    return best, f"{len(settings) + 2} settings by median error on rolling origins"


def refit(task: Task, setting: Setting, seed: int) -> Fitted:
    """The chosen filter on training + validation."""
    model = fit_on(task, setting, task.parts.development)
    return fitted(task, model, reader(model, setting), 4)


BAYES = Peer("Bayes filter, place fields", search, refit)
