"""Shrinkage LDA on the mean counts of a trial's last bins: the rival of a decoder that tells a trial's class.

One LDA for every bin of the trial, or (clocked) one for each bin since the trial's start. It is fitted on the first
`n_bins` bins of each trial, which are those that every trial has.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from neds_core.data.session import Session
from neds_core.linear import linear
from neds_core.model.directions import bins_of, spans_of

LAST_BINS = (1, 2, 3, 5, 8, 12)
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Setting:
    """last_bins: how many past bins are averaged, fewer at a trial's start; root: square roots of counts instead."""

    last_bins: int
    root: bool


@dataclass(frozen=True, slots=True)
class Lda:
    """A fitted LDA; `models` holds one, or one for each bin since the trial's start."""

    setting: Setting
    kept: np.ndarray  # (U,) bool
    models: tuple[LinearDiscriminantAnalysis, ...]

    def guess(self, session: Session) -> np.ndarray:
        """(n,) class of every bin of the session's segments."""
        x, clock = window_means(session, self.setting, self.kept)
        model = np.minimum(clock, len(self.models) - 1)
        out = np.full(len(x), -1, np.int64)
        for m in np.unique(model):
            out[model == m] = self.models[m].predict(x[model == m])
        return out


def window_means(session: Session, setting: Setting, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean counts (n, kept units) of each bin and those before it in its own trial, and bins since its start (n,)."""
    bins = bins_of(spans_of(session))
    clock = session.clock()[bins]
    counts = session.counts[bins][:, kept].astype(np.float64)
    total = np.cumsum(np.sqrt(counts) if setting.root else counts, axis=0)
    total = np.concatenate([np.zeros((1, total.shape[1])), total])
    n = np.minimum(clock + 1, setting.last_bins)
    now = np.arange(1, len(bins) + 1)
    return (total[now] - total[now - n]) / n[:, None], clock


def fit(session: Session, label: np.ndarray, kept: np.ndarray, setting: Setting, n_bins: int, *, clocked: bool) -> Lda:
    """label (n,): class of every bin of the session's segments, -1 = unknown."""
    x, clock = window_means(session, setting, kept)
    known = (label >= 0) & (clock < n_bins)
    groups = [known & (clock == k) for k in range(n_bins)] if clocked else [known]
    share = np.full(len(np.unique(label[known])), 1.0 / len(np.unique(label[known])))
    models = (LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=share) for _ in groups)
    return Lda(setting, kept, tuple(m.fit(x[g], label[g]) for m, g in zip(models, groups, strict=True)))


def choose(
    session: Session, label: np.ndarray, kept: np.ndarray, n_bins: int, *, clocked: bool
) -> tuple[Setting, float]:
    """The setting with the best mean accuracy over a trial's first `n_bins` bins, by contiguous folds of trials."""
    bins = bins_of(spans_of(session))
    held_out = linear.folds(session.segment_of(bins), FOLDS)
    inside = (session.clock()[bins] < n_bins) & (label >= 0)

    def skill(setting: Setting) -> float:
        guess = np.full(len(label), -1, np.int64)
        for held in held_out:
            trained = fit(session, np.where(held, -1, label), kept, setting, n_bins, clocked=clocked)
            guess[held] = trained.guess(session)[held]
        return float((guess == label)[inside].mean())

    settings = [Setting(n, root) for n, root in product(LAST_BINS, (False, True)) if n <= n_bins]
    found = [skill(setting) for setting in settings]
    best = int(np.argmax(found))
    return settings[best], found[best]
