"""The linear decoder of a recording: its search inside the training part, then its fit."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from neds_core.config import LinearConfig
from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, Session
from neds_core.linear import linear
from neds_core.linear.linear import Bank, Linear, Tick, unwatched


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


def n_fits(specs: tuple[BehaviourSpec, ...], config: LinearConfig, clock_bins: int) -> int:
    """How many fits `fit` makes: all traces share one for each bank, fold and penalty, each class has its own."""
    n_classes = sum(spec.kind == "class" for spec in specs)
    each = len(banks(config, clock_bins)) * config.folds * len(config.penalties)
    return each * (n_classes + (len(specs) > n_classes)) + len(specs)


def fit(
    train: Session,
    specs: tuple[BehaviourSpec, ...],
    scalers: Scalers,
    config: LinearConfig,
    clock_bins: int,
    tick: Tick = unwatched,
) -> dict[str, Linear]:
    """Search banks and penalties by blocked cross-validation inside `train`, refit the best on all of it.

    clock_bins: how many bins of the segment the decoder is told apart, 0 = it does not know the time in it.
    tick: told of every fit, `n_fits` in all; what it raises ends the search.
    """
    best: dict[str, Choice] = {}
    for bank in banks(config, clock_bins):
        for name, found in _choices(train, specs, scalers, config, bank, tick).items():
            if name not in best or found.skill > best[name].skill:
                best[name] = found
    return {s.name: refit(train, s, scalers, best[s.name].bank, best[s.name].penalty, tick) for s in specs}


class Choice(NamedTuple):
    """A bank with the best of its penalties, and the skill that they reach in cross-validation."""

    skill: float
    bank: Bank
    penalty: float


def _choices(
    train: Session, specs: tuple[BehaviourSpec, ...], scalers: Scalers, config: LinearConfig, bank: Bank, tick: Tick
) -> dict[str, Choice]:
    """The best penalty of one bank, for every output."""
    tick(0)
    x, bins = design(train, bank, scalers.kept)
    tick(0)
    folds = linear.folds(train.segment_of(bins), config.folds)
    skill: dict[str, np.ndarray] = {}
    traces = [s for s in specs if s.kind == "continuous"]
    if traces:
        y = np.stack([train.values[s.name][bins].astype(np.float64) for s in traces], 1)
        rows = train.valid[bins] & np.isfinite(y).all(1)
        found = linear.ridge_search(x[rows], y[rows], [f[rows] for f in folds], config.penalties, tick)
        skill |= {spec.name: found[:, v] for v, spec in enumerate(traces)}
    for spec in specs:
        if spec.kind == "class":
            label = train.values[spec.name][bins]
            rows = decision_bins(train, bins) & (label >= 0)
            blocks, n_classes = [f[rows] for f in folds], len(spec.classes)
            skill[spec.name] = linear.logistic_search(
                bank, x[rows], label[rows], blocks, n_classes, config.penalties, tick
            )
    best = {name: int(of_penalties.argmax()) for name, of_penalties in skill.items()}
    return {name: Choice(float(skill[name][p]), bank, config.penalties[p]) for name, p in best.items()}


def refit(
    session: Session, spec: BehaviourSpec, scalers: Scalers, bank: Bank, penalty: float, tick: Tick = unwatched
) -> Linear:
    """Fit one output with a chosen bank and penalty on all of `session`."""
    tick(0)
    x, bins = design(session, bank, scalers.kept)
    y = session.values[spec.name][bins]
    if spec.kind == "class":
        rows = decision_bins(session, bins) & (y >= 0)
        balanced = linear.logistic_fit(bank, x[rows], y[rows], len(spec.classes), penalty, tick)
        tick(1)
        share = np.log(scalers.prior[spec.name]).astype(np.float32)  # its posteriors mean what those of NEDS mean
        return replace(balanced, bias=balanced.bias + share)
    rows = session.valid[bins] & np.isfinite(y)
    fitted = linear.ridge_fit(bank, x[rows], y[rows].astype(np.float64), penalty, tick)
    tick(1)
    return fitted


def predict(model: Linear, session: Session, kept: np.ndarray, kind: str) -> np.ndarray:
    """The decoder's output on every bin of the session's segments: (n,) values or (n, C) probabilities."""
    x, _ = design(session, model.bank, kept)
    out = model.apply(x)
    return out[:, 0] if kind == "continuous" else torch.from_numpy(out).softmax(-1).numpy()
