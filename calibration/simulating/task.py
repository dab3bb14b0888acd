"""The simulated task, centre-out: what moves, where the targets are, when a trial is won; with all its constants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from msgspec import Struct

TICK_NS = 5_000_000  # the world steps by it, on an absolute schedule
BIN_NS = 20_000_000  # of the decoder
BIN_TICKS = BIN_NS // TICK_NS
TICK_S = TICK_NS * 1e-9
DWELL_S = 0.4  # in the window without a break
TIMEOUT_S = 3.0  # from the target's appearance
PAUSE_S = 0.4  # between trials: nothing moves; the next begins at the centre
VISUAL_S = 0.1  # the animal sees the screen of so long ago
DWELL, TIMEOUT, PAUSE, VISUAL = (round(s / TICK_S) for s in (DWELL_S, TIMEOUT_S, PAUSE_S, VISUAL_S))  # ticks
AFTER = 2 * BIN_TICKS  # ticks that a trial's segment goes on: its end marker must not come late


@dataclass(frozen=True, slots=True)
class Effector:
    """What the decoder moves: D axes, lengths in `unit`.

    reach: from the centre to a target; window: radius within which it is reached; speed: the fastest that is intended;
    slow_s: time constant of the approach, so that the intended speed is distance / slow_s where that is below `speed`.
    skill, like: R2 of the causal ridge that the noise is matched to, and of which recording; noise: what gives it (see
    `animal`).
    """

    name: str
    axes: tuple[str, ...]
    unit: str
    n_targets: int
    reach: float
    window: float
    speed: float
    slow_s: float
    skill: float
    like: str
    noise: float

    @property
    def targets(self) -> np.ndarray:
        """(n_targets, D) positions, on a circle, or to both sides of a line."""
        if len(self.axes) == 1:
            return self.reach * np.array([[1.0], [-1.0]])
        angle = 2 * np.pi * np.arange(self.n_targets) / self.n_targets
        return self.reach * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def names(self, what: str) -> tuple[str, ...]:
        """Names of a quantity's axes: velocity_x, velocity_y."""
        return tuple(f"{what}_{axis}" for axis in self.axes)


CURSOR = Effector(
    name="cursor", axes=("x", "y"), unit="cm", n_targets=8, reach=8.0, window=2.0, speed=15.0, slow_s=0.25,
    skill=0.646, like="bci-monkey-20160325 (mean of x 0.681 and y 0.611)", noise=0.64,
)  # fmt: skip
WHEEL = Effector(
    name="wheel", axes=("turn",), unit="rad", n_targets=2, reach=0.6, window=0.15, speed=1.5, slow_s=0.25,
    skill=0.578, like="ibl-dy016 (wheel speed)", noise=1.1,
)  # fmt: skip
EFFECTORS = {one.name: one for one in (CURSOR, WHEEL)}


class Trial(Struct, frozen=True):
    """One trial of a simulation. time_s: until the window was entered for good, the time-out where it was not reached.

    path: way of the cursor until then, in the effector's unit; efficiency: how far it then was from where it began,
    over the path. stale_ticks, held_ticks: ticks (5 ms) without motion because the newest value was too old, or
    withheld. aim_deg: correction that the animal had learnt before the trial.
    """

    number: int
    target: int
    delay_ms: int
    success: bool
    time_s: float
    path: float
    efficiency: float
    stale_ticks: int
    held_ticks: int
    aim_deg: float


def shuffled(rng: np.random.Generator, n_targets: int, delays: tuple[int, ...], trials: int) -> list[tuple[int, int]]:
    """(target, delay) of each trial: `trials` for each delay, targets balanced, in random order."""
    found = [(k % n_targets, delay) for delay in delays for k in range(trials)]
    return [found[i] for i in rng.permutation(len(found))]
