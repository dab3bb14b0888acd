"""How well the behaviour of a synthetic recording can be decoded: the generator's own filter.

A bank of six Poisson filters (two choices x three blocks), each a Gaussian approximation of the
posterior over latents at its mode (point-process filter, Eden et al., Neural Computation 16:971,
2004). It knows every parameter, the drift and the time in the trial; it does not know the choice, the
block or the latents. Causal: bin t is decoded from bins up to t of the same trial. Near-optimal:
the approximation is the only loss, and it carries no belief about the block from trial to trial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neds_core.data import synthetic
from neds_core.data.synthetic import P_LEFT, Recording, block_code

NEWTON_STEPS = 4


@dataclass(frozen=True, slots=True)
class Ceiling:
    """traces name -> (n,) posterior mean, rows as the session's bins; sd likewise; choice (n, 2) posterior
    of (left, right) at each bin; rates (n, U): true ones, spikes a bin, of latents and block as they were."""

    traces: dict[str, np.ndarray]
    sd: dict[str, np.ndarray]
    choice: np.ndarray
    rates: np.ndarray


def decode(recording: Recording) -> Ceiling:
    """Filter every trial of a synthetic recording."""
    shared, units = recording.shared, recording.units
    S, T, K = recording.latents.shape
    counts = recording.session.counts.reshape(S, T, -1).astype(np.float64)
    modes = [(direction, b) for direction in (1.0, -1.0) for b in range(len(P_LEFT))]
    Q = len(modes)
    shift = np.stack([d * shared.turn + shared.mean for d, _ in modes])  # (Q, T, K)
    code = block_code(np.array([b for _, b in modes]))
    fixed = recording.log_rate[:, None] + code[:, None] * units.block  # (S, Q, U)
    mean, cov = np.zeros((S, Q, K)), np.broadcast_to(np.eye(K), (S, Q, K, K))
    evidence = np.zeros((S, Q))
    value, variance = np.empty((S, T, 2)), np.empty((S, T, 2))
    choice = np.empty((S, T, 2))
    noise = np.diag(shared.noise_sd**2)
    for t in range(T):
        if t:
            mean = mean @ shared.step.T
            cov = shared.step @ cov @ shared.step.T + noise
        mean, cov, gained = update(mean, cov, counts[:, t, None], fixed + shift[:, t] @ units.loading.T, units.loading)
        evidence += gained
        weight = np.exp(evidence - evidence.max(1, keepdims=True))
        weight /= weight.sum(1, keepdims=True)
        each = (mean + shift[:, t]) @ shared.readout.T  # (S, Q, 2)
        value[:, t] = (weight[..., None] * each).sum(1)
        inside = np.einsum("vk,sqkl,vl->sqv", shared.readout, cov, shared.readout)
        variance[:, t] = (weight[..., None] * (inside + (each - value[:, t, None]) ** 2)).sum(1)
        choice[:, t, 0] = weight[:, : Q // 2].sum(1)
    choice[..., 1] = 1.0 - choice[..., 0]
    names = ("wheel_velocity", "whisker_motion_energy")
    return Ceiling(
        traces={n: (value[..., v] + shared.offset[v]).ravel() for v, n in enumerate(names)},
        sd={n: np.sqrt(variance[..., v]).ravel() for v, n in enumerate(names)},
        choice=choice.reshape(S * T, 2),
        rates=true_rates(recording),
    )


def true_rates(recording: Recording) -> np.ndarray:
    """(n, U) spikes a bin that the generator drew counts from, rows as the session's bins."""
    units = recording.units
    block = block_code(recording.block)[:, None] * units.block
    return synthetic.rates((recording.log_rate + block)[:, None] + recording.latents @ units.loading.T)


def update(
    mean: np.ndarray, cov: np.ndarray, counts: np.ndarray, fixed: np.ndarray, loading: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One bin's spikes: Gaussian posterior of latents at its mode, by Newton steps, and the log evidence.

    mean (..., K), cov (..., K, K): before the bin. counts (..., U) ~ Poisson(exp(fixed + loading @ x)),
    fixed (..., U), loading (U, K). The evidence is Laplace's, without the counts' factorials.
    """
    precision = np.linalg.inv(cov)
    pairs = (loading[:, :, None] * loading[:, None]).reshape(len(loading), -1)  # (U, K * K)
    x = mean
    for _ in range(NEWTON_STEPS):
        rate = np.exp(fixed + x @ loading.T)
        gradient = (counts - rate) @ loading - np.einsum("...kl,...l->...k", precision, x - mean)
        curvature = precision + (rate @ pairs).reshape(precision.shape)
        x = x + np.linalg.solve(curvature, gradient[..., None])[..., 0]
    eta = fixed + x @ loading.T
    rate = np.exp(eta)
    curvature = precision + (rate @ pairs).reshape(precision.shape)
    gap = x - mean
    evidence = (
        (counts * eta - rate).sum(-1)
        - 0.5 * np.einsum("...k,...kl,...l->...", gap, precision, gap)
        + 0.5 * (np.linalg.slogdet(precision)[1] - np.linalg.slogdet(curvature)[1])
    )
    return x, np.linalg.inv(curvature), evidence
