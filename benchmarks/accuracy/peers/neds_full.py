"""NEDS of full attention, read offline: every bin from the whole trial, its place in the trial known."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace as but

from benchmarks.accuracy.masks import DECODING
from benchmarks.accuracy.peers.neds import QUICK_BATCH, QUICK_STEPS, trained
from benchmarks.accuracy.peers.task import Fitted, Peer, Predict, Setting, Task, parameters_of, standard
from neds_core.config import MaskConfig, TrainConfig
from neds_core.data.session import Session
from neds_core.model.model import NEDS
from neds_core.train import loop
from neds_core.train.sources import Source

QUICK = {"steps": QUICK_STEPS, "batch": QUICK_BATCH}
FIT = {"steps": 300, "batch": 16}
KINDS: tuple[Setting, ...] = ({}, {"unit_dropout": 0.7}, {"unit_dropout": 0.7, "layers": 3})
SETTINGS: tuple[Setting, ...] = tuple({"model": model, "fit": FIT} for model in KINDS)


def recipe(task: Task, masks: MaskConfig | None, setting: Setting) -> TrainConfig:
    """The recording's own training with full attention and a setting's "model" and "fit"; masks None: its own."""
    longest = int(np.diff(task.session.segments).max())
    model = but(task.config.model, attention="full", window_bins=longest, clock_bins=0, **setting["model"])
    fit = but(task.config.fit, **setting["fit"])
    return but(task.config, masks=masks or task.config.masks, model=model, fit=fit)


def decoder(task: Task, model: NEDS) -> Predict:
    """Values (n, V) in units, every segment read whole."""
    mean, sd = standard(task)

    def predict(session: Session) -> np.ndarray:
        found = loop.decode(model, session)
        return np.stack([found[s.name] for s in task.specs], axis=1).astype(np.float64) * sd + mean

    return predict


def full_peer(name: str, masks: MaskConfig | None) -> Peer:
    """Full attention trained with these masks; of `SETTINGS`, and their length, the best on rolling origins."""

    def search(task: Task) -> tuple[Setting, str]:
        if task.quick:
            return {"model": {}, "fit": QUICK, "stop": QUICK_STEPS}, "nothing (quick)"
        best: Setting = {"origins_skill": -np.inf}
        for setting in SETTINGS:
            config = recipe(task, masks, setting)
            sources = [Source(before, after, task.scale) for before, after in task.folds]
            fits = [loop.fit(loop.Plan(config, (source,), 0)) for source in sources]
            skill = float(np.mean([f.best_skill for f in fits]))
            if skill > best["origins_skill"]:
                stop = round(np.mean([f.best_step for f in fits]))
                best = {**setting, "stop": max(1, stop), "origins_skill": skill}
        return best, f"{len(SETTINGS)} settings on rolling origins"

    def fit(task: Task, setting: Setting, seed: int) -> Fitted:
        model = trained(task, recipe(task, masks, setting), seed, setting["stop"])
        return Fitted(decoder(task, model), parameters_of(model))

    return Peer(name, search, fit, "time, future", 3)


UNIMODAL = full_peer("NEDS full, acausal, decoding only", DECODING)
MULTI = full_peer("NEDS full, acausal", None)
