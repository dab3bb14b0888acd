"""Cells: one fit of one arm each, kept as a line of JSON when it is done, so that a queue can be cut and gone on with.

A calibration is the product's (`calibration.fitting.fit`) with its defaults. Offered is what its verdict on the
selecting part recommends: NEDS, the ridge or their blend. Nothing is chosen on a test part.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch

from benchmarks import rows as finished
from benchmarks.studies.calibration import bases
from benchmarks.studies.calibration.arms import ALL, EVERY, FITS, ROWS_KEPT, Arm, Day, Mode, parts_of, places, tests_of
from calibration.fitting import fit as fits
from calibration.fitting.base import Base
from calibration.fitting.config import CalibrateConfig, Everything, Readouts, Scratch
from calibration.fitting.fit import Task
from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Judged
from neds_core.data import scalers
from neds_core.data.parts import Parts
from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import ConfigError, DataError
from neds_core.linear import baseline
from neds_core.linear.linear import Linear
from neds_core.scores import bootstrap, judging, r2 as scores
from neds_core.train import validation
from neds_core.train.validation import Both

Row = dict[str, Any]
Sums = dict[str, dict[str, np.ndarray]]  # output -> decoder -> rows of trials or blocks
Linears = tuple[dict[str, Linear], dict[str, Linear], float]

RIDGE = "ridge"
SEEDS = (0, 1, 2)
VERSION = 1  # of a cell's meaning: raise it where it changes, so that older ones are computed again
DIGITS = 6  # of the sums that are kept


class Cell(NamedTuple):
    """One fit. origin: the test part that it is for, `EVERY` = all of them."""

    session: str
    mode: Mode
    amount: int
    origin: int
    condition: str
    seed: int


def queue(arm: Arm) -> Iterator[tuple[Day, Cell]]:
    """All cells of an arm: by amount, the ridge first, then every condition of a seed; the most recent n come last."""
    for mode, amounts in arm.asked:
        for amount in amounts:
            yield from _of_amount(arm, mode, amount)


def _of_amount(arm: Arm, mode: Mode, amount: int) -> Iterator[tuple[Day, Cell]]:
    conditions = arm.conditions if mode == "first" and amount in arm.controls else arm.conditions[:1]
    for seed in SEEDS:
        for day in arm.days:
            for origin in (EVERY,) if mode == "first" else range(len(day.tests)):
                for condition in ((RIDGE,) if seed == SEEDS[0] else ()) + conditions:
                    yield day, Cell(day.session.name, mode, amount, origin, condition, seed)


def identity(arm: Arm) -> str:
    """Of what an arm computes: cells of other settings are not taken for its own."""
    days = [(day.session.name, day.base, day.start, day.tests) for day in arm.days]
    named = {name: [session.name for session in seen] for name, seen in arm.bases.items()}
    parts = (VERSION, arm.number, arm.outputs, days, named, arm.recipe, arm.config, arm.base_seeds, FITS, steps_of(arm))
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:12]


def steps_of(arm: Arm) -> int:
    """Of a network without a trained trunk: as many as both stages of a calibrated one."""
    return arm.config.readouts.steps + arm.config.everything.steps


def config_of(arm: Arm, condition: str, seed: int) -> CalibrateConfig:
    """The product's defaults; without a trained trunk one stage takes as many steps as both of the others."""
    config = msgspec.structs.replace(arm.config, seed=seed, keep_rows=condition == ROWS_KEPT)
    if condition == "scratch":
        of = arm.recipe
        return msgspec.structs.replace(config, model=of.model, masks=of.masks, scratch=Scratch(steps_of(arm)))
    if condition == "random trunk":
        return msgspec.structs.replace(config, readouts=Readouts(steps_of(arm)), everything=Everything(0))
    return config


def base_of(arm: Arm, day: Day, condition: str, seed: int, folder: Path) -> Base | None:
    """What a condition starts from."""
    if condition in ("scratch", RIDGE):
        return None
    kind: dict[str, bases.Kind] = {"random trunk": "random", "shuffled trunk": "shuffled"}
    return bases.trained(arm, day.base, kind.get(condition, "real"), seed, folder)


class Fits:
    """Computes cells; the linear decoders of the last session part are kept, since all its conditions share them."""

    def __init__(self, arm: Arm, folder: Path) -> None:
        self.arm, self.folder = arm, folder
        self.kept: dict[tuple[Any, ...], Linears] = {}

    def row(self, day: Day, cell: Cell) -> Row:
        """Compute one cell."""
        parts = parts_of(self.arm, day, cell.mode, cell.amount, cell.origin)
        base = base_of(self.arm, day, cell.condition, cell.seed, self.folder)
        config, began = config_of(self.arm, cell.condition, cell.seed), time.process_time()
        task = Task(config, parts, Path(day.session.name), "", "study", base)
        row: Row = {"refused": "", "stages": [], "offered": {}, "tests": []}
        first, last = places(self.arm, day, cell.mode, cell.amount, cell.origin)
        row |= {"places": last - first, "trials": len(parts.fit.segments), "animal": day.animal}
        if cell.condition == RIDGE:
            scale, (_, refitted, _) = self._linears(cell, parts)
            row["tests"] = [_kept(_linear_sums(refitted, scale, part, self.arm)) for part in tests_of(day, cell.origin)]
        else:
            self._calibrated(row, task, cell, day)
        return row | {"cpu_s": time.process_time() - began}

    def _calibrated(self, row: Row, task: Task, cell: Cell, day: Day) -> None:
        _, (once, refitted, seconds) = self._linears(cell, task.parts)
        try:
            found = fits.fit(task, (dict(once), dict(refitted), seconds))
        except (DataError, ConfigError) as error:
            row["refused"] = str(error)
            return
        row["stages"] = [[step.name, step.seconds, step.skill] for step in found.steps]
        row["offered"] = {name: verdict.recommended for name, verdict in found.made.header.verdicts.items()}
        row["tests"] = [_kept(network_sums(found.made, part)) for part in tests_of(day, cell.origin)]

    def _linears(self, cell: Cell, parts: Parts) -> tuple[Scalers, Linears]:
        task = Task(config_of(self.arm, "scratch", 0), parts, Path(cell.session), "", "study")
        config = fits.recipe(task)
        specs = tuple(parts.fit.spec(name) for name in self.arm.outputs)
        scale = scalers.fit(parts.fit, specs, config.min_rate_hz)
        key = (cell.session, cell.mode, cell.amount, cell.origin)
        if key not in self.kept:
            self.kept = {**dict(list(self.kept.items())[-30:]), key: fits.linears(task, config, specs, scale)}
        return scale, self.kept[key]


def _kept(sums: Sums) -> dict[str, dict[str, list[list[float]]]]:
    def short(one: np.ndarray) -> list[list[float]]:
        return [[float(f"{value:.{DIGITS}g}") for value in row] for row in one]

    return {name: {decoder: short(one) for decoder, one in each.items()} for name, each in sums.items()}


def network_sums(made: Checkpoint, part: Session) -> Sums:
    """Rows of NEDS alone and of what is offered."""
    said = validation.evidence(validation.decode(made.model, made.linear, part, made.scalers), made.specs, part)
    found: Sums = {}
    for spec in made.specs:
        each = judging.values(said, spec.name, judging.shares_of(made, spec.name))
        chosen = {"neds": each["neds"], "offered": each[made.header.verdicts[spec.name].recommended]}
        prior = made.scalers.prior.get(spec.name)
        found[spec.name] = {k: sums_of(said, spec, made.specs, part.bin_ns, v, prior) for k, v in chosen.items()}
    return found


def _linear_sums(linear: dict[str, Linear], scale: Scalers, part: Session, arm: Arm) -> Sums:
    specs = tuple(part.spec(name) for name in arm.outputs)
    each = {s.name: baseline.predict(linear[s.name], part, scale.kept, s.kind) for s in specs}
    said = validation.evidence({name: Both(value, value) for name, value in each.items()}, specs, part)
    return {
        s.name: {RIDGE: sums_of(said, s, specs, part.bin_ns, said.linear[s.name], scale.prior.get(s.name))}
        for s in specs
    }


def sums_of(
    said: Judged, spec: BehaviourSpec, specs: tuple[BehaviourSpec, ...], bin_ns: int, value: np.ndarray,
    prior: np.ndarray | None,
) -> np.ndarray:  # fmt: skip
    """Rows for `statistic_of`: a trial or a block of 10 s each; of a class the trial's last bin, about its prior."""
    target = said.target[spec.name]
    if spec.kind == "class":
        known, share = target >= 0, np.ones(1) if prior is None else prior
        guess = (value[known] / share).argmax(1)
        return scores.recall_sums(target[known].astype(np.int64), guess, len(spec.classes))
    point = [said.target[s.name] for s in specs if judging.same_point(s, spec)]
    known = np.isfinite(point).all(0)
    group = bootstrap.RULES.groups(said.segment, bin_ns)[known]
    return scores.r2_sums(target[known], value[known], group)


def read(path: Path, wanted: str) -> dict[Cell, Row]:
    """Finished cells of an arm; a line cut short by a stop is left out."""
    rows = (one for one in finished.read(path) if one["identity"] == wanted)
    return {Cell(*(one[name] for name in Cell._fields)): one for one in rows}


def run(arm: Arm, path: Path, folder: Path, seconds: float, say: Callable[[str], None]) -> dict[Cell, Row]:
    """Compute the cells that `path` lacks, each appended as it is done, until `seconds` are over; and return all."""
    torch.set_num_threads(1)
    name, began = identity(arm), time.monotonic()
    done, each, fit = read(path, name), list(queue(arm)), Fits(arm, folder)
    finished.ready(path)
    for number, (day, cell) in enumerate(each, start=1):
        if cell in done:
            continue
        if time.monotonic() - began > seconds:
            break
        row = {"identity": name, **cell._asdict(), **fit.row(day, cell)}
        done[cell] = finished.append(path, row)
        amount = "all" if cell.amount == ALL else cell.amount
        said = row["refused"] or ", ".join(f"{k} {v}" for k, v in row["offered"].items())
        say(
            f"{number}/{len(each)}: {cell.session}, {cell.mode} {amount}, origin {cell.origin}, {cell.condition}, "
            f"seed {cell.seed}, {row['cpu_s']:.1f} s: {said}"
        )
    return done
