"""The rows of causal NEDS as a decoder: shipped, trained on decoding alone, blended with ridge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from msgspec.structs import replace as but

from benchmarks.peers.task import Fitted, Peer, Setting, Task, bins_of
from neds_core import checkpoint as checkpoints, evaluation, train
from neds_core.checkpoint import Checkpoint
from neds_core.config import MaskConfig, TrainConfig
from neds_core.session import Session
from runtime import engine as engines
from runtime.layout import layout
from runtime.token import Token

DECODING = MaskConfig(encoding=0.0, decoding=1.0, within_spikes=0.0, within_behaviour=0.0, cross_modal=0.0)
QUICK_STEPS = 120
QUICK_BATCH = 16


def shipped(task: Task, file: str) -> Checkpoint:
    """One of the example's checkpoints."""
    made = checkpoints.load(task.folder / f"{file}.safetensors")
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


def from_examples(name: str, kind: str, files: tuple[str, ...], uses: str = "") -> Peer:
    """The multi-task NEDS that ships, or its blend with ridge; a file for each training seed."""

    def fit(task: Task, setting: Setting, seed: int) -> Fitted:
        made = shipped(task, files[seed])
        return decoder(task, made, kind, made.header.record.seconds)

    def search(task: Task) -> tuple[Setting, str]:
        return {}, "the shipped checkpoints; configuration chosen on rolling origins, stopped on validation"

    return Peer(name, search, fit, uses, len(files), loaded=True)


def unimodal_config(task: Task) -> TrainConfig:
    """The shipped training but for its masks; quick: short."""
    fit = but(task.config.fit, steps=QUICK_STEPS, batch=QUICK_BATCH) if task.quick else task.config.fit
    return but(task.config, masks=DECODING, fit=fit)


def unimodal_search(task: Task) -> tuple[Setting, str]:
    """How long to train, on the rolling origins; quick: to the end."""
    if task.quick:
        return {"stop": QUICK_STEPS}, "nothing (quick)"
    config = unimodal_config(task)
    fits = [train.fit(config, before, after, task.scale, 0) for before, after in task.folds]
    setting = {"stop": max(1, round(np.mean([f.best_step for f in fits])))}
    return setting | {"origins_skill": float(np.mean([f.best_skill for f in fits]))}, "its length, on rolling origins"


def unimodal_fit(task: Task, setting: Setting, seed: int) -> Fitted:
    """Decoding masks alone, trained on training + validation."""
    part = task.parts.development
    model = train.fit(unimodal_config(task), part, None, task.scale, seed, steps=setting["stop"]).model
    made = replace(shipped(task, PHASE_FREE[0]), model=model.requires_grad_(False))
    return decoder(task, made, "neds", None)


PHASE_FREE = ("neds", "neds-seed1", "neds-seed2")
CLOCKED = ("clocked-seed0", "clocked-seed1", "clocked-seed2")
MULTI_ONE_SEED = from_examples("NEDS multi-task", "neds", PHASE_FREE[:1])
BLEND_ONE_SEED = from_examples("blend of NEDS and ridge", "blend", PHASE_FREE[:1])
MULTI = from_examples("NEDS multi-task", "neds", PHASE_FREE)
MULTI_CLOCKED = from_examples("NEDS multi-task, clocked", "neds", CLOCKED, "time")
FULL_LIVE = from_examples("NEDS full, up to the bin", "neds", ("full",), "time")
BLEND = from_examples("blend of NEDS and ridge", "blend", PHASE_FREE)
BLEND_CLOCKED = from_examples("blend of NEDS and ridge, clocked", "blend", CLOCKED, "time")
UNIMODAL = Peer("NEDS decoding only", unimodal_search, unimodal_fit, seeds=3)
