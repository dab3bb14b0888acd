"""Made-up sessions of mice that tell a direction and whether they go, as tests of several rooms need them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.accuracy.mice.steinmetz import OUTPUTS, Bundle
from neds_core.data.session import BehaviourSpec, Session, UnitTable

S, U, BINS, BIN_NS = 120, 12, 20, 20_000_000


def made(seed: int, mouse: str, follows: Callable[[np.ndarray, np.ndarray], np.ndarray], start: int = 0) -> Bundle:
    """120 trials; from bin `start` on, half of the units fire more when `follows(stimulus, choice)` (S,) is 1.

    Choice follows the stimulus in 80 % of the trials with unequal contrasts; every fourth trial is a no-go.
    """
    rng = np.random.default_rng(seed)
    contrast = rng.choice([0.0, 0.5, 1.0], (S, 2))
    side = np.sign(contrast[:, 1] - contrast[:, 0])
    right = np.where((side == 0) | (rng.random(S) < 0.2), rng.random(S) < 0.5, side > 0).astype(np.int64)
    go = (np.arange(S) % 4 == 0).astype(np.int64)
    on = follows(side, right)[:, None, None] * (np.arange(BINS) >= start)[:, None] * (np.arange(U) < U // 2)
    counts = rng.poisson(0.5 + 1.0 * on).astype(np.uint8).reshape(S * BINS, U)
    labels = (np.where(go == 1, -1, right), go, np.select([side < 0, side > 0], [0, 1], -1))
    edges = np.arange(S + 1, dtype=np.int64) * BINS
    session = Session(
        name=f"made{seed}",
        bin_ns=BIN_NS,
        units=UnitTable(np.arange(U), np.full(U, "ca1"), np.full(U, np.nan, np.float32)),
        counts=counts,
        valid=np.ones(S * BINS, bool),
        specs=tuple(BehaviourSpec(name, "class", classes=("a", "b")) for name in OUTPUTS),
        values={name: np.repeat(label, BINS) for name, label in zip(OUTPUTS, labels, strict=True)},
        segments=np.stack([edges[:-1], edges[1:]], axis=1),
        segment_ids=np.arange(S),
        moments={"first_movement": rng.choice([150.0, 250.0, 350.0, 600.0, np.nan], S)},
    )
    return Bundle(session, mouse, contrast, f"sha{seed}")


def of_choice(side: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Units that follow the choice."""
    return right


def of_stimulus(side: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Units that follow the stimulus."""
    return (side > 0).astype(np.int64)


def write(folder: Path, bundles: list[Bundle]) -> None:
    """A new folder of files as published, with the spikes and labels of the bundles; their trials are of one length."""
    folder.mkdir()
    for number, one in enumerate(bundles):
        session, n_trials = one.session, len(one.session.segments)
        counts = session.counts.reshape(n_trials, -1, len(session.units)).transpose(0, 2, 1)
        fine = np.stack([counts, np.zeros_like(counts)], -1).reshape(n_trials, len(session.units), -1)
        side, went = one.labels("stimulus_side"), one.labels("wheel_direction")
        np.savez(
            folder / f"session{number}.npz",
            counts=fine,
            brain_area=session.units.region,
            response_type=np.select([went == 0, went == 1], [1, -1], 0).astype(np.int8),
            contrast_left=np.where(side == 0, 0.5, 0.0),
            contrast_right=np.where(side == 1, 0.5, 0.0),
            reaction_time_ms=np.full(n_trials, np.inf),
            mouse=one.mouse,
            date=f"day{number}",
        )
