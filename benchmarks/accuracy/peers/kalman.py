"""Kalman filter from spikes to behaviour (Wu et al. 2006, Neural Computation 18:80-118)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, Task, choose, shown_counts, standard, targets
from neds_core.data.session import Session
from neds_core.linear import baseline


@dataclass(frozen=True, slots=True)
class Model:
    """x' = A x + w, z = C x + q, both centred; x stacks the outputs of `order` bins, newest first.

    transition A (S, S), noise W (S, S), start: stationary covariance (S, S); gain C'Q^-1 (S, U)
    and information C'Q^-1C (S, S) of the observation; mean (U,) of the observation.
    """

    transition: np.ndarray
    noise: np.ndarray
    start: np.ndarray
    gain: np.ndarray
    information: np.ndarray
    mean: np.ndarray


class Filter:
    """The recursion, one bin at a time."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.reset()

    def reset(self) -> None:
        """A cold start: the stationary distribution."""
        self.state = np.zeros(len(self.model.start))
        self.spread = self.model.start.copy()
        self.first = True

    def step(self, z: np.ndarray | None) -> np.ndarray:
        """Predict, then correct by the observation z (U,); None where a bin was not seen. Returns the state (S,)."""
        m = self.model
        if not self.first:
            self.state = m.transition @ self.state
            self.spread = m.transition @ self.spread @ m.transition.T + m.noise
        self.first = False
        if z is not None:
            # information form: S is small where U is not
            after = np.linalg.inv(np.linalg.inv(self.spread) + m.information)
            self.state = self.state + after @ (m.gain @ (z - m.mean) - m.information @ self.state)
            self.spread = (after + after.T) / 2
        return self.state


def fit(x: np.ndarray, z: np.ndarray, joined: np.ndarray, shrinkage: float) -> Model:
    """Least squares of transition and observation (Wu et al. 2006, eqs. 5 and 6).

    x (n, S) centred states, z (n, U) observations, joined (n,) bool: row t follows row t-1. The
    observation noise is shrunk towards its diagonal by `shrinkage`.
    """
    now, past = x[1:][joined[1:]], x[:-1][joined[1:]]
    n_state = x.shape[1]
    tiny = 1e-6 * np.eye(n_state)
    transition = np.linalg.solve(past.T @ past + tiny, past.T @ now).T
    error = now - past @ transition.T
    noise = error.T @ error / max(len(now), 1) + tiny
    mean = z.mean(0)
    tuning = np.linalg.solve(x.T @ x + tiny * len(x), x.T @ (z - mean)).T  # (U, S)
    rest = z - mean - x @ tuning.T
    spread = rest.T @ rest / len(x)
    diagonal = np.diag(np.maximum(np.diag(spread), 1e-6))
    spread = (1 - shrinkage) * spread + shrinkage * diagonal
    gain = np.linalg.solve(spread, tuning).T
    return Model(transition, noise, np.cov(x.T).reshape(n_state, n_state) + tiny, gain, gain @ tuning, mean)


def observations(task: Task, session: Session, tau_ms: float) -> np.ndarray:
    """(n, kept units): square root of counts, or of their causal exponential average where tau_ms > 0."""
    kept = task.scale.kept
    if tau_ms == 0:
        return np.sqrt(shown_counts(task, session)[session.bins()][:, kept])
    bank = baseline.Bank(taus_ms=(tau_ms,), root=True)
    return baseline.design(session, bank, kept)[0][:, kept].astype(np.float64)


def history(session: Session, y: np.ndarray, order: int, lead: int) -> np.ndarray:
    """States (n, V * order): the outputs `lead` bins after each observation and the bins before; ends repeated."""
    bins = session.bins()
    row_of = np.full(session.n_bins, -1)
    row_of[bins] = np.arange(len(bins))
    at = session.segments[session.segment_of(bins)]
    rows = [row_of[np.clip(bins + lead - k, at[:, 0], at[:, 1] - 1)] for k in range(order)]
    return np.concatenate([y[r] for r in rows], axis=1)


def fit_on(task: Task, setting: Setting, before: Session) -> Model:
    """The filter of a setting on a part of the recording."""
    mean, sd = standard(task)
    x = history(before, (targets(task, before) - mean) / sd, setting["order"], setting["lead_bins"])
    z = observations(task, before, setting["tau_ms"])
    bins = before.bins()
    known = np.asarray(np.isfinite(x).all(1))
    segment = before.segment_of(bins)
    joined = np.concatenate([[False], (segment[1:] == segment[:-1]) & known[:-1]])
    return fit(x[known], z[known], joined[known], setting["shrinkage"])


def predict(task: Task, setting: Setting, model: Model, session: Session) -> np.ndarray:
    """Filtered outputs (n, V) in units, cold at each segment.

    With a lead the state is the outputs that many bins after the spikes (behaviour that follows
    activity), so the estimate of now was filtered that many bins ago.
    """
    mean, sd = standard(task)
    z, bins = observations(task, session, setting["tau_ms"]), session.bins()
    first = np.isin(bins, session.segments[:, 0])
    n_outputs = len(mean)
    run, out, waiting = Filter(model), np.zeros((len(z), n_outputs)), list[np.ndarray]()
    for t in range(len(z)):
        if first[t]:
            run.reset()
            waiting = [np.zeros(n_outputs)] * setting["lead_bins"]
        waiting.append(run.step(z[t] if session.valid[bins[t]] else None)[:n_outputs].copy())
        out[t] = waiting.pop(0)
    return out * sd + mean


def grid(quick: bool) -> list[Setting]:
    """Smoothing of spikes, lead, order of the state and shrinkage of the noise."""
    taus, leads = ((0.0, 60.0), (0, 2)) if quick else ((0.0, 40.0, 100.0), (0, 1, 3))
    shrinkages = (0.1, 0.5) if quick else (0.03, 0.1, 0.5, 1.0)
    keys = ("tau_ms", "lead_bins", "order", "shrinkage")
    return [dict(zip(keys, row, strict=True)) for row in product(taus, leads, (1, 2), shrinkages)]


def search(task: Task) -> tuple[Setting, str]:
    """One setting for all outputs, on the rolling origins."""
    settings = grid(task.quick)

    def fitted(setting: Setting, before: Session):
        model = fit_on(task, setting, before)
        return lambda after: predict(task, setting, model, after)

    best, _ = choose(task, settings, fitted, per_output=False)
    return settings[best[0]], f"{len(settings)} settings on rolling origins"


def refit(task: Task, setting: Setting, seed: int) -> Fitted:
    """The chosen filter on training + validation."""
    model = fit_on(task, setting, task.parts.development)
    run, kept = Filter(model), task.scale.kept
    n_state, n_units = model.gain.shape
    n_parameters = 2 * n_state**2 + n_state * n_units + n_units + n_units * (n_units + 1) // 2
    return Fitted(
        lambda s: predict(task, setting, model, s),
        n_parameters,
        lambda counts, clock: run.step(np.sqrt(counts[kept])),
    )


KALMAN = Peer("Kalman filter", search, refit)
