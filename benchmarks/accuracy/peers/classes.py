"""Classes told once a trial over many sessions: every trial held out once, and the peers without a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.accuracy.mice import steinmetz
from benchmarks.accuracy.mice.questions import DECODERS, QUESTIONS, Evidence, Rows
from benchmarks.accuracy.mice.steinmetz import Bundle
from benchmarks.accuracy.peers.regression import nothing_to_search
from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, Task
from neds_core.data import session as sessions
from neds_core.data.session import Session
from neds_core.train.many import Pretrained

QUICK_TRIALS = 150
Held = tuple[str, Session]  # a mouse, and the trials of a session of its that are scored


def shortened(bundle: Bundle, n: int) -> Bundle:
    """The first n trials."""
    return replace(bundle, session=sessions.select(bundle.session, slice(n)), contrast=bundle.contrast[:n])


@dataclass(frozen=True)
class FoldTask:
    """Sessions of several mice, each in contiguous folds of trials; a fit tells a fold's trials from the other folds.

    With `quick` one session of each mouse, its first trials. `trunks` and `evidence` keep what one row made for the
    next: a trunk by its mouse and seed, and evidence by its peer and seed.
    """

    bundles: tuple[Bundle, ...]
    quick: bool
    trunks: dict[tuple[str, int], Pretrained] = field(default_factory=dict)
    evidence: dict[tuple[str, int], dict[str, np.ndarray]] = field(default_factory=dict)

    @cached_property
    def mice(self) -> tuple[str, ...]:
        """Every mouse once."""
        return tuple(dict.fromkeys(one.mouse for one in self.bundles))

    def keep(self, name: str, seed: int, make: Callable[[Bundle], np.ndarray]) -> dict[str, np.ndarray]:
        """Evidence (S, Q) for class 1 of each session's trials, made once in this process."""
        if (name, seed) not in self.evidence:
            self.evidence[name, seed] = {one.session.name: make(one) for one in self.bundles}
        return self.evidence[name, seed]


def read(quick: bool, folder: Path = steinmetz.FOLDER) -> FoldTask:
    """The sessions of Steinmetz et al. 2019."""
    bundles = steinmetz.read_folder(folder)
    if quick:
        first = {one.mouse: one for one in reversed(bundles)}
        bundles = [shortened(one, QUICK_TRIALS) for one in first.values()]
    return FoldTask(tuple(bundles), quick)


def held_out(task: Task | FoldTask) -> list[Held]:
    """What is scored: each session whole, every trial by the fit that did not see it; or the test part."""
    if isinstance(task, FoldTask):
        return [(one.mouse, one.session) for one in task.bundles]
    return [(task.session.name, task.parts.test)]


def questions(task: Task | FoldTask) -> dict[str, int]:
    """The classes' names, and how many each has."""
    if isinstance(task, FoldTask):
        return dict.fromkeys(QUESTIONS, 2)
    specs = (task.session.spec(name) for name in task.config.outputs)
    return {s.name: len(s.classes) for s in specs if s.kind == "class" and s.labels == "measured"}


def fitted(evidence: dict[str, np.ndarray], n_parameters: float) -> Fitted:
    """A peer of evidence (S, Q) for class 1 by session. n_parameters: of one fit, mean over sessions."""
    return Fitted(lambda session: (evidence[session.name] > 0).astype(np.int64), round(n_parameters))


def logistic(task: FoldTask, decoder: str) -> dict[str, np.ndarray]:
    """Evidence of a logistic regression of `bench choice`, its penalty from blocks inside the training folds."""

    def make(bundle: Bundle) -> np.ndarray:
        evidence = Evidence(bundle)
        every = Rows("all trials", evidence.counts.shape[1], np.ones(len(bundle.contrast), bool), own=False)
        said = [evidence.of(question, decoder, every) for question in QUESTIONS]
        return np.stack([np.zeros(len(bundle.contrast)) if e is None else e for e in said], 1)

    return task.keep(decoder, 0, make)


def logistic_peer(name: str, decoder: str, uses: str) -> Peer:
    """A row of a logistic regression."""
    words = "penalty by blocks inside the training folds"

    def fit(task: FoldTask, setting: Setting, seed: int) -> Fitted:
        n_columns = [Evidence(one).n_columns(decoder) + 1 for one in task.bundles]
        return fitted(logistic(task, decoder), len(QUESTIONS) * float(np.mean(n_columns)))

    return Peer(name, lambda task: ({}, words), fit, uses)


def constant(task: Task | FoldTask, setting: Setting, seed: int) -> Fitted:
    """Always the first class."""
    n = len(questions(task))
    return Fitted(lambda session: np.zeros((len(session.segments), n), np.int64), 0)


STIMULUS, NEURAL, BOTH = DECODERS
LOGISTIC = logistic_peer("logistic regression", NEURAL, "")
CONTRASTS = logistic_peer("contrasts alone", STIMULUS, "contrasts, no spikes")
LOGISTIC_BOTH = logistic_peer("logistic regression, contrasts too", BOTH, "contrasts")
CONSTANT = Peer("constant", nothing_to_search, constant)
