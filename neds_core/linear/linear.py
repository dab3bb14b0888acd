"""The causal linear decoder that stands beside NEDS: ridge for traces, logistic for classes.

Features are causal and reset at segments: the last n bins of counts, or exponential filters
of counts, as counts or as square roots; a clocked decoder adds the time in the segment.
Offline features and the streaming step run the same float32 operations in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor

from neds_core.data import filters

COLUMNS = 512  # of a product of matrices that are computed before somebody may ask to stop
CLOCK_SCALE = 3.0  # weakly penalised: the time in the segment is few columns with much data


Tick = Callable[[int], None]  # told how many fits were made since; may raise to stop the search


def unwatched(_: int) -> None:
    """Nobody watches."""


class Bank(Struct, frozen=True, forbid_unknown_fields=True):
    """One family of causal features: `lags` bins, or one exponential filter for each of `taus_ms`.

    root: of square roots of counts; clock_bins: columns for the bins since the segment's start, 0 = none.
    """

    lags: int = 0
    taus_ms: tuple[float, ...] = ()
    root: bool = False
    clock_bins: int = 0

    @property
    def copies(self) -> int:
        """Feature columns per unit."""
        return self.lags or len(self.taus_ms)

    def n_features(self, n_units: int) -> int:
        """Columns of the feature matrix."""
        return self.copies * n_units + self.clock_bins


class BankState:
    """Features of a stream, one bin at a time."""

    def __init__(self, bank: Bank, n_units: int, bin_ns: int) -> None:
        self.bank, self.n_units = bank, n_units
        self.keep = filters.shares(bank.taus_ms, bin_ns)[:, None]  # (copies, 1)
        self.state = np.zeros((bank.copies, n_units), np.float32)
        self.out = np.zeros(bank.n_features(n_units), np.float32)

    def reset(self) -> None:
        """A cold start: no history."""
        self.state[:] = 0.0

    def step(self, counts: np.ndarray, clock: int) -> np.ndarray:
        """counts (U,) of the new bin, clock bins since the marker or -1; returns features (F,), reused."""
        if self.bank.lags:
            self.state[1:] = self.state[:-1]
            np.copyto(self.state[0], counts)
        else:
            self.state *= self.keep
            self.state += (1.0 - self.keep) * counts.astype(np.float32)
        n = self.bank.copies * self.n_units
        wide = self.out[:n].reshape(self.state.shape)
        np.copyto(wide, self.state) if not self.bank.root else np.sqrt(self.state, out=wide)
        if self.bank.clock_bins:
            self.out[n:] = 0.0
            if clock >= 0:
                self.out[n + min(clock, self.bank.clock_bins - 1)] = CLOCK_SCALE
        return self.out


def features(bank: Bank, counts: np.ndarray, clock: np.ndarray, reset: np.ndarray, bin_ns: int) -> np.ndarray:
    """The offline twin of `BankState`: counts (T, U), clock (T,), reset (T,) bool before a bin; (T, F) float32."""
    state = BankState(bank, counts.shape[1], bin_ns)
    out = np.empty((len(counts), bank.n_features(counts.shape[1])), np.float32)
    for t in range(len(counts)):
        if reset[t]:
            state.reset()
        out[t] = state.step(counts[t], int(clock[t]))
    return out


@dataclass(frozen=True, slots=True)
class Linear:
    """One output's decoder: value = features @ weight + bias, weight (F, C), bias (C,)."""

    bank: Bank
    penalty: float
    weight: np.ndarray
    bias: np.ndarray

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Outputs (..., C) of features (..., F): a value, or logits of classes."""
        return x @ self.weight + self.bias


def folds(segment: np.ndarray, n_folds: int) -> list[np.ndarray]:
    """Contiguous blocks, (n,) bool each, cut between segments where there are enough of them.

    segment (n,) int: of each row, non-decreasing.
    """
    groups = np.unique(segment)
    if len(groups) < n_folds:
        return _even(np.arange(len(segment)), len(segment), n_folds)
    return [np.isin(segment, block) for block in np.array_split(groups, n_folds)]


def _even(index: np.ndarray, n: int, n_folds: int) -> list[np.ndarray]:
    edges = np.linspace(0, n, n_folds + 1).astype(int)
    return [(index >= a) & (index < b) for a, b in pairwise(edges)]


def _standardise(x: np.ndarray) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """z-scores of the columns that vary (T, F'), and mean and gain (F,) of all; gain 0 where constant."""
    mean, sd = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    varies = sd > 1e-6
    gain = np.where(varies, 1.0 / np.maximum(sd, 1e-6), 0.0)
    return torch.from_numpy((x[:, varies] - mean[varies]) * gain[varies]), mean, gain


def _unfold(weight: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Weights (F', C) on z-scores to weights (F, C) on the features themselves."""
    out = np.zeros((len(gain), weight.shape[1]))
    out[gain > 0] = weight * gain[gain > 0, None]
    return out


def _gram(z: Tensor, tick: Tick) -> Tensor:
    """z.T @ z (F, F), to the bit, in steps short enough to be stopped between."""
    out = torch.empty(z.shape[1], z.shape[1], dtype=z.dtype)
    for c in range(0, z.shape[1], COLUMNS):
        out[:, c : c + COLUMNS] = z.T @ z[:, c : c + COLUMNS]
        tick(0)
    return out


def _solve(gram: Tensor, cross: Tensor, penalty: float) -> Tensor:
    ridge = gram + penalty * torch.eye(len(gram), dtype=gram.dtype)
    return torch.cholesky_solve(cross, torch.linalg.cholesky(ridge))


def ridge_search(
    x: np.ndarray, y: np.ndarray, blocks: list[np.ndarray], penalties: tuple[float, ...], tick: Tick = unwatched
) -> np.ndarray:
    """Blocked cross-validation: pooled R2 of each penalty and output, (P, V).

    x (T, F), y (T, V), both standardised once on all rows given (all are training rows).
    """
    z = _standardise(x)[0].float()  # float32 is exact enough to rank penalties, and twice as fast
    target = torch.from_numpy(y - y.mean(0)).float()
    gram, cross = _gram(z, tick), z.T @ target
    error = torch.zeros(len(penalties), y.shape[1])
    for rows in blocks:
        held = z[torch.from_numpy(rows)]
        goal = target[torch.from_numpy(rows)]
        inner, outer = gram - _gram(held, tick), cross - held.T @ goal
        for p, penalty in enumerate(penalties):
            error[p] += ((goal - held @ _solve(inner, outer, penalty)) ** 2).sum(0)
            tick(1)
    return (1.0 - error / (target**2).sum(0)).numpy()


def ridge_fit(bank: Bank, x: np.ndarray, y: np.ndarray, penalty: float, tick: Tick = unwatched) -> Linear:
    """Ridge of y (T,) float64 on features x (T, F) float32, standardisation folded into the weights."""
    z, mean, gain = _standardise(x)
    centre = float(y.mean())
    solved = _solve(_gram(z, tick), z.T @ torch.from_numpy(y - centre)[:, None].double(), penalty)
    w = _unfold(solved.numpy(), gain)
    return Linear(bank, penalty, w.astype(np.float32), (centre - mean @ w).astype(np.float32))


def logistic_search(
    bank: Bank,
    x: np.ndarray,
    label: np.ndarray,
    blocks: list[np.ndarray],
    n_classes: int,
    penalties: tuple[float, ...],
    tick: Tick = unwatched,
) -> np.ndarray:
    """Blocked cross-validation: balanced accuracy of each penalty, (P,), over the classes that occur.

    x (n, F) float32; label (n,) int64; blocks: (n,) bool each, the rows held out together.
    """
    n = np.bincount(label, minlength=n_classes)
    skill = np.empty(len(penalties))
    for p, penalty in enumerate(penalties):
        guess = np.full(len(label), -1)
        for rows in blocks:
            if not rows.all():
                fitted = logistic_fit(bank, x[~rows], label[~rows], n_classes, penalty, tick)
                guess[rows] = fitted.apply(x[rows]).argmax(1)
            tick(1)
        right = np.bincount(label[guess == label], minlength=n_classes)
        skill[p] = (right[n > 0] / n[n > 0]).mean()
    return skill


def logistic_fit(
    bank: Bank, x: np.ndarray, label: np.ndarray, n_classes: int, penalty: float, tick: Tick = unwatched
) -> Linear:
    """Multinomial logistic regression, classes weighted to equal share, by L-BFGS.

    x (n, F) float32, label (n,) int64. Minimises mean cross-entropy * n + penalty / 2 * |w|^2 on standardised features.
    """
    z, mean, gain = _standardise(x)
    target = torch.from_numpy(label)
    share = torch.bincount(target, minlength=n_classes).double().clamp(min=1)
    w = torch.zeros(z.shape[1], n_classes, dtype=torch.float64, requires_grad=True)
    b = torch.zeros(n_classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([w, b], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        tick(0)
        solver.zero_grad()
        fit = torch.nn.functional.cross_entropy(z @ w + b, target, weight=len(target) / (n_classes * share))
        value = fit * len(target) + 0.5 * penalty * (w**2).sum()
        value.backward()
        return value

    solver.step(closure)  # pyright: ignore[reportArgumentType]
    weight = _unfold(w.detach().numpy(), gain)
    return Linear(bank, penalty, weight.astype(np.float32), (b.detach().numpy() - mean @ weight).astype(np.float32))
