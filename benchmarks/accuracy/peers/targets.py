"""The rows of a class told once a trial of one recording: logistic, shrinkage LDA, and NEDS as it ships."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.accuracy import lda
from benchmarks.accuracy.peers import classes
from benchmarks.accuracy.peers.neds import PHASE_FREE, decoder, shipped
from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, Task
from neds_core.checkpoint import Checkpoint
from neds_core.data.session import BehaviourSpec, Session
from neds_core.linear import baseline
from neds_core.model.directions import bins_of, spans_of
from neds_core.scores import judging
from neds_core.train import loop

FEW_BINS = 5
FIVE_BINS = lda.Setting(FEW_BINS, root=False)
Guess = Callable[[Session], np.ndarray]  # class of every bin of the session's segments


def shortest(task: Task) -> int:
    """Bins that every trial of the recording has."""
    return int(np.diff(task.session.segments).min())


def at_last_common(task: Task, guess: Guess) -> Callable[[Session], np.ndarray]:
    """(S, 1) the class that is said at the last bin that every trial has: LDA is fitted up to there."""

    def said(session: Session) -> np.ndarray:
        length = np.diff(session.segments)[:, 0]
        return guess(session)[np.cumsum(length) - length + shortest(task) - 1, None]

    return said


def name_of(task: Task) -> str:
    """The one class."""
    (name,) = classes.questions(task)
    return name


def classes_of(made: Checkpoint, spec: BehaviourSpec, session: Session) -> dict[str, np.ndarray]:
    """Class (n,) of every bin of the session's segments by each of a checkpoint's decoders."""
    prior = made.scalers.prior[spec.name]
    each = np.stack([loop.decode_live(network, session)[spec.name] for network in made.networks])
    logistic = baseline.predict(made.linear[spec.name], session, made.scalers.kept, spec.kind)
    said = judging.mixed(each, logistic, judging.shares_of(made, spec.name))
    probs = {"neds": said["neds"], "blend": said["blend"], "logistic": logistic}
    return {name: (p / prior).argmax(1) for name, p in probs.items()}


def from_checkpoint(row: str, kind: str, seeds: int) -> Peer:
    """What a shipped checkpoint's decoder says ("neds", "blend" or "logistic"), a file for each training seed."""

    def fit(task: Task, setting: Setting, seed: int) -> Fitted:
        made, spec = shipped(task, PHASE_FREE[seed]), task.session.spec(name_of(task))

        def guess(session: Session) -> np.ndarray:
            return classes_of(made, spec, session)[kind]

        if kind == "logistic":
            linear = made.linear[spec.name]
            return Fitted(at_last_common(task, guess), int((linear.weight != 0).sum()) + linear.bias.size)
        live = decoder(task, made, kind, made.header.record.seconds)
        return Fitted(at_last_common(task, guess), live.parameters, live.step, live.seconds)

    words = "as shipped: configuration chosen inside the training part, stopped on validation"
    return Peer(row, lambda task: ({}, words), fit, "", seeds, loaded=True)


def labels(task: Task) -> np.ndarray:
    """(n,) class of every bin before the test part."""
    return task.parts.development.values[name_of(task)][bins_of(spans_of(task.parts.development))]


def lda_peer(row: str, clocked: bool, fixed: lda.Setting | None = None) -> Peer:
    """Shrinkage LDA on the mean counts of the last bins; a clocked one is of each bin since the trial's start."""

    def search(task: Task) -> tuple[Setting, str]:
        if fixed is not None:
            return {"last_bins": fixed.last_bins, "root": fixed.root}, "nothing: five bins"
        inside = (task.parts.development, labels(task), task.scale.kept, shortest(task))
        found, _ = lda.choose(*inside, clocked=clocked)
        return {"last_bins": found.last_bins, "root": found.root}, "bins and root, by folds inside the training part"

    def fit(task: Task, setting: Setting, seed: int) -> Fitted:
        chosen, n = lda.Setting(**setting), shortest(task)
        made = lda.fit(task.parts.development, labels(task), task.scale.kept, chosen, n, clocked=clocked)
        n_parameters = sum(m.coef_.size + m.intercept_.size for m in made.models)
        return Fitted(at_last_common(task, made.guess), n_parameters)

    return Peer(row, search, fit, "time" if clocked else "")


LDA = lda_peer("shrinkage LDA", clocked=False)
LDA_CLOCKED = lda_peer("shrinkage LDA, clocked", clocked=True)
LDA_FIVE = lda_peer("shrinkage LDA, clocked, five bins", clocked=True, fixed=FIVE_BINS)
LOGISTIC = from_checkpoint("logistic regression", "logistic", 1)
NEDS = from_checkpoint("NEDS multi-task", "neds", 3)
BLEND = from_checkpoint("blend of NEDS and logistic", "blend", 3)
