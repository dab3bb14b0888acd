"""A simulated animal: it sees late, wants the cursor on the target, and its units say so. It may learn to aim.

Units are those of `neds_core.data.synthetic`: log rate = base + loading @ latents. The generator's latents follow a
damped rotation that knows nothing of the task, here `noise` times; the intended velocity is added to the first D:
latents[:D] = GAIN * intent / speed + noise * n[:D]. So part of what is decoded is what nobody wanted.

**How it learns** (rate `RATE` a trial; none where `adapts` is off). After each trial:
- aim: the angle from the target's direction to that in which the cursor stood when it had first gone a third of the
  way turns the next intents back by `RATE` times as much. In a plane only.
- push: the mean over the trial of the cursor's velocity minus the wanted one (before these corrections) is taken off
  the next intents, `RATE` times, up to a quarter of the top speed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from calibration.simulating.task import BIN_TICKS, TICK_NS, VISUAL, Effector
from neds_core.data import synthetic
from neds_core.data.session import UnitTable

GAIN = 2.0  # sd that the fastest intent is worth in a latent whose own sd is `noise`
RATE = 0.1
PUSH_MOST = 0.25  # of the top speed
AIM_MOST = np.radians(60.0)
UNITS = synthetic.World(
    animals=1, sessions=1, trials=10, regions=("motor",), units_per_region=60, rate_hz=20.0, tuning=0.4,
    region_share=0.0, block_tuning=0.0, drift=0.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Body:
    """The units of one animal: base (U,) log spikes a tick, loading (U, K), and the latents' own step and noise."""

    table: UnitTable
    base: np.ndarray
    loading: np.ndarray
    step: np.ndarray
    noise_sd: np.ndarray

    @classmethod
    def grown(cls, seed: int) -> Body:
        """The animal of a seed: the same seed has the same units."""
        made = synthetic.recordings(UNITS, seed)[0]
        base = made.units.base + np.log(TICK_NS / UNITS.bin_ns)
        return cls(made.session.units, base, made.units.loading, made.shared.step, made.shared.noise_sd)

    @property
    def rate_hz(self) -> float:
        """Spikes a second of all units at rest."""
        return float(np.exp(self.base).sum() * 1e9 / TICK_NS)


@dataclass(slots=True)
class Aim:
    """What the animal has learnt: its intents are turned by `angle` (rad, planes only), and `push` (D,) is added."""

    effector: Effector
    adapts: bool = True
    angle: float = 0.0
    push: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.push = np.zeros(len(self.effector.axes))

    def of(self, wanted: np.ndarray) -> np.ndarray:
        """The intent (D,) that is sent for a wanted velocity (D,); a wish to rest stays one."""
        if not wanted.any():
            return wanted
        turned = turn(self.angle) @ wanted if len(wanted) == 2 else wanted
        return turned + self.push

    def learn(self, missed: float, surplus: np.ndarray) -> None:
        """After a trial. missed: angle (rad) of the early way against the target's; surplus (D,): velocity too much."""
        if not self.adapts:
            return
        self.angle = float(np.clip(self.angle - RATE * missed, -AIM_MOST, AIM_MOST))
        most = PUSH_MOST * self.effector.speed
        self.push = np.clip(self.push - RATE * surplus, -most, most)


def turn(angle: float) -> np.ndarray:
    """(2, 2) rotation."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def wish(to_target: np.ndarray, effector: Effector) -> np.ndarray:
    """The wanted velocity (D,) for what is seen of the way to the target (D,): straight there, slower when close."""
    far = float(np.linalg.norm(to_target))
    if far == 0.0:
        return np.zeros_like(to_target)
    return to_target / far * min(effector.speed, far / effector.slow_s)


class Animal:
    """Sees each tick what the screen showed `VISUAL` ticks ago, and fires for what it then wants."""

    def __init__(self, body: Body, effector: Effector, rng: np.random.Generator, adapts: bool = True) -> None:
        self.body, self.effector, self.rng, self.aim = body, effector, rng, Aim(effector, adapts)
        self.wanted = self.intent = np.zeros(len(effector.axes))  # of the newest tick, without and with the aim
        self._n = rng.normal(size=len(body.step))  # the latents' own
        self._seen: deque[np.ndarray | None] = deque([None] * VISUAL)
        self._tick = 0

    def tick(self, to_target: np.ndarray | None) -> np.ndarray:
        """One tick. to_target (D,): what the screen shows now, None = no target. Returns spikes (U,) int64."""
        self._seen.append(to_target)
        seen = self._seen.popleft()
        self.wanted = np.zeros(len(self.effector.axes)) if seen is None else wish(seen, self.effector)
        self.intent = self.aim.of(self.wanted)
        if self._tick % BIN_TICKS == 0:
            self._n = self.body.step @ self._n + self.body.noise_sd * self.rng.normal(size=len(self._n))
        self._tick += 1
        latents = self.effector.noise * self._n
        latents[: len(self.intent)] += GAIN * self.intent / self.effector.speed
        return self.rng.poisson(np.exp(self.body.base + self.body.loading @ latents))
