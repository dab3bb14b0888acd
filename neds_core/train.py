"""Training of one NEDS: seeded, stopped on validation, interrupt-safe."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from neds_core import losses, offline, scalers as scaling, scores
from neds_core.config import TrainConfig
from neds_core.model import NEDS
from neds_core.scalers import Scalers
from neds_core.session import BehaviourSpec, Session
from neds_core.windows import Windows


@dataclass(frozen=True, slots=True)
class Progress:
    """What `on_step` sees after each step."""

    step: int
    steps: int
    loss: float
    terms: dict[str, float]
    skill: float | None  # validation skill where it was measured at this step


OnStep = Callable[[Progress], None]


@dataclass(slots=True)
class Fit:
    """A trained model and the record of how it came about."""

    model: NEDS
    best_step: int
    best_skill: float
    interrupted: bool = False
    history: list[Progress] = field(default_factory=list)


def build(config: TrainConfig, session: Session, specs: tuple[BehaviourSpec, ...], scale: Scalers, seed: int) -> NEDS:
    """A fresh seeded model with the scalers of its training part and rates that start at the mean."""
    torch.manual_seed(seed)
    model = NEDS(config.model, (len(session.units),), specs)
    tokenizer = model.tokenizer()
    tokenizer.mean.copy_(torch.from_numpy(scale.spike_mean))
    tokenizer.gain.copy_(torch.from_numpy(scale.spike_gain))
    mean_count = session.counts[scaling.inside(session)].mean(0).astype(np.float32)
    with torch.no_grad():
        model.rate_head().bias.copy_(torch.from_numpy(np.log(np.maximum(mean_count, 1e-4))))
        for spec in specs:
            if spec.kind == "class":
                model.head(spec.name).bias.copy_(torch.from_numpy(np.log(scale.prior[spec.name])))
    return model


def decode(model: NEDS, session: Session) -> dict[str, np.ndarray]:
    """Causal decoding of every segment from its cold start; rows follow the segments' bins in order."""
    spans = [(int(a), int(b)) for a, b in session.segments]
    return offline.decode(model, session.counts, session.valid, session.clock(), spans)


def skill(model: NEDS, session: Session, windows: Windows, select: tuple[str, ...]) -> float:
    """Mean validation skill of the selected outputs: R2, or 1 - cross-entropy / entropy of the prior."""
    bins = np.concatenate([np.arange(a, b) for a, b in session.segments])
    decoded = decode(model, session)
    values = []
    for spec in model.specs:
        if spec.name not in select:
            continue
        if spec.kind == "continuous":
            y = windows.traces[spec.name][bins]
            known = np.isfinite(y) & session.valid[bins]
            values.append(scores.r2(y[known], decoded[spec.name][known]))
        else:
            label = session.values[spec.name][bins]
            known = label >= 0
            prior = windows.scalers.prior[spec.name]
            got = -np.log(decoded[spec.name][known, label[known]] + 1e-9).mean()
            values.append(1.0 - got / -np.log(prior[label[known]]).mean())
    return float(np.mean(values))


def _step(
    model: NEDS, windows: Windows, rng: np.random.Generator, config: TrainConfig, kept: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    batch, hidden, asked, keep = windows.sample(rng, config.fit, config.model, config.masks)
    while not asked.any():  # a small batch may draw a mask that asks nothing
        batch, hidden, asked, keep = windows.sample(rng, config.fit, config.model, config.masks)
    out = model(batch, hidden, keep)
    terms = losses.loss(out, batch, asked, model.specs, kept)
    return losses.total(terms, config.fit.loss_weights), {k: float(v.detach()) for k, v in terms.items()}


def fit(
    config: TrainConfig,
    train: Session,
    validation: Session | None,
    scale: Scalers,
    seed: int,
    steps: int | None = None,
    on_step: OnStep | None = None,
) -> Fit:
    """Train on `train`; with `validation`, stop early and keep the best EMA weights.

    Without `validation`, run exactly `steps` of the same schedule (the refit on training +
    validation). KeyboardInterrupt keeps the best so far and says so in the result.
    """
    specs = tuple(train.spec(name) for name in config.outputs)
    select = config.select or config.outputs
    for spec in specs:
        for part in (train, validation or train):
            scaling.known(part, spec)
    windows = Windows(train, specs, scale)
    held = Windows(validation, specs, scale) if validation is not None else None
    rng = np.random.default_rng(seed)
    model = build(config, train, specs, scale, seed)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.fit.ema_decay))
    smooth = cast(NEDS, average.module)
    decay = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": config.fit.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.fit.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.fit.learning_rate, total_steps=config.fit.steps, pct_start=0.15, div_factor=10
    )
    kept = torch.from_numpy(scale.kept)
    best = Fit(copy.deepcopy(model), 0, -np.inf)
    waited = 0
    try:
        for step in range(1, (steps or config.fit.steps) + 1):
            model.train()
            value, terms = _step(model, windows, rng, config, kept)
            optimiser.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.fit.clip_norm)
            optimiser.step()
            schedule.step()
            average.update_parameters(model)
            measured = None
            if validation is not None and held is not None and step % config.fit.check_every == 0:
                measured = skill(smooth, validation, held, select)
                waited += 1
                if measured > best.best_skill:
                    waited = 0
                    best.model, best.best_step, best.best_skill = copy.deepcopy(smooth), step, measured
            progress = Progress(step, steps or config.fit.steps, float(value.detach()), terms, measured)
            best.history.append(progress)
            if on_step is not None:
                on_step(progress)
            if waited >= config.fit.patience:
                break
    except KeyboardInterrupt:
        best.interrupted = True
    if validation is None:
        best.model, best.best_step = copy.deepcopy(smooth), len(best.history)
    best.model.eval()
    return best
