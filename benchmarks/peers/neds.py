"""The rows of NEDS itself: shipped, trained on one direction alone, blended with ridge, and as an encoder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from msgspec.structs import replace as but

from benchmarks.peers.encoders import skill
from benchmarks.peers.task import Fitted, Peer, Predict, Setting, Task, bins_of
from neds_core import checkpoint as checkpoints, evaluation, train
from neds_core.checkpoint import Checkpoint
from neds_core.config import MaskConfig, TrainConfig
from neds_core.model import NEDS
from neds_core.session import Session
from neds_core.windows import Windows
from runtime import engine as engines
from runtime.layout import layout
from runtime.token import Token

SPANS_AT_ONCE = 64
DECODING = MaskConfig(encoding=0.0, decoding=1.0, within_spikes=0.0, within_behaviour=0.0, cross_modal=0.0)
ENCODING = MaskConfig(encoding=1.0, decoding=0.0, within_spikes=0.0, within_behaviour=0.0, cross_modal=0.0)
QUICK_STEPS = 120
QUICK_BATCH = 16


def shipped(task: Task, clocked: bool, seed: int) -> Checkpoint:
    """The example's checkpoint of a training seed."""
    names = [f"clocked-seed{seed}"] if clocked else ([f"neds-seed{seed}"] if seed else ["neds"])
    made = checkpoints.load(task.folder / f"{names[0]}.safetensors")
    evaluation.refuse_other_units(made, task.session)
    return made


def decoder(task: Task, made: Checkpoint, kind: str, seconds: float | None) -> Fitted:
    """A checkpoint's engine ("neds" or "blend") as a peer."""
    engine = engines.create(made, kind)
    columns = [layout(made).columns[s.name].start for s in task.specs]

    def predict(session: Session) -> np.ndarray:
        bins = bins_of(session)
        cold = np.isin(bins, session.segments[:, 0])
        values = engine.offline(session.counts[bins], session.valid[bins], session.clock()[bins], cold)
        return values[:, columns].astype(np.float64)

    n_parameters = sum(p.numel() for p in made.model.parameters())
    if kind == "blend":
        n_parameters += sum(int((m.weight != 0).sum()) + m.bias.size for m in made.linear.values())
    return Fitted(predict, n_parameters, lambda counts, clock: engine.step(Token(0, 0, counts, True, clock)), seconds)


def from_examples(name: str, kind: str, clocked: bool, seeds: int) -> Peer:
    """The multi-task NEDS that ships, or its blend with ridge."""

    def fit(task: Task, setting: Setting, seed: int) -> Fitted:
        made = shipped(task, clocked, seed)
        return decoder(task, made, kind, made.header.record.seconds)

    def search(task: Task) -> tuple[Setting, str]:
        return {}, "the shipped checkpoints; configuration chosen on rolling origins, stopped on validation"

    return Peer(name, search, fit, "time" if clocked else "", seeds, loaded=True)


def train_steps(task: Task, config: TrainConfig, before: Session, steps: int, seed: int) -> NEDS:
    """NEDS after a whole schedule of `steps`."""
    fit = but(config.fit, steps=steps, batch=QUICK_BATCH if task.quick else config.fit.batch)
    return train.fit(but(config, fit=fit), before, None, task.scale, seed, steps=steps).model


def unimodal_search(task: Task) -> tuple[Setting, str]:
    """Unit dropout on the rolling origins, each stopped at its best check; quick: as shipped."""
    config = but(task.config, masks=DECODING)
    if task.quick:
        return {"unit_dropout": config.model.unit_dropout, "stop": QUICK_STEPS}, "nothing (quick)"
    found = []
    for unit_dropout in (0.3, 0.5):
        fits = [train.fit(_with(config, unit_dropout), before, after, task.scale, 0) for before, after in task.folds]
        stop = round(np.mean([f.best_step for f in fits]))
        found.append((np.mean([f.best_skill for f in fits]), unit_dropout, stop))
    best = max(found)
    setting = {"unit_dropout": best[1], "stop": max(1, best[2])}
    return setting, f"{len(found)} settings on rolling origins, the shipped configuration among them"


def _with(config: TrainConfig, unit_dropout: float) -> TrainConfig:
    return but(config, model=but(config.model, unit_dropout=unit_dropout))


def unimodal_fit(task: Task, setting: Setting, seed: int) -> Fitted:
    """Decoding masks alone, trained on training + validation."""
    config = _with(but(task.config, masks=DECODING), setting["unit_dropout"])
    if task.quick:
        model = train_steps(task, config, task.parts.development, setting["stop"], seed)
    else:
        part = task.parts.development
        model = train.fit(config, part, None, task.scale, seed, steps=setting["stop"]).model
    made = replace(shipped(task, False, 0), model=model.requires_grad_(False))
    return decoder(task, made, "neds", None)


def encoder(task: Task, model: NEDS) -> Predict:
    """Rates (n, U) in spikes a bin from the traces of bins up to each bin's own: every spike hidden, classes too.

    Classes stay hidden because their labels here were inferred from these very spikes.
    """
    specs = model.specs
    shown = [m for m, s in enumerate(specs, start=1) if s.kind == "continuous"]
    clocked = model.config.clock_bins > 0

    @torch.inference_mode()
    def predict(session: Session) -> np.ndarray:
        model.eval()
        windows = Windows(session, specs, task.scale)
        spans = [(int(a), int(b)) for a, b in session.segments]
        rows = []
        for begin in range(0, len(spans), SPANS_AT_ONCE):
            group = spans[begin : begin + SPANS_AT_ONCE]
            batch, defined = windows.cut(group, clocked)
            hidden = np.ones_like(defined)
            hidden[..., shown] = ~defined[..., shown]
            rates = model(batch, torch.from_numpy(hidden))["spikes"].exp()
            rows += [rates[b, : stop - start].double().numpy() for b, (start, stop) in enumerate(group)]
        return np.concatenate(rows)

    return predict


def encoding_peer(name: str, masks: MaskConfig | None, clocked: bool) -> Peer:
    """NEDS as an encoder, trained for as many steps as do best on validation; masks None: multi-task as configured."""

    def config_of(task: Task) -> TrainConfig:
        return but(task.config, masks=masks) if masks else task.config

    def search(task: Task) -> tuple[Setting, str]:
        if task.quick:
            return {"steps": QUICK_STEPS}, "nothing (quick)"
        found = {}
        for steps in (200, 450):
            model = train_steps(task, config_of(task), task.parts.train, steps, 0)
            rates = encoder(task, model)(task.parts.validation)
            found[steps] = skill(task.parts.train, task.parts.validation, rates)
        return {"steps": max(found, key=lambda s: found[s])}, f"{len(found)} lengths of training, on validation"

    def fit(task: Task, setting: Setting, seed: int) -> Fitted:
        model = train_steps(task, config_of(task), task.parts.development, setting["steps"], seed)
        return Fitted(encoder(task, model), sum(p.numel() for p in model.parameters()))

    return Peer(name, search, fit, "time" if clocked else "", 3)


def encoding_shipped(task: Task, setting: Setting, seed: int) -> Fitted:
    """The shipped clocked checkpoint, read as an encoder."""
    made = shipped(task, True, seed)
    n_parameters = sum(p.numel() for p in made.model.parameters())
    return Fitted(encoder(task, made.model), n_parameters, None, made.header.record.seconds)


MULTI_ONE_SEED = from_examples("NEDS multi-task", "neds", False, 1)
BLEND_ONE_SEED = from_examples("blend of NEDS and ridge", "blend", False, 1)
MULTI = from_examples("NEDS multi-task", "neds", False, 3)
MULTI_CLOCKED = from_examples("NEDS multi-task, clocked", "neds", True, 3)
BLEND = from_examples("blend of NEDS and ridge", "blend", False, 3)
BLEND_CLOCKED = from_examples("blend of NEDS and ridge, clocked", "blend", True, 3)
UNIMODAL = Peer("NEDS decoding only", unimodal_search, unimodal_fit, seeds=3)
ENCODING_ONLY = encoding_peer("NEDS encoding only", ENCODING, True)
ENCODING_MULTI = encoding_peer("NEDS multi-task", None, True)
ENCODING_SHIPPED = Peer(
    "NEDS multi-task",
    lambda task: ({}, "the shipped clocked checkpoints, chosen and stopped for decoding"),
    encoding_shipped,
    "time",
    3,
    loaded=True,
)
