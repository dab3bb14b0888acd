"""The rows of NEDS for classes told once a trial: of one session, tuned from other mice, and blended with logistic."""

from __future__ import annotations

import msgspec
import numpy as np
from msgspec import Struct

from benchmarks.accuracy.mice import fine_tuning, trunks
from benchmarks.accuracy.mice.fine_tuning import Schedule
from benchmarks.accuracy.mice.questions import QUESTIONS, folds
from benchmarks.accuracy.mice.steinmetz import OUTPUTS, Bundle
from benchmarks.accuracy.peers import classes
from benchmarks.accuracy.peers.classes import FoldTask
from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, parameters_of
from neds_core.config import TrainConfig
from neds_core.data import scalers, session as sessions
from neds_core.data.session import Session
from neds_core.model.model import NEDS
from neds_core.scores import r2 as scores
from neds_core.train import loop
from neds_core.train.log import Progress
from neds_core.train.loop import Plan, Training
from neds_core.train.many import Pretrained
from neds_core.train.sources import Source

LOOKS = (48, 96, 144, 240)  # steps of one schedule at which a training is read
QUICK_LOOKS = (8, 16)
QUICK_NEW_STEPS, QUICK_TRUNK_STEPS = 8, 40
UNIT_DROPOUT = (0.3, 0.5)
SEEDS = 3


class Kind(Struct, frozen=True):
    """What a row trains: its masks, and whether on a trunk of the other mice."""

    name: str
    masks: str
    condition: str  # of `fine_tuning.recipe`


SINGLE = Kind("NEDS single-session", "multi", "scratch")
ONLY = Kind("NEDS single-session, decoding only", "decoding", "scratch")
TUNED = Kind("NEDS multi-session, fine-tuned", "multi", "pretrained")


def schedule(quick: bool) -> Schedule:
    """A schedule as long as the last look."""
    return Schedule(QUICK_LOOKS[-1], new_steps=QUICK_NEW_STEPS) if quick else Schedule(LOOKS[-1])


def recipe(task: FoldTask, kind: Kind, unit_dropout: float) -> TrainConfig:
    """A kind's configuration; all trials of the training folds."""
    model = msgspec.structs.replace(trunks.MODEL, unit_dropout=unit_dropout)
    return fine_tuning.recipe(kind.condition, OUTPUTS, model, trunks.MASKS[kind.masks], schedule(task.quick))


def trunk(task: FoldTask, kind: Kind, mouse: str) -> Pretrained | None:
    """A NEDS of the sessions of all mice but one, for a kind that has one; its seed is 0."""
    if kind.condition == "scratch":
        return None
    if (mouse, 0) not in task.trunks:
        others = [one for one in task.bundles if one.mouse != mouse]
        fit = msgspec.structs.replace(trunks.FIT, steps=QUICK_TRUNK_STEPS) if task.quick else trunks.FIT
        config = trunks.config_of(others, trunks.MODEL, trunks.MASKS[kind.masks], fit, seed=0)
        task.trunks[mouse, 0] = trunks.make(others, config)
    return task.trunks[mouse, 0]


def trials(bundle: Bundle, rows: np.ndarray) -> Session:
    """The trials where rows (S,) is True."""
    return sessions.select(bundle.session, rows)


def evidence(model: NEDS, part: Session, source: Source) -> np.ndarray:
    """(S, Q) log-odds of class 1 at each trial's last bin, about the odds in training."""
    said = loop.decode(model, part)
    last = np.cumsum(np.diff(part.segments)) - 1
    found = []
    for name in QUESTIONS:
        probs = np.maximum(said[name][last], 1e-9) / source.scale.prior[name]
        found.append(np.log(probs[:, 1] / probs[:, 0]))
    return np.stack(found, 1)


def looks(
    task: FoldTask, kind: Kind, bundle: Bundle, held: np.ndarray, unit_dropout: float, seed: int
) -> dict[int, np.ndarray]:
    """Train on the trials that are not held (S,); step -> evidence (held, Q) at each look."""
    config = recipe(task, kind, unit_dropout)
    part, scored = trials(bundle, ~held), trials(bundle, held)
    source = Source(part, None, scalers.fit(part, part.specs, trunks.MIN_RATE_HZ))
    start = fine_tuning.start_of(config, source, trunk(task, kind, bundle.mouse), seed)
    training = Training(Plan(config, (source,), seed, start=start))
    found: dict[int, np.ndarray] = {}

    def look(progress: Progress) -> None:
        if progress.step in (QUICK_LOOKS if task.quick else LOOKS):
            found[progress.step] = evidence(training.learner.smooth, scored, source)

    training.run(look)
    return found


def skill(bundle: Bundle, held: np.ndarray, said: np.ndarray) -> float:
    """Balanced accuracy of evidence (held, Q), mean over the questions."""
    found = []
    for q, name in enumerate(QUESTIONS):
        label = bundle.labels(name)[held]
        guess = (said[label >= 0, q] > 0).astype(np.int64)
        found.append(scores.balanced_accuracy(label[label >= 0], guess, 2))
    return float(np.mean(found))


def search(task: FoldTask, kind: Kind) -> tuple[Setting, str]:
    """For each mouse the unit dropout and the step that are best on the last folds of the *other* mice."""
    dropouts = UNIT_DROPOUT[:1] if task.quick else UNIT_DROPOUT
    found: dict[str, dict[tuple[float, int], list[float]]] = {mouse: {} for mouse in task.mice}
    for bundle in task.bundles:
        held = folds(len(bundle.contrast))[-1]
        for dropout in dropouts:
            for step, said in looks(task, kind, bundle, held, dropout, 0).items():
                found[bundle.mouse].setdefault((dropout, step), []).append(skill(bundle, held, said))
    setting: Setting = {}
    for mouse in task.mice:
        others = [found[m] for m in task.mice if m != mouse]
        mean = {key: np.mean(np.concatenate([o[key] for o in others])) for key in others[0]}
        dropout, step = max(mean, key=lambda key: mean[key])
        setting[mouse] = {"unit_dropout": dropout, "step": step}
    n = len(dropouts) * len(QUICK_LOOKS if task.quick else LOOKS)
    return setting, f"{n} settings, for each mouse by the last folds of the others"


def told(task: FoldTask, kind: Kind, setting: Setting, seed: int) -> dict[str, np.ndarray]:
    """Evidence (S, Q) of every session, each fold from a training on the others."""

    def make(bundle: Bundle) -> np.ndarray:
        chosen = setting[bundle.mouse]
        out = np.zeros((len(bundle.contrast), len(QUESTIONS)))
        for held in folds(len(bundle.contrast)):
            out[held] = looks(task, kind, bundle, held, chosen["unit_dropout"], seed)[chosen["step"]]
        return out

    return task.keep(kind.name, seed, make)


def n_parameters(task: FoldTask, kind: Kind) -> float:
    """Of the network of one session, mean over sessions."""
    one = recipe(task, kind, 0.0).model
    sizes = [parameters_of(NEDS(one, (len(b.session.units),), b.session.specs)) for b in task.bundles]
    return float(np.mean(sizes))


def peer(kind: Kind, uses: str = "time") -> Peer:
    """A row of NEDS alone."""

    def fit(task: FoldTask, setting: Setting, seed: int) -> Fitted:
        return classes.fitted(told(task, kind, setting, seed), n_parameters(task, kind))

    return Peer(kind.name, lambda task: search(task, kind), fit, uses, SEEDS)


def blend_fit(task: FoldTask, setting: Setting, seed: int) -> Fitted:
    """The mean of the log-odds of single-session NEDS and of the logistic regression on the same spikes."""
    ours, theirs = told(task, SINGLE, setting, seed), classes.logistic(task, classes.NEURAL)
    both = {name: (ours[name] + theirs[name]) / 2 for name in ours}
    return classes.fitted(both, n_parameters(task, SINGLE))


NEDS_SINGLE, NEDS_ONLY, NEDS_TUNED = peer(SINGLE), peer(ONLY), peer(TUNED, "time, other mice")
BLEND = Peer("blend of NEDS and logistic", lambda task: search(task, SINGLE), blend_fit, "time", SEEDS)
