"""A session to a decoder, in stages, on the parts that fit and select; the judging part is not touched here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import torch
from msgspec import Struct

from calibration import base as bases, quality, start
from calibration.base import Base
from calibration.config import CalibrateConfig, Stage
from neds_core import checkpoint, judging
from neds_core.checkpoint import Checkpoint, Record, versions
from neds_core.config import FinetuneConfig, FitConfig, MaskConfig, StageConfig, TrainConfig
from neds_core.data import scalers
from neds_core.data.parts import Parts
from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import ConfigError, DataError
from neds_core.linear import baseline
from neds_core.linear.linear import Linear
from neds_core.model.model import NEDS
from neds_core.scores import reliability
from neds_core.train import loop, many, validation
from neds_core.train.log import Show, Silent
from neds_core.train.loop import Plan
from neds_core.train.single import told
from neds_core.train.sources import Source, build

SPIKES_ALONE = MaskConfig(encoding=0.0, decoding=0.0, within_behaviour=0.0, cross_modal=0.0)
ROWS, READOUTS, ALL = ("units",), ("units", "session", "heads"), ("units", "session", "heads", "trunk")
TEMPERATURES = (0.5, 5.0)  # what so few trials may make of a probability
LEAST_LABELS = 8  # trials from which on a temperature is chosen


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


@dataclass(frozen=True, slots=True)
class Fitted:
    """A checkpoint without a gate, how its stages went, and what the quality checks measured."""

    made: Checkpoint
    steps: tuple[Step, ...]
    temperatures: dict[str, dict[str, float]]
    lags: dict[str, quality.Lag]
    units_kept: int  # of the base, by id and region


def recipe(task: Task) -> TrainConfig:
    """The configuration of the network: the base's model and masks, or those of a first day. Raises `ConfigError`."""
    config, found = task.config, task.base
    names = bases.outputs(found, task.parts.fit, config.outputs) if found else config.outputs
    if not names:
        raise ConfigError("outputs is empty, and there is no base to take them from; name the behaviours to decode")
    measured = tuple(name for name in names if task.parts.fit.spec(name).labels == "measured")
    if not measured:
        raise DataError(f"the labels of {', '.join(names)} are inferred: nothing can judge them; add a measured output")
    if found and config.model != CalibrateConfig().model:
        raise ConfigError("model is set, but the base has its own; take [model] out, or calibrate without a base")
    of = config.fit
    return TrainConfig(
        recording=str(task.recording),
        outputs=names,
        select=config.select or measured,
        min_rate_hz=config.min_rate_hz,
        model=found.trunk.model.config if found else config.model,
        masks=found.masks if found else config.masks,
        fit=FitConfig(
            batch=of.batch, window_bins=of.window_bins, ema_decay=of.ema_decay, check_every=of.check_every,
            patience=of.patience, refit=False, loss_weights={n: 0.1 for n in names if n not in measured},
        ),
        linear=config.linear,
        finetune=FinetuneConfig(found.name if found else ""),
    )  # fmt: skip


def fit(task: Task) -> Fitted:
    """Check, fit and choose. Raises `DataError` or `ConfigError` for what cannot be calibrated."""
    torch.set_num_threads(1)
    began, parts, config, found = time.monotonic(), task.parts, recipe(task), task.base
    specs = tuple(parts.fit.spec(name) for name in config.outputs)
    measured = tuple(spec for spec in specs if spec.labels == "measured")
    quality.check(parts, measured, task.config.limits)
    scale = scalers.fit(parts.fit, specs, config.min_rate_hz, config.model.filter_taus_ms)
    lags = quality.check_steps(parts, measured, scale, task.config.limits)
    if found:
        quality.check_markers(scale, found.trial_mean, task.config.limits, parts.fit.bin_ns * 1e-6)
    once, refitted, linear_s = linears(task, config, specs, scale)
    stages = Stages(task, config, Source(parts.fit, parts.select, scale))
    model = stages.run()
    temperatures = _cool(model, once, refitted, specs, parts.select, scale)
    decoded = validation.decode(model, once, parts.select, scale)
    header = checkpoint.Header(
        format=checkpoint.FORMAT,
        name=task.name,
        bin_ns=parts.fit.bin_ns,
        config=msgspec.structs.replace(config, finetune=FinetuneConfig(config.finetune.trunk, stages.configs)),
        specs=model.specs,
        unit_map_sha=parts.fit.units.sha256,
        mean=scale.mean,
        sd=scale.sd,
        prior={k: v.tolist() for k, v in scale.prior.items()},
        linear={k: checkpoint.LinearHeader(v.bank, v.penalty) for k, v in refitted.items()},
        blend=validation.blend_shares(decoded, specs, parts.select),
        record=_record(task, stages.steps, time.monotonic() - began),
        longest_silence_bins=scalers.longest_silence(parts.fit, scale.kept),
    )
    evidence = validation.evidence(decoded, model.specs, parts.select)
    made = judging.decide(Checkpoint(header, model, parts.fit.units, scale, refitted, judged=evidence))
    steps = (Step("linear decoders", linear_s), *stages.steps)
    return Fitted(made, steps, temperatures, lags, stages.kept)


def linears(
    task: Task, config: TrainConfig, specs: tuple[BehaviourSpec, ...], scale: Scalers
) -> tuple[dict[str, Linear], dict[str, Linear], float]:
    """The linear decoders of the fitting part, searched inside it; the same again with what selects; seconds."""
    began, done, clock = time.monotonic(), 0, told(config)
    total = baseline.n_fits(specs, config.linear, clock)

    def tick(n: int) -> None:
        nonlocal done
        done += n
        task.show.tick(min(done, total), total)

    task.show.stage("linear decoders")
    once = baseline.fit(task.parts.fit, specs, scale, config.linear, clock, tick)
    both = task.parts.refit
    refitted = {s.name: baseline.refit(both, s, scale, once[s.name].bank, once[s.name].penalty) for s in specs}
    return once, refitted, time.monotonic() - began


class Stages:
    """The stages of one calibration, one after the other; the best model on the selecting part is kept."""

    def __init__(self, task: Task, config: TrainConfig, source: Source) -> None:
        self.task, self.config, self.source = task, config, source
        self.steps: tuple[Step, ...] = ()
        self.configs: tuple[StageConfig, ...] = ()
        self.kept = 0
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
        """On the selecting part."""
        return loop.skill(model, self.task.parts.select, self.source.scale, self.config.select, 0, loop.decode_live)

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
            self.kept = bases.keep_rows(model, self.task.parts.fit, found.trunk)
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

    def _labelled(self, name: str, model: NEDS, given: Stage, trains: tuple) -> NEDS:
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


@torch.no_grad()
def _cool(
    model: NEDS, once: dict[str, Linear], refitted: dict[str, Linear], specs: tuple[BehaviourSpec, ...],
    select: Session, scale: Scalers,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Fold a temperature into each decoder of each class (see `cooled`): class -> decoder -> temperature.

    The one with the least cross-entropy at the selecting part's last bins. The linear decoder's is that of the fit on
    the fitting part alone, and serves the refitted one too.
    """
    found: dict[str, dict[str, float]] = {}
    for spec in (s for s in specs if s.kind == "class"):
        label = select.values[spec.name][select.bins()]
        rows, prior = baseline.decision_bins(select, select.bins()) & (label >= 0), scale.prior[spec.name]
        if rows.sum() < LEAST_LABELS:
            continue
        said = validation.decode(model, once, select, scale)[spec.name]
        each = {}
        for name, probs in (("neds", said.neds), ("ridge", said.ridge)):
            chosen = reliability.fit_temperature(probs[rows], label[rows], prior)
            each[name] = float(np.clip(chosen, *TEMPERATURES))
        head = model.head(spec.name)
        weight, bias = cooled(head.weight.numpy(), head.bias.numpy(), each["neds"], prior)
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
        for linears in (once, refitted):
            old = linears[spec.name]
            weight, bias = cooled(old.weight, old.bias, each["ridge"], prior)
            linears[spec.name] = replace(old, weight=weight, bias=bias)
        found[spec.name] = each
    return found


def cooled(
    weight: np.ndarray, bias: np.ndarray, temperature: float, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A read-out whose evidence is divided by a temperature: logits = log p + (w x + b - log p) / T, p the prior (C,).

    So `scores.reliability.with_temperature` needs no place at run time, and no decision by probability over prior
    changes.
    """
    base = np.log(prior)
    return (weight / temperature).astype(np.float32), (base + (bias - base) / temperature).astype(np.float32)


def _record(task: Task, steps: tuple[Step, ...], seconds: float) -> Record:
    parts, skills = task.parts, [step.skill for step in steps if step.skill is not None]
    return Record(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recording=parts.fit.name,
        recording_sha=task.recording_sha,
        seed=task.config.seed,
        train_segments=len(parts.fit.segments),
        validation_segments=len(parts.select.segments),
        best_step=max(step.best_step for step in steps),
        validation_skill=max(skills),
        seconds=seconds,
        versions=versions(),
        trunk_sha=task.base.parents[0] if task.base else "",
    )
