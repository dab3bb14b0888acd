"""The rows of a class told once a trial of one recording: logistic, shrinkage LDA, and NEDS as it ships."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.accuracy.peers import classes
from benchmarks.accuracy.peers.neds import PHASE_FREE, decoder, shipped
from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, Task
from benchmarks.studies import target, target_lda
from benchmarks.studies.target import FIVE_BINS
from neds_core.data.session import Session
from neds_core.model.directions import bins_of, spans_of

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


def from_checkpoint(row: str, kind: str, seeds: int) -> Peer:
    """What a shipped checkpoint's decoder says ("neds", "blend" or "logistic"), a file for each training seed."""

    def fit(task: Task, setting: Setting, seed: int) -> Fitted:
        made, spec = shipped(task, PHASE_FREE[seed]), task.session.spec(name_of(task))

        def guess(session: Session) -> np.ndarray:
            return target.guesses([made], spec, session)[kind][0]

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


def lda(row: str, clocked: bool, fixed: target_lda.Setting | None = None) -> Peer:
    """Shrinkage LDA on the mean counts of the last bins; a clocked one is of each bin since the trial's start."""

    def search(task: Task) -> tuple[Setting, str]:
        if fixed is not None:
            return {"last_bins": fixed.last_bins, "root": fixed.root}, "nothing: five bins"
        inside = (task.parts.development, labels(task), task.scale.kept, shortest(task))
        found, _ = target_lda.choose(*inside, clocked=clocked)
        return {"last_bins": found.last_bins, "root": found.root}, "bins and root, by folds inside the training part"

    def fit(task: Task, setting: Setting, seed: int) -> Fitted:
        chosen, n = target_lda.Setting(**setting), shortest(task)
        made = target_lda.fit(task.parts.development, labels(task), task.scale.kept, chosen, n, clocked=clocked)
        n_parameters = sum(m.coef_.size + m.intercept_.size for m in made.models)
        return Fitted(at_last_common(task, made.guess), n_parameters)

    return Peer(row, search, fit, "time" if clocked else "")


LDA = lda("shrinkage LDA", clocked=False)
LDA_CLOCKED = lda("shrinkage LDA, clocked", clocked=True)
LDA_FIVE = lda("shrinkage LDA, clocked, five bins", clocked=True, fixed=FIVE_BINS)
LOGISTIC = from_checkpoint("logistic regression", "logistic", 1)
NEDS = from_checkpoint("NEDS multi-task", "neds", 3)
BLEND = from_checkpoint("blend of NEDS and logistic", "blend", 3)
