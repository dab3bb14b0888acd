"""What is calibrated, and how its network is trained: the stages, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct

from calibration.fitting import base as bases, start
from calibration.fitting.base import Base
from calibration.fitting.config import CalibrateConfig, Stage
from neds_core.config import FinetuneConfig, FitConfig, MaskConfig, StageConfig, TrainConfig
from neds_core.data import lead
from neds_core.data.parts import Parts
from neds_core.errors import ConfigError, DataError
from neds_core.model.model import NEDS
from neds_core.model.rows import Rows
from neds_core.train import loop, many
from neds_core.train.log import Show, Silent
from neds_core.train.loop import Plan
from neds_core.train.sources import Source, build

SPIKES_ALONE = MaskConfig(encoding=0.0, decoding=0.0, within_behaviour=0.0, cross_modal=0.0)
Roles = tuple[Literal["units", "session", "heads", "trunk"], ...]
ROWS: Roles = ("units",)
READOUTS: Roles = ("units", "session", "heads")
ALL: Roles = ("units", "session", "heads", "trunk")


class Step(Struct, frozen=True):
    """A stage as it went: skill on the selecting part after it, None = none; the step that was best of `steps`."""

    name: str
    seconds: float
    skill: float | None = None
    steps: int = 0
    best_step: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """What is calibrated: `parts` of the recording in a file, from a base or from none."""

    config: CalibrateConfig
    parts: Parts
    recording: Path
    recording_sha: str
    name: str
    base: Base | None = None
    show: Show = field(default_factory=Silent)


def refuse(config: CalibrateConfig, found: Base | None) -> None:
    """Raise `ConfigError` where a configuration and a base, None = a first day, do not fit, whatever the session."""
    if found is None and not config.outputs:
        raise ConfigError("outputs is empty, and there is no base to take them from; name the behaviours to decode")
    if found is not None and config.model != CalibrateConfig().model:
        raise ConfigError("model is set, but the base has its own; take [model] out, or calibrate without a base")
    if found is not None and config.lead_ms:
        raise ConfigError("lead_ms is set, but the base has its own; take it out, or calibrate without a base")


def recipe(task: Task) -> TrainConfig:
    """The configuration of the network: the base's model, masks and leads, or those of a first day.

    Raises `ConfigError` or `DataError`.
    """
    config, found = task.config, task.base
    refuse(config, found)
    names = bases.outputs(found, task.parts.fit, config.outputs) if found else config.outputs
    measured = tuple(name for name in names if task.parts.fit.spec(name).labels == "measured")
    if not measured:
        raise DataError(f"the labels of {', '.join(names)} are inferred: nothing can judge them; add a measured output")
    if unknown := sorted(set(config.select) - set(names)):
        raise ConfigError(f"select: {unknown[0]!r} is none of the outputs ({', '.join(names)}); leave it out")
    masks, of = found.masks if found else config.masks, config.fit
    if len(task.parts.fit.segments) < 2:  # there is no other segment that a window could go on from
        masks = msgspec.structs.replace(masks, pause=0.0)
    return TrainConfig(
        recording=task.recording.name,
        outputs=names,
        lead_ms={k: ms for k, ms in lead.of(found.specs()).items() if k in names} if found else config.lead_ms,
        select=config.select or measured,
        min_rate_hz=config.min_rate_hz,
        model=found.trunk.model.config if found else config.model,
        masks=masks,
        fit=FitConfig(
            batch=of.batch, window_bins=of.window_bins, ema_decay=of.ema_decay, check_every=of.check_every,
            patience=of.patience, refit=False, loss_weights={n: 0.1 for n in names if n not in measured},
        ),
        linear=config.linear,
        finetune=FinetuneConfig(found.name if found else ""),
    )  # fmt: skip


class Stages:
    """The stages of one calibration, one after the other; the best model on the selecting part is kept."""

    def __init__(self, task: Task, config: TrainConfig, source: Source) -> None:
        self.task, self.config, self.source = task, config, source
        self.steps: tuple[Step, ...] = ()
        self.configs: tuple[StageConfig, ...] = ()
        self.kept = 0
        self.lost: Rows | None = None
        self.start: Callable[[NEDS], object] | None = None  # rows of another start, for those who compare them

    def run(self) -> NEDS:
        """Every stage that is switched on. Raises `ConfigError` where none ever had a finite skill."""
        given = self.task.config
        if self.task.base is None:
            fresh = build(self.config, (self.source,), given.seed)
            best = self._labelled("from scratch", fresh, given.scratch, ALL)
        else:
            model = self._timed("start", self._grafted)
            if given.spikes.steps:
                model = self._unlabelled(model)
            if given.ridge_start and model.config.tokenizer == "rows":
                model = self._timed("read-outs from the ridge", lambda: self._ridge(model))
            best = self._labelled("rows and read-outs", model, given.readouts, READOUTS)
            best = self._labelled("everything", best, given.everything, ALL)
        if not np.isfinite(self._skill(best)):
            raise ConfigError("the network never had a finite skill on the selecting part; lower the learning rates")
        return best.requires_grad_(False).eval()

    def _skill(self, model: NEDS) -> float:
        """On the selecting part, as the stages measure it."""
        decode = loop.decode_live if self.config.masks.prefix else loop.decode
        return loop.skill(model, self.task.parts.select, self.source.scale, self.config.select, 0, decode)

    def _timed(self, name: str, made: Callable[[], NEDS]) -> NEDS:
        began = time.monotonic()
        self.task.show.stage(name)
        model = made()
        self._note(name, began, self._skill(model))
        return model

    def _note(self, name: str, began: float, skill: float, steps: int = 0, best: int = 0) -> None:
        measured = skill if np.isfinite(skill) else None
        self.steps += (Step(name, time.monotonic() - began, measured, steps, best),)

    def _grafted(self) -> NEDS:
        """The base's trunk with fresh rows, or with those of units that it knows."""
        given, found = self.task.config, self.task.base
        assert found is not None
        model = many.graft(found.trunk, self.config, self.source, given.seed)
        if given.keep_rows:
            self.kept, self.lost = bases.keep_rows(model, self.task.parts.fit, found)
        if self.start is not None:
            self.start(model)
        return model

    def _ridge(self, model: NEDS) -> NEDS:
        start.readouts(model, self.task.parts.fit, self.source.scale, self.config.linear)
        return model

    def _plan(self, model: NEDS, stage: StageConfig, masks: MaskConfig, selects: bool) -> Plan:
        source = self.source if selects else replace(self.source, validation=None)
        trunk = FinetuneConfig(self.config.finetune.trunk or "none", (stage,))
        config = msgspec.structs.replace(self.config, finetune=trunk, masks=masks)
        self.configs += (stage,)
        return Plan(config, (source,), self.task.config.seed, start=model)

    def _unlabelled(self, model: NEDS) -> NEDS:
        """Masked spike modelling of the new rows alone: the last weights, since no label may choose among them."""
        given, began = self.task.config.spikes, time.monotonic()
        self.task.show.stage("spikes alone")
        stage = StageConfig(given.steps, given.learning_rate, ROWS)
        found = loop.fit(self._plan(model, stage, SPIKES_ALONE, selects=False), self.task.show.step)
        self._note("spikes alone", began, self._skill(found.model), given.steps, found.best_step)
        return found.model

    def _labelled(self, name: str, model: NEDS, given: Stage, trains: Roles) -> NEDS:
        """The better of a model and what a stage makes of it, on the selecting part."""
        if not given.steps:
            return model
        began = time.monotonic()
        self.task.show.stage(name)
        before = self._skill(model)
        stage = StageConfig(given.steps, given.learning_rate, trains)
        found = loop.fit(self._plan(model, stage, self.config.masks, selects=True), self.task.show.step)
        better = found.best_step > 0 and not found.best_skill <= before
        self._note(name, began, found.best_skill if better else before, given.steps, found.best_step * better)
        return found.model if better else model
