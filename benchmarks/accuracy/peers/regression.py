"""Constant, trial average, and ridge regression on past or on past and future spikes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, Task, shown_counts, standard, targets
from neds_core.config import LinearConfig
from neds_core.data import scalers
from neds_core.data.session import Session
from neds_core.linear import baseline, linear
from neds_core.linear.linear import Bank, BankState, Linear

QUICK = LinearConfig(lags=(10,), penalties=(3e3, 3e4))
ACAUSAL_LAGS = 10  # bins a side at most: with more there are features enough for half an hour on one core
QUICK_ACAUSAL_LAGS = (1,)
Design = Callable[[Task, Session, Bank], np.ndarray]


def causal_design(task: Task, session: Session, bank: Bank) -> np.ndarray:
    """Features (n, F) of past and present bins, cold at each segment."""
    return baseline.design(session, bank, task.scale.kept)[0]


def acausal_design(task: Task, session: Session, bank: Bank) -> np.ndarray:
    """Features of both sides: the causal ones, then the same of the segment run backwards, all inside the segment."""
    counts, clock = shown_counts(task, session), session.clock()
    parts = []
    for start, stop in session.segments:
        cold = np.arange(stop - start) == 0
        both = [
            linear.features(bank, counts[start:stop][::way], clock[start:stop], cold, session.bin_ns)[::way]
            for way in (1, -1)
        ]
        n_clock = bank.clock_bins  # the time in the segment is one thing, not two
        parts.append(np.concatenate([both[1][:, : both[1].shape[1] - n_clock], both[0]], axis=1))
    return np.concatenate(parts)


def search_space(task: Task) -> LinearConfig:
    """The configuration's own grid of banks and penalties; with `quick`, the few that won in it before."""
    if not task.quick:
        return task.config.linear
    taus = task.config.linear.filter_taus_ms[-1:]
    return msgspec.structs.replace(QUICK, filter_taus_ms=taus)


def ridge_search(task: Task, design: Design, clock_bins: int) -> tuple[Setting, str]:
    """Bank and penalty of each output by blocked cross-validation inside the training part."""
    space = search_space(task)
    if design is acausal_design:
        few = QUICK_ACAUSAL_LAGS if task.quick else tuple(n for n in space.lags if n <= ACAUSAL_LAGS)
        space = msgspec.structs.replace(space, lags=few)
    train, best = task.parts.train, dict[str, tuple[float, Bank, float]]()
    bins, y = train.bins(), targets(task, train)
    rows = np.isfinite(y).all(1)
    blocks = [b[rows] for b in linear.folds(train.segment_of(bins), space.folds)]
    banks = baseline.banks(space, clock_bins)
    for bank in banks:
        skill = linear.ridge_search(design(task, train, bank)[rows], y[rows], blocks, space.penalties)
        for v, spec in enumerate(task.specs):
            p = int(skill[:, v].argmax())
            if spec.name not in best or skill[p, v] > best[spec.name][0]:
                best[spec.name] = (float(skill[p, v]), bank, space.penalties[p])
    chosen = {n: {"bank": msgspec.to_builtins(b), "penalty": p} for n, (_, b, p) in best.items()}
    words = f"{len(banks)} banks x {len(space.penalties)} penalties, {space.folds} blocks inside training"
    return chosen, words


def ridge_fit(task: Task, setting: Setting, design: Design) -> Fitted:
    """The chosen ridge of each output, fitted on training + validation."""
    train = task.parts.development
    y = targets(task, train)
    models: list[Linear] = []
    for v, spec in enumerate(task.specs):
        bank = msgspec.convert(setting[spec.name]["bank"], Bank)
        rows = np.isfinite(y[:, v])
        models.append(
            linear.ridge_fit(bank, design(task, train, bank)[rows], y[rows, v], setting[spec.name]["penalty"])
        )

    def predict(session: Session) -> np.ndarray:
        values = [m.apply(design(task, session, m.bank))[:, 0] for m in models]
        return np.stack(values, axis=1).astype(np.float64)

    states = [BankState(m.bank, len(task.scale.kept), train.bin_ns) for m in models]

    def step(counts: np.ndarray, clock: int) -> object:
        return [m.apply(s.step(counts, clock)) for m, s in zip(models, states, strict=True)]

    n_parameters = sum(int((m.weight != 0).sum()) + m.bias.size for m in models)
    return Fitted(predict, n_parameters, step if design is causal_design else None)


def ridge(name: str, design: Design, clocked: bool, uses: str) -> Peer:
    """A ridge of one family of features."""

    def clock_bins(task: Task) -> int:
        return int(task.session.clock().max()) + 1 if clocked else 0

    return Peer(
        name,
        lambda task: ridge_search(task, design, clock_bins(task)),
        lambda task, setting, _: ridge_fit(task, setting, design),
        uses,
    )


def nothing_to_search(task: Task) -> tuple[Setting, str]:
    """For peers without a choice."""
    return {}, "nothing to choose"


def constant(task: Task, setting: Setting, seed: int) -> Fitted:
    """The training part's mean."""
    rows = targets(task, task.parts.development)
    mean = np.nanmean(rows, axis=0)
    return Fitted(lambda s: np.tile(mean, (len(s.bins()), 1)), len(mean), lambda counts, clock: mean)


def trial_average(task: Task, setting: Setting, seed: int) -> Fitted:
    """The training part's average at each bin since the segment began: no spikes at all."""
    average = scalers.fit(task.parts.development, task.specs, 0.0).trial_mean
    table = np.stack([average[s.name] for s in task.specs], axis=1)
    mean = standard(task)[0]

    def predict(session: Session) -> np.ndarray:
        clock = session.clock()[session.bins()]
        known = (clock >= 0) & (clock < len(table))
        return np.where(known[:, None], table[np.clip(clock, 0, len(table) - 1)], mean)

    return Fitted(predict, table.size, lambda counts, clock: table[clock])


CONSTANT = Peer("constant", nothing_to_search, constant)
TRIAL_AVERAGE = Peer("trial average", nothing_to_search, trial_average, "time")
CAUSAL_RIDGE = ridge("causal ridge", causal_design, False, "")
CLOCKED_RIDGE = ridge("causal ridge, clocked", causal_design, True, "time")
ACAUSAL_RIDGE = ridge("acausal ridge", acausal_design, False, "future")
ACAUSAL_CLOCKED_RIDGE = ridge("acausal ridge, clocked", acausal_design, True, "time, future")
