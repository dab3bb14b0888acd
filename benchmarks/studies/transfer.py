"""`neds-rt bench transfer`: does a NEDS that was trained on other mice help a new mouse with few trials?

Each mouse is held out in turn. A trunk is trained on all sessions of the others, then fine-tuned on the first n
trials of each session of the held-out mouse, beside the same network in three other ways: from scratch, with a
random trunk that stays as it is, and on a trunk whose training saw labels permuted among trials. Every training has
a fixed schedule; what it says at a few steps is kept, and `transfer_table` chooses the step by the other mice.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec import Struct

from benchmarks import rows as finished
from benchmarks.accuracy.mice import fine_tuning, trunks
from benchmarks.accuracy.mice.fine_tuning import Schedule
from benchmarks.accuracy.mice.steinmetz import Bundle
from benchmarks.studies import transfer_judge
from benchmarks.studies.made_up import MadeUp
from benchmarks.studies.transfer_judge import ALL, Asked, Case, Sums
from benchmarks.studies.trunks import kept, permuted_parts
from neds_core.config import FitConfig, MaskConfig, ModelConfig, TrainConfig
from neds_core.data import ceiling
from neds_core.errors import ConfigError, DataError
from neds_core.train.log import Progress
from neds_core.train.loop import Plan, Training
from neds_core.train.many import Pretrained

Row = dict[str, Any]
CONTROLS = ("scratch", "random trunk", "shuffled trunk")
CONDITIONS = ("pretrained", *CONTROLS)
PLAIN = "no network"  # logistic regression or causal ridge; the trial average for encoding
CEILING = "ceiling"  # of made-up recordings: whoever knows how they were made
VERSION = 2  # of a row's meaning: raise it where it changes, so that older rows are computed again


class Study(Struct, frozen=True):
    """Sizes and schedules; a fine-tuning trains new unit rows for `new_steps` of its steps, then everything.

    Schedules are those of up to `headline` trials, and of more.
    """

    trials: tuple[int, ...] = (30, ALL, 10, 100)  # in the order in which they are run
    headline: int = 30
    seeds: int = 3  # at the headline; one elsewhere
    asked: Asked = Asked()
    references: tuple[str, ...] = (PLAIN,)
    model: ModelConfig = trunks.MODEL
    masks: MaskConfig = trunks.MASKS["multi"]
    pretrain: FitConfig = trunks.FIT
    new_steps: int = 16
    snapshots: tuple[int, ...] = (20, 40, 80)  # the last is the schedule's end
    snapshots_many: tuple[int, ...] = (48, 96, 144)
    batch: int = 8
    learning_rate: float = 3e-3
    tuning_rate: float = 1.5e-3  # of everything, on a trunk that knows something

    def many(self, trials: int) -> bool:
        """Whether these are more trials than the headline's."""
        return trials == ALL or trials > self.headline

    def looks(self, trials: int) -> tuple[int, ...]:
        """Snapshot steps."""
        return self.snapshots_many if self.many(trials) else self.snapshots


QUICK = Study(
    trials=(30,),
    seeds=1,
    pretrain=msgspec.structs.replace(trunks.FIT, steps=40),
    new_steps=8,
    snapshots=(8, 16),
)


TRACES = ("wheel_velocity", "whisker_motion_energy")
MADE_UP = {"asked": Asked((*TRACES, "choice"), ("choice",), TRACES), "references": (PLAIN, CEILING)}


def study(quick: bool, made_up: bool) -> Study:
    """Of the mice, or the same of made-up animals."""
    return msgspec.structs.replace(QUICK if quick else Study(), **(MADE_UP if made_up else {}))


def sized(study: Study, trials: list[int] | None, seeds: int | None) -> Study:
    """The study with other numbers of trials or seeds. Refuses one without its headline."""
    counts = tuple(dict.fromkeys(trials or study.trials))
    if study.headline not in counts:
        raise ConfigError(f"--trials: {study.headline} is not among them, and the headline needs it; add it")
    return msgspec.structs.replace(study, trials=counts, seeds=seeds or study.seeds)


@dataclass(frozen=True, slots=True)
class Job:
    """One training."""

    bundle: Bundle
    trials: int
    condition: str
    seed: int

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes its row the same row, in the order of `KEY`."""
        return (self.bundle.session.name, self.trials, self.condition, self.seed)


KEY = ("session", "trials", "condition", "seed")


def jobs(study: Study, bundles: list[Bundle]) -> Iterator[Job]:
    """All trainings, the headline first; what has no network has one seed, and so have the trunks."""
    for trials in study.trials:
        for seed in range(study.seeds if trials == study.headline else 1):
            for one in bundles:
                for condition in (*CONDITIONS, *(study.references if seed == 0 else ())):
                    yield Job(one, trials, condition, seed)


def identity(study: Study, bundles: list[Bundle]) -> str:
    """Of the settings and the data: rows and trunks of others are not taken for those of this study.

    How many rows there are changes none of them.
    """
    parts = (VERSION, msgspec.structs.replace(study, trials=(), seeds=0), [one.sha256 for one in bundles])
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:12]


def recipe(study: Study, condition: str, trials: int) -> TrainConfig:
    """A condition's configuration: the same network, masks, steps and batches in all of them."""
    schedule = Schedule(
        steps=study.looks(trials)[-1],
        new_steps=study.new_steps,
        batch=study.batch,
        window_bins=study.pretrain.window_bins,
        learning_rate=study.learning_rate,
        tuning_rate=study.tuning_rate,
    )
    return fine_tuning.recipe(condition, study.asked.outputs, study.model, study.masks, schedule)


def trunk_of(study: Study, bundles: list[Bundle], job: Job, folder: Path) -> Pretrained | None:
    """The trunk of a job's condition, from its file or trained now on the sessions of the other mice."""
    if job.condition not in ("pretrained", "shuffled trunk"):
        return None
    others = [one for one in bundles if one.mouse != job.bundle.mouse]
    if not others:
        raise DataError("a trunk for a new mouse needs sessions of another; give a folder with two mice")
    outputs = study.asked.outputs
    config = trunks.config_of(others, study.model, study.masks, study.pretrain, seed=0, outputs=outputs)
    kind = job.condition.replace(" ", "-")
    path = folder / f"transfer-{identity(study, bundles)}-{job.bundle.mouse}-{kind}.safetensors"
    parts = permuted_parts(others, config.seed) if job.condition == "shuffled trunk" else None
    return kept(path, others, config, parts)


def snapshots(study: Study, job: Job, found: Case, trunk: Pretrained | None) -> list[Row]:
    """Train once; the averaged weights' validation scores and test rows at each snapshot step."""
    config = recipe(study, job.condition, job.trials)
    start = fine_tuning.start_of(config, found.source, trunk, job.seed)
    training = Training(Plan(config, (found.source,), job.seed, start=start))
    taken: list[Row] = []

    def look(progress: Progress) -> None:
        if progress.step in study.looks(job.trials):
            model = training.learner.smooth
            taken.append(_snapshot(study, progress.step, found.validation.neds(model), found.test.neds(model)))

    training.run(look)
    return taken


def _snapshot(study: Study, step: int, validation: Sums, test: Sums) -> Row:
    statistics = study.asked.statistics
    return {
        "step": step,
        "validation": {name: float(statistics[name](sums.sum(0))) for name, sums in validation.items()},
        "test": {name: np.round(sums, 3).tolist() for name, sums in test.items()},
    }


def row(study: Study, bundles: list[Bundle], job: Job, folder: Path) -> Row:
    """Compute one job."""
    began = time.process_time()
    trunk = trunk_of(study, bundles, job, folder)
    trained = time.process_time()
    found = transfer_judge.case(job.bundle.session, study.asked, job.trials, trunks.MIN_RATE_HZ)
    if job.condition == PLAIN:
        taken = [_snapshot(study, 0, *found.plain(study.model.clock_bins))]
    elif job.condition == CEILING:
        if not isinstance(job.bundle, MadeUp):
            raise DataError(f"{job.bundle.session.name} was measured, so its ceiling is not known; leave that row out")
        taken = [_snapshot(study, 0, *found.known(ceiling.decode(job.bundle.recording)))]
    else:
        taken = snapshots(study, job, found, trunk)
    return {
        "identity": identity(study, bundles),
        **dict(zip(KEY, job.key, strict=True)),
        "mouse": job.bundle.mouse,
        "trained_on": len(found.source.train.segments),
        "snapshots": taken,
        "cpu_seconds": time.process_time() - trained,
        "cpu_seconds_trunk": trained - began,
    }


def read(path: Path, wanted: str) -> dict[tuple[Any, ...], Row]:
    """Finished rows of a study by their keys; a line cut short by a stop is left out."""
    return {tuple(one[k] for k in KEY): one for one in finished.read(path) if one["identity"] == wanted}


def run(bundles: list[Bundle], study: Study, out: Path, say: Callable[[str], None]) -> list[Row]:
    """Compute the rows that `out` lacks, append each as it is done, and return all; trunks lie beside `out`."""
    torch.set_num_threads(1)
    done = read(out, identity(study, bundles))
    finished.ready(out)
    everything = list(jobs(study, bundles))
    for number, job in enumerate(everything, start=1):
        if job.key in done:
            continue
        say(f"{number}/{len(everything)}: {job.bundle.session.name}, {job.trials or 'all'} trials, {job.condition}")
        done[job.key] = finished.append(out, row(study, bundles, job, out.parent))
    return [done[job.key] for job in everything]
