"""What every peer is given and what it hands back; model choice on rolling origins inside the training part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from neds_core import toml
from neds_core.config import TrainConfig
from neds_core.data import scalers, session as sessions, session_file
from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, Session, Splits
from neds_core.scores import r2 as scores

Setting = dict[str, Any]  # JSON values only: a finished row keeps the setting that was chosen
Predict = Callable[[Session], np.ndarray]
ORIGINS = ((0.6, 0.7), (0.7, 0.8))  # shares of the recording: fit before, score between


@dataclass(frozen=True, slots=True)
class Task:
    """One recording, split once. `folds` are (before, after) pairs inside the training part `parts.development`.

    `scale` is estimated on parts.train. `quick` asks for smaller grids and budgets.
    """

    folder: Path
    session: Session
    parts: Splits
    specs: tuple[BehaviourSpec, ...]
    scale: Scalers
    folds: tuple[tuple[Session, Session], ...]
    config: TrainConfig
    quick: bool


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted peer.

    predict(session) -> (n, V) in units for a decoder, or (n, U) spikes a bin for an encoder; rows follow the
    segments' bins. Of classes: (S, Q) int64, what is guessed of each trial. step(counts (U,), clock): one live bin,
    for its cost; None where a peer cannot run live.
    `seconds`: what an earlier training took, where the peer was loaded and not trained here.
    """

    predict: Predict
    parameters: int
    step: Callable[[np.ndarray, int], object] | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """search(task) -> the setting chosen, and what was searched in words; fit(task, setting, seed).

    Of a `Task`, or of what else its block is split into.
    """

    name: str
    search: Callable[[Any], tuple[Setting, str]]
    fit: Callable[[Any, Setting, int], Fitted]
    uses: str = ""  # beyond past spikes: "time" in the trial, "future" spikes
    seeds: int = 1
    loaded: bool = False  # from checkpoints that were trained before: the same in a quick table


def chronological(folder: Path, config_name: str, quick: bool) -> Task:
    """The recording of a training configuration, split 70/10/20 in time; folds are rolling origins."""
    config = toml.load(folder / config_name, TrainConfig)
    session = session_file.load(folder / config.recording)
    folds = tuple((sessions.part(session, 0.0, a), sessions.part(session, a, b)) for a, b in ORIGINS)
    return _task(folder, config, session, sessions.split(session), folds, quick)


def at_random(folder: Path, config_name: str, quick: bool, seed: int = 42) -> Task:
    """The same, with the trials of each part drawn at random; for tables that show both splits."""
    config = toml.load(folder / config_name, TrainConfig)
    session = session_file.load(folder / config.recording)
    order = np.random.default_rng(seed).permutation(len(session.segments))

    def drawn(begin: float, end: float) -> Session:
        rows = np.sort(order[round(begin * len(order)) : round(end * len(order))])
        return sessions.select(session, rows)

    parts = Splits(drawn(0.0, 0.7), drawn(0.7, 0.8), drawn(0.8, 1.0))
    folds = tuple((drawn(0.0, a), drawn(a, b)) for a, b in ORIGINS)
    return _task(folder, config, session, parts, folds, quick)


def _task(
    folder: Path,
    config: TrainConfig,
    session: Session,
    parts: Splits,
    folds: tuple[tuple[Session, Session], ...],
    quick: bool,
) -> Task:
    specs = tuple(session.spec(name) for name in config.outputs if session.spec(name).kind == "continuous")
    every = tuple(session.spec(n) for n in config.outputs)
    scale = scalers.fit(parts.train, every, config.min_rate_hz, config.model.filter_taus_ms)
    return Task(folder, session, parts, specs, scale, folds, config, quick)


def targets(task: Task, session: Session) -> np.ndarray:
    """(n, V) float64 in units, NaN where undefined or where the bin has a fault."""
    bins = session.bins()
    y = np.stack([session.values[s.name][bins].astype(np.float64) for s in task.specs], axis=1)
    y[~session.valid[bins]] = np.nan
    return y


def standard(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (V,) of the outputs in the training part."""
    names = [s.name for s in task.specs]
    return np.array([task.scale.mean[n] for n in names]), np.array([task.scale.sd[n] for n in names])


def shown_counts(task: Task, session: Session) -> np.ndarray:
    """Counts (T, U) float32 of the whole recording with filtered units and faulty bins as zeros."""
    return np.where(task.scale.kept & session.valid[:, None], session.counts, 0).astype(np.float32)


def parameters_of(network: nn.Module) -> int:
    """How many numbers a network has."""
    return sum(p.numel() for p in network.parameters())


def r2_of(task: Task, session: Session, predicted: np.ndarray) -> np.ndarray:
    """R2 (V,) of a prediction (n, V)."""
    y = targets(task, session)
    known = np.isfinite(y)
    return np.array([scores.r2(y[k, v], predicted[k, v]) for v, k in enumerate(known.T)])


def choose(
    task: Task, settings: Sequence[Setting], fit: Callable[[Setting, Session], Predict], per_output: bool
) -> tuple[list[int], np.ndarray]:
    """Index of the best setting of each output, or one for all, by mean R2 over the folds; and the skills (S, V)."""
    skills = np.zeros((len(settings), len(task.specs)))
    for s, setting in enumerate(settings):
        for before, after in task.folds:
            skills[s] += r2_of(task, after, fit(setting, before)(after)) / len(task.folds)
    if per_output:
        return [int(i) for i in skills.argmax(0)], skills
    return [int(skills.mean(1).argmax())] * len(task.specs), skills
