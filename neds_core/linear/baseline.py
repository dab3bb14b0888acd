"""The strong causal linear decoder of a recording: its search inside the training part, then its fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from neds_core.config import LinearConfig
from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, Session
from neds_core.linear import linear
from neds_core.linear.linear import Bank, Linear
from neds_core.scores import r2 as scores


def banks(config: LinearConfig, clock_bins: int) -> list[Bank]:
    """Every feature family of the search: lag banks of square roots, filter banks as they are and rooted.

    Lag banks of plain counts never won on validation and cost as much again, so they are left out.
    """
    found = [Bank(lags=n, root=True, clock_bins=clock_bins) for n in config.lags]
    filters = [Bank(taus_ms=t, root=r, clock_bins=clock_bins) for t in config.filter_taus_ms for r in (False, True)]
    return found + filters


def design(session: Session, bank: Bank, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (T, F) of the bins inside the segments, cold at each start, and those bins' indices.

    Filtered units enter as zeros, as they do on the rig.
    """
    bins = session.bins()
    reset = np.isin(bins, session.segments[:, 0])
    counts = np.where(kept & session.valid[bins, None], session.counts[bins], 0).astype(np.float32)
    return linear.features(bank, counts, session.clock()[bins], reset, session.bin_ns), bins


def decision_bins(session: Session, bins: np.ndarray) -> np.ndarray:
    """(n,) bool: the last bin of each segment, where a trial's class is judged."""
    return np.isin(bins, session.segments[:, 1] - 1)


def fit(
    train: Session, specs: tuple[BehaviourSpec, ...], scalers: Scalers, config: LinearConfig, clock_bins: int
) -> dict[str, Linear]:
    """Search banks and penalties by blocked cross-validation inside `train`, refit the best on all of it."""
    best: dict[str, tuple[float, Bank, float]] = {}
    for bank in banks(config, clock_bins):
        x, bins = design(train, bank, scalers.kept)
        segment = train.segment_of(bins)
        traces = [s for s in specs if s.kind == "continuous"]
        if traces:
            y = np.stack([train.values[s.name][bins].astype(np.float64) for s in traces], 1)
            rows = train.valid[bins] & np.isfinite(y).all(1)
            blocks = [b[rows] for b in linear.folds(segment, config.folds)]
            skill = linear.ridge_search(x[rows], y[rows], blocks, config.penalties)
            for v, spec in enumerate(traces):
                p = int(skill[:, v].argmax())
                _keep(best, spec.name, float(skill[p, v]), bank, config.penalties[p])
        for spec in specs:
            if spec.kind == "class":
                rows = decision_bins(train, bins) & (train.values[spec.name][bins] >= 0)
                blocks = [b[rows] for b in linear.folds(segment, config.folds)]
                label = train.values[spec.name][bins][rows]
                for penalty in config.penalties:
                    _keep(best, spec.name, _class_skill(bank, x[rows], label, blocks, penalty, spec), bank, penalty)
    return {s.name: refit(train, s, scalers, best[s.name][1], best[s.name][2]) for s in specs}


def _keep(best: dict[str, tuple[float, Bank, float]], name: str, skill: float, bank: Bank, penalty: float) -> None:
    if name not in best or skill > best[name][0]:
        best[name] = (skill, bank, penalty)


def _class_skill(
    bank: Bank, x: np.ndarray, label: np.ndarray, blocks: list[np.ndarray], penalty: float, spec: BehaviourSpec
) -> float:
    """Balanced accuracy of held-out blocks."""
    guess = np.full(len(label), -1)
    for rows in blocks:
        model = linear.logistic_fit(bank, x[~rows], label[~rows], len(spec.classes), penalty)
        guess[rows] = model.apply(x[rows]).argmax(1)
    return scores.balanced_accuracy(label, guess, len(spec.classes))


def refit(session: Session, spec: BehaviourSpec, scalers: Scalers, bank: Bank, penalty: float) -> Linear:
    """Fit one output with a chosen bank and penalty on all of `session`."""
    x, bins = design(session, bank, scalers.kept)
    y = session.values[spec.name][bins]
    if spec.kind == "class":
        rows = decision_bins(session, bins) & (y >= 0)
        balanced = linear.logistic_fit(bank, x[rows], y[rows], len(spec.classes), penalty)
        share = np.log(scalers.prior[spec.name]).astype(np.float32)  # its posteriors mean what those of NEDS mean
        return replace(balanced, bias=balanced.bias + share)
    rows = session.valid[bins] & np.isfinite(y)
    return linear.ridge_fit(bank, x[rows], y[rows].astype(np.float64), penalty)


def predict(model: Linear, session: Session, kept: np.ndarray, kind: str) -> np.ndarray:
    """The decoder's output on every bin of the session's segments: (n,) values or (n, C) probabilities."""
    x, _ = design(session, model.bank, kept)
    out = model.apply(x)
    return out[:, 0] if kind == "continuous" else torch.from_numpy(out).softmax(-1).numpy()
