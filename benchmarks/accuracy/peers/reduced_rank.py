"""Reduced-rank ridge regression: many related targets, few directions of spikes.

The targets are every output at offsets -H..H around the bin, so that there is something to
share: a low rank ties the filters of neighbouring times and of both outputs together. Only the
weights of offset 0 are read out, and features are past spikes, so the decoder is causal.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import msgspec
import numpy as np
import torch

from benchmarks.accuracy.peers.regression import causal_design, search_space
from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, Task, r2_of, targets
from neds_core.data.session import Session
from neds_core.linear import baseline
from neds_core.linear.linear import Bank, BankState

OFFSETS = 10  # bins either side: 200 ms


def around(task: Task, session: Session) -> np.ndarray:
    """Targets (n, V * (2H+1)), offset 0 first; beyond a segment's ends its end value is repeated."""
    y, bins = targets(task, session), session.bins()
    segment = session.segment_of(bins)
    row_of = np.full(session.n_bins, -1)
    row_of[bins] = np.arange(len(bins))
    start, stop = session.segments[segment, 0], session.segments[segment, 1] - 1
    offsets = sorted(range(-OFFSETS, OFFSETS + 1), key=abs)
    return np.concatenate([y[row_of[np.clip(bins + k, start, stop)]] for k in offsets], axis=1)


def solve(x: np.ndarray, y: np.ndarray, penalties: tuple[float, ...]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each penalty: ridge weights (F, K) of y (n, K) on x (n, F), and eigenvectors (K, K), strongest first.

    Mukherjee & Zhu 2011 (reduced rank ridge regression): with X* and Y* the data augmented by
    sqrt(penalty) I and 0, the rank-r solution is B V V', V the top right singular vectors of
    X* B, here from B' (X'X + penalty I) B.
    """
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    gram, cross = a.T @ a, a.T @ b
    for penalty in penalties:
        ridge = gram + penalty * torch.eye(len(gram), dtype=gram.dtype)
        weight = torch.cholesky_solve(cross, torch.linalg.cholesky(ridge))
        _, vectors = torch.linalg.eigh((weight.T @ ridge @ weight).double())
        yield weight.double().numpy(), vectors.flip(1).numpy()


def fit(
    x: np.ndarray, y: np.ndarray, n_outputs: int, penalties: tuple[float, ...], ranks: tuple[int, ...]
) -> np.ndarray:
    """Weights (penalties, ranks, F + 1, V) of the first V targets on features and 1, standardisation folded in.

    x (n, F); y (n, K), rows with an undefined target are left out.
    """
    known = np.isfinite(y).all(1)
    x, y = x[known], y[known]
    mean, sd = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    varies = sd > 1e-6
    mean, gain, centre, spread = mean[varies], 1.0 / sd[varies], y.mean(0), y.std(0)
    z, goal = ((x[:, varies] - mean) * gain).astype(x.dtype), ((y - centre) / spread).astype(x.dtype)
    found = np.zeros((len(penalties), len(ranks), x.shape[1] + 1, n_outputs))
    for p, (weight, vectors) in enumerate(solve(z, goal, penalties)):
        for r, rank in enumerate(ranks):
            kept = vectors[:, :rank]
            low = (weight @ (kept @ kept[:n_outputs].T)) * spread[:n_outputs] * gain[:, None]
            found[p, r, :-1][varies], found[p, r, -1] = low, centre[:n_outputs] - mean @ low
    return found


def search(task: Task) -> tuple[Setting, str]:
    """Bank, penalty and rank of each output on the rolling origins."""
    space, n_outputs = search_space(task), len(task.specs)
    n_targets = n_outputs * (2 * OFFSETS + 1)
    ranks = (*(r for r in (1, 2, 3, 4, 6, 8, 12, 20) if r < n_targets), n_targets)
    banks = baseline.banks(space, 0)
    skills = np.zeros((len(banks), len(space.penalties), len(ranks), n_outputs))
    for b, bank in enumerate(banks):
        for before, after in task.folds:
            found = fit(causal_design(task, before, bank), around(task, before), n_outputs, space.penalties, ranks)
            x = causal_design(task, after, bank)
            for p, r in product(range(len(space.penalties)), range(len(ranks))):
                skills[b, p, r] += r2_of(task, after, x @ found[p, r, :-1] + found[p, r, -1]) / len(task.folds)
    chosen = {}
    for v, spec in enumerate(task.specs):
        b, p, r = (int(i) for i in np.unravel_index(int(skills[..., v].argmax()), skills.shape[:3]))
        chosen[spec.name] = {"bank": msgspec.to_builtins(banks[b]), "penalty": space.penalties[p], "rank": ranks[r]}
    return chosen, f"{len(banks)} banks x {len(space.penalties)} penalties x {len(ranks)} ranks on rolling origins"


def refit(task: Task, setting: Setting, seed: int) -> Fitted:
    """The chosen weights of each output, fitted on training + validation."""
    part, n_outputs = task.parts.development, len(task.specs)
    banks = [msgspec.convert(setting[s.name]["bank"], Bank) for s in task.specs]
    weights: list[np.ndarray] = []
    for v, spec in enumerate(task.specs):
        one = setting[spec.name]
        x = causal_design(task, part, banks[v])
        weights.append(fit(x, around(task, part), n_outputs, (one["penalty"],), (one["rank"],))[0, 0, :, v])

    def predict(session: Session) -> np.ndarray:
        pairs = zip(banks, weights, strict=True)
        return np.stack([causal_design(task, session, b) @ w[:-1] + w[-1] for b, w in pairs], axis=1)

    states = [BankState(b, len(task.scale.kept), task.session.bin_ns) for b in banks]

    def step(counts: np.ndarray, clock: int) -> object:
        return [float(s.step(counts, clock) @ w[:-1] + w[-1]) for s, w in zip(states, weights, strict=True)]

    return Fitted(predict, sum(int((w != 0).sum()) for w in weights), step)


REDUCED_RANK = Peer("reduced-rank regression", search, refit)
