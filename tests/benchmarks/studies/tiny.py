"""The transfer study at its smallest, and three made-up mice for it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from benchmarks.accuracy.mice import steinmetz
from benchmarks.accuracy.mice.steinmetz import Bundle
from benchmarks.studies.transfer import Study
from neds_core.config import FitConfig, ModelConfig
from neds_core.data import synthetic
from neds_core.data.session import Session

TRIALS = 40
FIT = FitConfig(steps=4, batch=4, sessions_per_step=2, window_bins=12, ema_decay=0.5, threads=1)
TINY = Study(
    trials=(10, 6),
    headline=10,
    seeds=2,
    model=ModelConfig(width=8, layers=1, heads=2, band=12, window_bins=12, clock_bins=12, registers=1),
    pretrain=FIT,
    new_steps=2,
    snapshots=(2, 4),
    snapshots_many=(2, 4),
    batch=4,
)


def labelled(session: Session, seed: int) -> Session:
    """The session with the study's three outputs: choice and side of the made-up task, and some trials without a go."""
    rng = np.random.default_rng(seed)
    stays = rng.random(TRIALS) < 0.4
    stays[:4] = [True, False, True, False]
    go = np.repeat(stays.astype(np.int64), 12)
    values = {
        "wheel_direction": np.where(go == 1, -1, session.values["choice"]),
        "go": go,
        "stimulus_side": session.values["stimulus_side"],
    }
    specs = tuple(
        msgspec.structs.replace(session.spec("choice"), name=name, classes=classes)
        for name, classes in zip(
            steinmetz.OUTPUTS, (("left", "right"), ("go", "no_go"), ("left", "right")), strict=True
        )
    )
    return replace(session, specs=specs, values=values)


def three_mice() -> list[Bundle]:
    """Three mice with a session each."""
    world = synthetic.World(
        animals=3, sessions=1, trials=TRIALS, trial_bins=12, regions=("ca1", "vis"), units_per_region=5, rate_hz=20.0,
        drift=0.0,
    )  # fmt: skip
    made = synthetic.recordings(world, 0)
    return [
        Bundle(labelled(made[m].session, m), mouse, np.zeros((TRIALS, 2)), f"sha{m}") for m, mouse in enumerate("abc")
    ]
