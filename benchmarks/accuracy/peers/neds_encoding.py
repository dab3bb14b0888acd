"""The rows of NEDS as an encoder: trained on encoding alone, on all tasks, and as it ships."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace as but

from benchmarks.accuracy.masks import ENCODING
from benchmarks.accuracy.peers.encoders import goal_of, skill
from benchmarks.accuracy.peers.neds import CLOCKED, QUICK_STEPS, shipped, trained
from benchmarks.accuracy.peers.task import Fitted, Peer, Predict, Setting, Task, parameters_of
from neds_core.config import MaskConfig, TrainConfig
from neds_core.data.session import Session
from neds_core.model import directions
from neds_core.model.batches import Cutter
from neds_core.model.model import NEDS
from neds_core.scores import tasks
from neds_core.train import loop
from neds_core.train.log import Progress
from neds_core.train.sources import Source

# Weights on multi-task training for encoding. A spike's loss moves by hundredths where a behaviour's moves by halves:
# at weight 1 the trunk hardly learns to encode.
EVERYTHING = MaskConfig(encoding=4.0, decoding=1.0, within_spikes=0.5, within_behaviour=0.0, cross_modal=0.5)
CHECK_EVERY = 25


def encoder(task: Task, model: NEDS) -> Predict:
    """Rates (n, U) in spikes a bin from measured behaviour up to each bin: every spike hidden, inferred labels too."""
    shown = tasks.shown(model.specs)

    def predict(session: Session) -> np.ndarray:
        cutter = Cutter(session, model.specs, task.scale)
        return directions.encode(model, cutter, directions.spans_of(session), shown)

    return predict


def recipe(task: Task, masks: MaskConfig, setting: Setting) -> TrainConfig:
    """The training of a setting: what it holds under "model" and "fit" in place of the configuration's.

    On measured behaviour alone: an inferred label may not be shown later, so a model that leans on it would lose it.
    """
    outputs = tasks.shown(tuple(task.session.spec(name) for name in task.config.outputs))
    model, fit = but(task.config.model, **setting["model"]), but(task.config.fit, **setting["fit"])
    weights = {name: weight for name, weight in fit.loss_weights.items() if name in (*outputs, "spikes")}
    return but(task.config, outputs=outputs, masks=masks, model=model, fit=but(fit, loss_weights=weights))


def curve(task: Task, config: TrainConfig, before: Session, after: Session) -> np.ndarray:
    """Bits/spike on `after` at every check of a training on `before`."""
    training = loop.Training(loop.Plan(config, (Source(before, None, task.scale),), seed=0))
    goal, found = goal_of(before, after), list[float]()

    def check(progress: Progress) -> None:
        if progress.step % CHECK_EVERY == 0:
            found.append(skill(goal, encoder(task, training.learner.smooth)(after)))

    training.run(check)
    return np.array(found)


def encoding_peer(name: str, masks: MaskConfig, settings: tuple[Setting, ...]) -> Peer:
    """NEDS trained with these masks; of several settings, and their length, the best for encoding on the folds."""

    def search(task: Task) -> tuple[Setting, str]:
        if task.quick:
            first = settings[0]
            return {**first, "fit": {**first["fit"], "steps": QUICK_STEPS}, "stop": QUICK_STEPS}, "nothing (quick)"
        best: Setting = {"folds_bits": -np.inf}
        for setting in settings:
            curves = [curve(task, recipe(task, masks, setting), before, after) for before, after in task.folds]
            mean = np.mean(curves, axis=0)
            if mean.max() > best["folds_bits"]:
                stop = CHECK_EVERY * (int(mean.argmax()) + 1)
                best = {**setting, "stop": stop, "folds_bits": float(mean.max())}
        return best, f"{len(settings)} settings on the folds, and their length"

    def fit(task: Task, setting: Setting, seed: int) -> Fitted:
        model = trained(task, recipe(task, masks, setting), seed, setting["stop"])
        return Fitted(encoder(task, model), parameters_of(model))

    return Peer(name, search, fit, "time", 3)


def shipped_fit(task: Task, setting: Setting, seed: int) -> Fitted:
    """The shipped clocked checkpoint, read as an encoder."""
    made = shipped(task, CLOCKED[seed])
    n_parameters = parameters_of(made.model)
    return Fitted(encoder(task, made.model), n_parameters, None, made.header.record.seconds)


SHORT_BAND = {"band": 10}
ONLY_KINDS = (
    ({}, 300),
    (SHORT_BAND, 600),
    ({**SHORT_BAND, "layers": 3}, 600),
    ({**SHORT_BAND, "layers": 3, "width": 96}, 600),
    ({**SHORT_BAND, "layers": 4}, 600),
)
ENCODING_ONLY = encoding_peer(
    "NEDS encoding only",
    ENCODING,
    tuple({"model": model, "fit": {"steps": steps, "batch": 16}} for model, steps in ONLY_KINDS),
)
MULTI_KINDS: tuple[tuple[Setting, float], ...] = (({}, 50.0), (SHORT_BAND, 50.0), (SHORT_BAND, 20.0))
MULTI = encoding_peer(
    "NEDS multi-task",
    EVERYTHING,
    tuple(
        {"model": model, "fit": {"steps": 350, "batch": 16, "loss_weights": {"spikes": weight}}}
        for model, weight in MULTI_KINDS
    ),
)
SHIPPED = Peer(
    "NEDS multi-task, as shipped",
    lambda task: ({}, "the shipped clocked checkpoints, chosen and stopped for decoding"),
    shipped_fit,
    "time",
    3,
    loaded=True,
)
