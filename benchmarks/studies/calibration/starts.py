"""Ways to start the rows of units that a base has never seen, by the skill on the selecting part.

The demo's units in two halves. A base is trained on half A (trials 0 to 119: 75 % fit, 25 % select) and calibrated on
half B with the last 50 trials before trial 238. Three seeds: of the base, and of the fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks.recordings import EXAMPLES
from benchmarks.studies.calibration import row_starts
from benchmarks.studies.calibration.arms import FITS
from benchmarks.studies.calibration.five import WHEEL
from calibration.fitting import fit as fits
from calibration.fitting.base import Base
from calibration.fitting.config import CalibrateConfig, Everything, FitConfig, Scratch, Stage
from calibration.fitting.fit import Stages, Task
from calibration.rehearsal.halves import half
from neds_core.data import scalers, session as sessions, session_file
from neds_core.data.parts import GAP_SEGMENTS, Parts
from neds_core.data.session import Session
from neds_core.train import many
from neds_core.train.sources import Source

TRIALS, LAST, SEEDS, TEST = 50, 238, (0, 1, 2), slice(240, 300)
BASE = CalibrateConfig(
    outputs=WHEEL, min_rate_hz=0.5, scratch=Scratch(260, 2e-3),
    fit=FitConfig(batch=24, ema_decay=0.98, check_every=20, patience=8),
)  # fmt: skip
TODAY = CalibrateConfig(min_rate_hz=0.5, ridge_start=False, everything=Everything(0, 1e-3))
STARTS: dict[str, dict[str, Any]] = {
    "fresh rows": {},
    "read-outs from the ridge": {"ridge_start": True},
    "spikes alone first": {"spikes": Stage(40, 3e-3)},
}


def parts_of(session: Session, first: int, n: int) -> Parts:
    """n trials from `first` on, of which 75 % fit and the last 25 % select; nothing here reads the part that judges."""
    fitting = round(FITS * (n - GAP_SEGMENTS))
    places = slice(first, first + fitting), slice(first + fitting + GAP_SEGMENTS, first + n), TEST
    return Parts(*(sessions.select(session, rows) for rows in places))


def stages_of(config: CalibrateConfig, parts: Parts, base: Base | None, seed: int) -> Stages:
    """The stages of a calibration of these parts."""
    task = Task(msgspec.structs.replace(config, seed=seed), parts, Path("ibl-dy016"), "", "study", base)
    recipe = fits.recipe(task)
    specs = tuple(parts.fit.spec(name) for name in recipe.outputs)
    return Stages(task, recipe, Source(parts.fit, parts.select, scalers.fit(parts.fit, specs, recipe.min_rate_hz)))


def base_of(session: Session, seed: int) -> Base:
    """The base of half A."""
    stages = stages_of(BASE, parts_of(session, 0, 120), None, seed)
    model, source, config = stages.run(), stages.source, stages.config
    recipe = many.PretrainConfig(("ibl-dy016",), WHEEL, model=model.config, masks=config.masks, fit=config.fit)
    header = many.Header(many.FORMAT, source.train.bin_ns, recipe, model.specs, (many.row(source),), 0, 0.0, 0.0)
    return Base("A", many.Pretrained(header, model), ("",), config.masks)


def run(say: Callable[[str], None]) -> dict[str, Any]:
    """Skill on the selecting part of each way to start, before and after the stage of rows and read-outs."""
    torch.set_num_threads(1)
    whole = session_file.load(EXAMPLES / "ibl-dy016" / "session.npz")
    recording, session = half(whole, 0), half(whole, 1)
    old, parts, rows = sessions.select(recording, slice(0, 120)), parts_of(session, LAST - TRIALS, TRIALS), []
    bases = [base_of(recording, seed) for seed in SEEDS]
    for name in (*STARTS, *row_starts.KINDS):
        skills = []
        for seed, base in zip(SEEDS, bases, strict=True):
            stages = stages_of(msgspec.structs.replace(TODAY, **STARTS.get(name, {})), parts, base, seed)
            if name in row_starts.KINDS:
                stages.start = lambda model, k=name, b=base: row_starts.take(model, k, parts.fit, old, b.trunk.model)
            stages.run()
            skills.append([step.skill for step in stages.steps])
        each = np.array([[one[0], one[-1]] for one in skills], float)
        rows.append({"start": name, "seeds": each.tolist(), "before": each[:, 0].mean(), "after": each[:, 1].mean()})
        say(f"{name}: done")
    found = {"starts": rows}
    say("\n".join(lines(found)))
    return found


def lines(found: dict[str, Any]) -> Iterator[str]:
    """A table in Markdown."""
    yield "| start | skill before | skill after |"
    yield "| --- | --- | --- |"
    for row in found["starts"]:
        yield f"| {row['start']} | {row['before']:.3f} | {row['after']:.3f} |"
