"""Spikes from behaviour: trial average and Poisson regression on the behaviour and the time that NEDS is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from benchmarks.accuracy.peers.task import Fitted, Peer, Predict, Setting, Task, standard, targets
from neds_core.data.session import Session
from neds_core.scores import encoding
from neds_core.scores.bits import bits_of_sums
from neds_core.scores.encoding import Target

LOG_RATE = (-14.0, 3.0)  # spikes a bin; no unit fires above 20 a bin


def goal_of(before: Session, after: Session) -> Target:
    """The spikes of `after` that are scored, and the null model, which comes from `before`."""
    bins = after.bins()
    return encoding.target(before, after, bins, after.segment_of(bins))


def skill(goal: Target, rates: np.ndarray) -> float:
    """Bits/spike of rates (n, U) against the training mean, pooled over the scored units."""
    return float(bits_of_sums(goal.sums(goal.of(rates)).sum(0)))


def choose_rates(task: Task, settings: Sequence[Setting], fit: Callable[[Setting, Session], Predict]) -> Setting:
    """The setting with the best mean bits/spike over the folds."""
    folds = [(before, after, goal_of(before, after)) for before, after in task.folds]
    found = [
        np.mean([skill(goal, fit(setting, before)(after)) for before, after, goal in folds]) for setting in settings
    ]
    return {**settings[int(np.argmax(found))], "folds_bits": float(np.max(found))}


def average_of(before: Session) -> np.ndarray:
    """Smoothed mean counts (bins, U) at each time in the trial."""
    return encoding.trial_average(before, np.ones(before.counts.shape[1], bool))


def by_clock(table: np.ndarray) -> Predict:
    """Rates (n, U) looked up by the time in the trial."""
    return lambda session: table[np.clip(session.clock()[session.bins()], 0, len(table) - 1)]


def average_fit(task: Task, setting: Setting, seed: int) -> Fitted:
    """The average of training + validation."""
    table = average_of(task.parts.development)
    return Fitted(by_clock(table), table.size, lambda counts, clock: table[clock])


def design(task: Task, session: Session, setting: Setting) -> np.ndarray:
    """Features (n, F): the last `lags` bins of each behaviour (z-scores, with `root` their signed square roots
    too) inside the segment, 0 before it and where undefined, then the time in the segment as one column a bin."""
    mean, sd = standard(task)
    z = np.nan_to_num((targets(task, session) - mean) / sd)
    shapes = [z, np.sign(z) * np.sqrt(np.abs(z))] if setting["root"] else [z]
    traces = np.concatenate(shapes, axis=1)
    clock = session.clock()[session.bins()]
    past = [np.where(clock[:, None] >= k, np.roll(traces, k, axis=0), 0.0) for k in range(setting["lags"])]
    n_clock = int(task.session.clock().max()) + 1
    return np.concatenate([*past, np.eye(n_clock)[clock]], axis=1)


def poisson_fit(x: np.ndarray, counts: np.ndarray, penalty: float, iterations: int = 80) -> np.ndarray:
    """Weights (F + 1, U) of log rates on x (n, F) and 1, by L-BFGS: all units at once, each its own model.

    Minimises sum(rate - count * log rate) + penalty / 2 * |w|^2, the bias free (Truccolo et al.
    2005, J Neurophysiol 93:1074, with an L2 penalty). counts (n, U).
    """
    features, target = torch.from_numpy(x).float(), torch.from_numpy(counts).float()
    bias = torch.log(target.mean(0).clamp(min=1e-4)).requires_grad_()
    weight = torch.zeros(x.shape[1], counts.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=iterations, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        log_rate = (features @ weight + bias).clamp(max=LOG_RATE[1])
        value = (log_rate.exp() - target * log_rate).sum() + 0.5 * penalty * (weight**2).sum()
        value = value / len(features)
        value.backward()
        return value

    solver.step(closure)  # pyright: ignore[reportArgumentType]
    return torch.cat([weight, bias[None]]).detach().double().numpy()


def glm_on(task: Task, setting: Setting, before: Session) -> tuple[np.ndarray, Predict]:
    """Weights (F + 1, U) on the features themselves, and the encoder."""
    bins = before.bins()
    x = design(task, before, setting)
    n_clock = int(task.session.clock().max()) + 1
    # behaviour is standardised; the time's columns are scaled up, so that they are penalised weakly
    scale = np.r_[1.0 / np.maximum(x[:, :-n_clock].std(0), 1e-6), np.full(n_clock, setting["clock_scale"])]
    seen = before.valid[bins]
    weight = poisson_fit(x[seen] * scale, before.counts[bins][seen].astype(np.float64), setting["penalty"])
    weight[:-1] *= scale[:, None]
    return weight, lambda s: np.exp(np.clip(design(task, s, setting) @ weight[:-1] + weight[-1], *LOG_RATE))


def glm_grid() -> list[Setting]:
    """Window of behaviour and its penalty; its square root always helped, the time's columns are weakly penalised."""
    common = {"root": True, "clock_scale": 3.0}
    return [{**common, "lags": n, "penalty": p} for n, p in product((10, 25, 47), (400.0, 100.0, 1500.0))]


def glm_search(task: Task) -> tuple[Setting, str]:
    """The grid on the folds; quick: what won in it before."""
    settings = glm_grid()
    if task.quick:
        return {**settings[0], "lags": 47}, "nothing (quick)"
    chosen = choose_rates(task, settings, lambda setting, before: glm_on(task, setting, before)[1])
    return chosen, f"{len(settings)} settings on the folds"


def glm_fit(task: Task, setting: Setting, seed: int) -> Fitted:
    """The chosen model on training + validation."""
    weight, predict = glm_on(task, setting, task.parts.development)
    return Fitted(predict, weight.size)


AVERAGE = Peer(
    "trial average",
    lambda task: ({}, f"{len(encoding.WIDTHS)} widths of smoothing, {encoding.FOLDS} blocks inside training"),
    average_fit,
    "time",
)
GLM = Peer("Poisson GLM", glm_search, glm_fit, "time")
