"""A session to a decoder, in stages, on the parts that fit and select; the judging part is not touched here."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec
import numpy as np
import torch

from calibration.fitting import quality
from calibration.fitting.stages import Stages, Step, Task, recipe
from neds_core import checkpoint
from neds_core.checkpoint import Checkpoint, Record, versions
from neds_core.config import FinetuneConfig, TrainConfig
from neds_core.data import lead, scalers
from neds_core.data.parts import Parts
from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, Session
from neds_core.linear import baseline
from neds_core.linear.linear import Linear
from neds_core.model.model import NEDS
from neds_core.scores import judging, reliability
from neds_core.train import validation
from neds_core.train.single import told
from neds_core.train.sources import Source

TEMPERATURES = (0.5, 5.0)  # what so few trials may make of a probability
LEAST_LABELS = 8  # trials from which on a temperature is chosen
Linears = tuple[dict[str, Linear], dict[str, Linear], float]  # as `linears` returns them


@dataclass(frozen=True, slots=True)
class Fitted:
    """A checkpoint without a gate, how its stages went, and what the quality checks measured.

    parts: with the leads of the base. once: the linear decoders of the fitting part alone.
    """

    made: Checkpoint
    parts: Parts
    steps: tuple[Step, ...]
    temperatures: dict[str, dict[str, float]]
    lags: dict[str, quality.Lag]
    units_kept: int  # of the base, by id and region
    once: dict[str, Linear]


def fit(task: Task, fitted: Linears | None = None) -> Fitted:
    """Check, fit and choose. Raises `DataError` or `ConfigError` for what cannot be calibrated.

    fitted: the linear decoders of these parts, where the caller has them; a class's temperature is folded into them.
    """
    torch.set_num_threads(1)
    began, raw, config, found = time.monotonic(), task.parts, recipe(task), task.base
    parts = raw.ahead(config.lead_ms)
    task = replace(task, parts=parts)
    specs = tuple(parts.fit.spec(name) for name in config.outputs)
    measured = tuple(spec for spec in specs if spec.labels == "measured")
    quality.check(raw, measured, task.config.limits)
    quality.check_leads(parts, measured)
    for line in lead.lines(specs):
        task.show.say(line)
    scale = scalers.fit(parts.fit, specs, config.min_rate_hz, config.model.filter_taus_ms)
    lags = quality.check_steps(raw, measured, scale, task.config.limits)
    if found:
        quality.check_markers(scale, found.trial_mean, task.config.limits, parts.fit.bin_ns * 1e-6)
    once, refitted, linear_s = fitted or linears(task, config, specs, scale)
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
    made = judging.decide(
        Checkpoint(header, model, parts.fit.units, scale, refitted, judged=evidence, lost=stages.lost)
    )
    steps = (Step("linear decoders", linear_s), *stages.steps)
    return Fitted(made, parts, steps, temperatures, lags, stages.kept, once)


def linears(task: Task, config: TrainConfig, specs: tuple[BehaviourSpec, ...], scale: Scalers) -> Linears:
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
