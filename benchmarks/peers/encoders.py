"""Spikes from behaviour: trial average and Poisson regression on the behaviour and the time that NEDS is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers.task import Fitted, Peer, Predict, Setting, Task, bins_of, standard, targets
from neds_core import scalers
from neds_core.encoding_scores import bits_per_spike
from neds_core.session import Session

SCORED_HZ = 2.0  # units at or above this rate in training are scored
LOG_RATE = (-14.0, 3.0)  # spikes a bin; no unit fires above 20 a bin


def scored_units(before: Session) -> tuple[np.ndarray, np.ndarray]:
    """(U,) bool of units that are scored, and the null model: their mean counts a bin (U,) in the training part."""
    mean = before.counts[scalers.inside(before)].mean(0, dtype=np.float64)
    return mean / (before.bin_ns * 1e-9) >= SCORED_HZ, mean


def skill(before: Session, after: Session, rates: np.ndarray) -> float:
    """Bits/spike of rates (n, U) on `after` against the training mean, pooled over the scored units."""
    units, null = scored_units(before)
    bins = bins_of(after)
    seen = after.valid[bins]
    return bits_per_spike(after.counts[bins][seen][:, units], rates[seen][:, units], null[units])


def choose_rates(task: Task, settings: Sequence[Setting], fit: Callable[[Setting, Session], Predict]) -> Setting:
    """The setting with the best mean bits/spike over the folds."""
    found = [
        np.mean([skill(before, after, fit(setting, before)(after)) for before, after in task.folds])
        for setting in settings
    ]
    return {**settings[int(np.argmax(found))], "folds_bits": float(np.max(found))}


def average_of(before: Session, sigma_bins: float) -> np.ndarray:
    """Mean counts (bins, U) by time in the segment, smoothed over time by a Gaussian of sigma_bins; 0 = as it is."""
    rows = scalers.inside(before)
    clock, counts = before.clock()[rows], before.counts[rows].astype(np.float64)
    total = np.zeros((int(clock.max()) + 1, counts.shape[1]))
    np.add.at(total, clock, counts)
    n = np.bincount(clock)[:, None].astype(np.float64)
    if sigma_bins > 0:
        reach = np.arange(len(total))
        kernel = np.exp(-0.5 * ((reach[:, None] - reach) / sigma_bins) ** 2)
        total, n = kernel @ total, kernel @ n
    return total / np.maximum(n, 1e-12)


def by_clock(table: np.ndarray) -> Predict:
    """Rates (n, U) looked up by the time in the segment."""
    return lambda session: table[np.clip(session.clock()[bins_of(session)], 0, len(table) - 1)]


def average_search(task: Task) -> tuple[Setting, str]:
    """Smoothing of the average."""
    settings = [{"sigma_bins": s} for s in (0.0, 0.7, 1.0, 1.5, 2.0, 3.0)]
    chosen = choose_rates(task, settings, lambda setting, before: by_clock(average_of(before, setting["sigma_bins"])))
    return chosen, f"{len(settings)} widths of smoothing on the folds"


def average_fit(task: Task, setting: Setting, seed: int) -> Fitted:
    """The average of training + validation."""
    table = average_of(task.parts.development, setting["sigma_bins"])
    return Fitted(by_clock(table), table.size, lambda counts, clock: table[clock])


def design(task: Task, session: Session, setting: Setting) -> np.ndarray:
    """Features (n, F): the last `lags` bins of each behaviour (z-scores, with `root` their signed square roots
    too) inside the segment, 0 before it and where undefined, then the time in the segment as one column a bin."""
    mean, sd = standard(task)
    z = np.nan_to_num((targets(task, session) - mean) / sd)
    shapes = [z, np.sign(z) * np.sqrt(np.abs(z))] if setting["root"] else [z]
    traces = np.concatenate(shapes, axis=1)
    clock = session.clock()[bins_of(session)]
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
    bins = bins_of(before)
    x = design(task, before, setting)
    n_clock = int(task.session.clock().max()) + 1
    # behaviour is standardised; the time's columns are scaled up, so that they are penalised weakly
    scale = np.r_[1.0 / np.maximum(x[:, :-n_clock].std(0), 1e-6), np.full(n_clock, setting["clock_scale"])]
    seen = before.valid[bins]
    weight = poisson_fit(x[seen] * scale, before.counts[bins][seen].astype(np.float64), setting["penalty"])
    weight[:-1] *= scale[:, None]
    return weight, lambda s: np.exp(np.clip(design(task, s, setting) @ weight[:-1] + weight[-1], *LOG_RATE))


def glm_grid(quick: bool) -> list[Setting]:
    """Window, shapes of behaviour, penalties of behaviour and of time."""
    lags, roots, penalties, clocks = (10, 25, 47), (False, True), (100.0, 400.0, 1500.0, 5000.0), (3.0,)
    if quick:
        lags, roots, penalties, clocks = (47,), (True,), (400.0, 1500.0), (3.0,)
    keys = ("lags", "root", "penalty", "clock_scale")
    return [dict(zip(keys, row, strict=True)) for row in product(lags, roots, penalties, clocks)]


def glm_search(task: Task) -> tuple[Setting, str]:
    """The grid on the folds."""
    settings = glm_grid(task.quick)
    chosen = choose_rates(task, settings, lambda setting, before: glm_on(task, setting, before)[1])
    return chosen, f"{len(settings)} settings on the folds"


def glm_fit(task: Task, setting: Setting, seed: int) -> Fitted:
    """The chosen model on training + validation."""
    weight, predict = glm_on(task, setting, task.parts.development)
    return Fitted(predict, weight.size)


AVERAGE = Peer("trial average", average_search, average_fit, "time")
GLM = Peer("Poisson GLM", glm_search, glm_fit, "time")
