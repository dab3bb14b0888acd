"""The rows of causal NEDS as a decoder: shipped, trained on decoding alone, blended with ridge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from msgspec.structs import replace as but

from benchmarks.accuracy.masks import DECODING
from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, Task, parameters_of
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.config import TrainConfig
from neds_core.data.session import Session
from neds_core.model.model import NEDS
from neds_core.scores import tasks
from neds_core.train import loop
from neds_core.train.sources import Source
from runtime.core.values import Token
from runtime.engines import create as engines
from runtime.engines.layout import layout

QUICK_STEPS = 120
QUICK_BATCH = 16


def shipped(task: Task, file: str) -> Checkpoint:
    """One of the example's checkpoints, or with its number behind a colon one network of an ensemble."""
    name, _, member = file.partition(":")
    made = checkpoints.load(task.folder / f"{name}.safetensors")
    tasks.refuse_other_units(made, task.session)
    return made.alone(int(member)) if member else made


def decoder(task: Task, made: Checkpoint, kind: str, seconds: float | None) -> Fitted:
    """A checkpoint's engine ("neds" or "blend") as a peer."""
    engine = engines.create(made, kind)
    columns = [layout(made).columns[s.name].start for s in task.specs]

    def predict(session: Session) -> np.ndarray:
        bins = session.bins()
        cold = np.isin(bins, session.segments[:, 0])
        values = engine.offline(session.counts[bins], session.valid[bins], session.clock()[bins], cold)
        return values[:, columns].astype(np.float64)

    n_parameters = sum(parameters_of(network) for network in made.networks)
    if kind == "blend":
        n_parameters += sum(int((m.weight != 0).sum()) + m.bias.size for m in made.linear.values())

    def step(counts: np.ndarray, clock: int) -> object:
        if clock == 0:
            engine.reset()
        return engine.step(Token(0, 0, counts, True, clock))

    return Fitted(predict, n_parameters, step, seconds)


def from_examples(name: str, kind: str, files: tuple[str, ...], uses: str = "") -> Peer:
    """The multi-task NEDS that ships, or its blend with ridge; a file for each training seed."""

    def fit(task: Task, setting: Setting, seed: int) -> Fitted:
        made = shipped(task, files[seed])
        return decoder(task, made, kind, made.header.record.seconds)

    def search(task: Task) -> tuple[Setting, str]:
        return {}, "the shipped checkpoints; configuration chosen on rolling origins, stopped on validation"

    return Peer(name, search, fit, uses, len(files), loaded=True)


def trained(task: Task, config: TrainConfig, seed: int, steps: int) -> NEDS:
    """Trained on training + validation for exactly so many steps."""
    return loop.fit(loop.Plan(config, (Source(task.parts.development, None, task.scale),), seed, steps)).model


def unimodal_fit(task: Task, setting: Setting, seed: int) -> Fitted:
    """The shipped training of a seed, as long as it was, but for its masks; on training + validation. Quick: short."""
    made = shipped(task, PHASE_FREE[seed])
    config, steps = but(task.config, masks=DECODING), made.header.record.best_step
    if task.quick:
        config, steps = but(config, fit=but(config.fit, steps=QUICK_STEPS, batch=QUICK_BATCH)), QUICK_STEPS
    model = trained(task, config, seed, steps)
    return decoder(task, replace(made, first=model.requires_grad_(False)), "neds", None)


PHASE_FREE = ("neds", "neds-seed1", "neds-seed2")
CLOCKED = ("clocked-seed0", "clocked-seed1", "clocked-seed2")
MEMBERS = ("ensemble:0", "ensemble:1", "ensemble:2")
MULTI = from_examples("NEDS multi-task", "neds", PHASE_FREE)
MULTI_CLOCKED = from_examples("NEDS multi-task, clocked", "neds", CLOCKED, "time")
FULL_LIVE = from_examples("NEDS full, up to the bin", "neds", ("full",), "time")
BLEND = from_examples("blend of NEDS and ridge", "blend", PHASE_FREE)
MEMBERS_DECODING = from_examples("NEDS decoding only", "neds", MEMBERS)
MEMBERS_BLEND = from_examples("blend of NEDS and ridge", "blend", MEMBERS)
ENSEMBLE = from_examples("NEDS ensemble", "neds", ("ensemble",))
ENSEMBLE_BLEND = from_examples("blend of the ensemble and ridge", "blend", ("ensemble",))
BLEND_CLOCKED = from_examples("blend of NEDS and ridge, clocked", "blend", CLOCKED, "time")
UNIMODAL = Peer(
    "NEDS decoding only",
    lambda task: ({}, "nothing: the configuration and the lengths of the shipped multi-task training"),
    unimodal_fit,
    seeds=3,
)
