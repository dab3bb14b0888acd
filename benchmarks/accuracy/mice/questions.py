"""The two questions that each trial of Steinmetz et al. 2019 answers, and the logistic regressions that tell them.

Five contiguous folds of the trials of each session; every fit, penalty and scale comes from the other four.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.accuracy.mice import windowed
from benchmarks.accuracy.mice.steinmetz import Bundle
from neds_core.linear import linear

QUESTIONS = ("wheel_direction", "go")
DECODERS = ("stimulus", "neural", "stimulus + neural")
WINDOW_MS = 100
PENALTIES = (0.1, 1.0, 10.0)
SHARES = (1.0, 10.0)  # of the contrasts beside the counts, a column of each
FOLDS = 5
MIN_TRIALS = 5  # of each class among what a fold trains on


@dataclass(frozen=True, slots=True)
class Rows:
    """One row: windows read (the first k), trials scored (S,) bool, and whether the training is of such trials only."""

    name: str
    windows: int
    scored: np.ndarray
    own: bool


def contrasts(bundle: Bundle) -> np.ndarray:
    """(S, F) one column for each contrast above 0 of each side."""
    columns = [
        bundle.contrast[:, side] == level
        for side in (0, 1)
        for level in np.unique(bundle.contrast[:, side])
        if level > 0
    ]
    return np.stack(columns, 1).astype(np.float32)


def folds(n_trials: int) -> list[np.ndarray]:
    """Contiguous folds of the trials: True where held out (S,)."""
    return linear.folds(np.arange(n_trials), FOLDS)


class Evidence:
    """Cross-validated evidence of one session, each fit made once whichever rows ask for it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        fires = bundle.session.counts.mean(0) > 0
        self.counts = windowed.windows(bundle.session, WINDOW_MS)[:, :, fires]  # (S, W, units that fire)
        self.contrasts = contrasts(bundle)
        self.folds = folds(len(self.counts))
        self.made: dict[tuple[Any, ...], np.ndarray | None] = {}

    def of(self, question: str, decoder: str, row: Rows) -> np.ndarray | None:
        """(S,) evidence for class 1 of held-out trials; None where a fold has too little to train on."""
        trained = row.name if row.own else ""
        key = (question, decoder, row.windows if decoder != "stimulus" else 0, trained)
        if key not in self.made:
            self.made[key] = self._fit(question, decoder, row)
        return self.made[key]

    def n_columns(self, decoder: str) -> int:
        """Columns that a decoder of all windows reads."""
        stimulus, neural, _ = DECODERS
        n_seen = self.counts.shape[1] * self.counts.shape[2]
        return (decoder != stimulus) * n_seen + (decoder != neural) * self.contrasts.shape[1]

    def _fit(self, question: str, decoder: str, row: Rows) -> np.ndarray | None:
        label = self.bundle.labels(question)
        use = row.scored if row.own else np.ones(len(label), bool)
        out = np.zeros(len(label))
        for held in self.folds:
            train = use & ~held
            if np.bincount(label[train & (label >= 0)], minlength=2).min() < MIN_TRIALS:
                return None
            told = windowed.inner(self.contrasts, train)
            seen = windowed.inner(self.counts[:, : row.windows].reshape(len(label), -1), train)
            kernels = {
                "stimulus": [told],
                "neural": [seen],
                "stimulus + neural": [seen + share * told for share in SHARES],
            }[decoder]
            out[held] = windowed.evidence(kernels, label, train, PENALTIES)[held]
        return out
