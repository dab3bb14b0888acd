"""The world of a simulation, tick by tick and pure: a velocity goes in, spikes and trials come out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from calibration.simulating.animal import Animal
from calibration.simulating.task import AFTER, BIN_TICKS, DWELL, PAUSE, TICK_S, TIMEOUT, Effector, Trial

EARLY = 1 / 3  # of the way: there the animal judges its aim
IDLE, MOVING = 0, 1


class Mark(NamedTuple):
    """A marker of the task. tick: the edge at which it applies, counted from the world's start; a multiple of a bin."""

    tick: int
    event: str
    trial: int
    target: int


@dataclass(slots=True)
class _Now:
    """The trial that is going on."""

    number: int
    target: int
    delay_ms: int
    start: int  # tick
    aim_deg: float
    entered: int = -1  # tick since which the cursor is in the window, -1 = it is not
    path: float = 0.0
    path_entered: float = 0.0
    far_entered: float = 0.0
    stale: int = 0
    held: int = 0
    missed: float | None = None
    surplus: list[np.ndarray] = field(default_factory=list)


class World:
    """Trials one after the other, as planned: (target, delay in ms). `plan` may be longer than what is used."""

    def __init__(self, animal: Animal, effector: Effector, plan: list[tuple[int, int]]) -> None:
        self.animal, self.effector, self.plan = animal, effector, plan
        self.targets = effector.targets
        self.cursor = np.zeros(len(effector.axes))
        self.velocity = np.zeros(len(effector.axes))
        self.tick = 0  # the next one
        self.trials: list[Trial] = []
        self.marks: list[Mark] = []  # that are still to be sent
        self._now: _Now | None = None
        self._next = _to_bin(PAUSE)
        self._announced = False

    @property
    def over(self) -> bool:
        """Whether every planned trial is done and the pause after it is over."""
        return self._now is None and len(self.trials) == len(self.plan) and self.tick >= self._next

    @property
    def moving(self) -> bool:
        """Whether a trial is going on."""
        return self._now is not None

    @property
    def target(self) -> np.ndarray:
        """(D,) position of the target, the centre between trials."""
        return self.targets[self._now.target] if self._now is not None else np.zeros_like(self.cursor)

    @property
    def delay_ms(self) -> int:
        """The delay of the trial that is going on or comes next."""
        if self._now is not None:
            return self._now.delay_ms
        return self.plan[min(len(self.trials), len(self.plan) - 1)][1]

    def step(self, velocity: np.ndarray | None, *, stale: bool = False) -> np.ndarray:
        """One tick with this velocity (D,); None = stand still, because the value is old (`stale`) or withheld.

        Returns the animal's spikes (U,) in this tick. Outside trials nothing moves.
        """
        self._schedule()
        now = self._now
        if now is not None:
            now.stale += velocity is None and stale
            now.held += velocity is None and not stale
            self._move(now, np.zeros_like(self.cursor) if velocity is None else velocity)
        spikes = self.animal.tick(self.target - self.cursor if now is not None else None)
        self.tick += 1
        if now is not None:
            self._judge(now)
        return spikes

    def _schedule(self) -> None:
        """Announce the next trial, and begin it when its time has come."""
        left = len(self.plan) - len(self.trials)
        if self._now is not None or not left:
            return
        number = len(self.trials)
        target, delay_ms = self.plan[number]
        if not self._announced and self.tick >= self._next - PAUSE // 2:
            self.marks.append(Mark(self._next, "segment_start", number, target))
            self._announced = True
        if self.tick >= self._next:
            self.cursor = np.zeros_like(self.cursor)
            degrees = float(np.degrees(self.animal.aim.angle))
            self._now = _Now(number, target, delay_ms, self.tick, degrees)

    def _move(self, now: _Now, velocity: np.ndarray) -> None:
        before = self.cursor
        self.velocity = velocity
        self.cursor = before + velocity * TICK_S
        now.path += float(np.linalg.norm(self.cursor - before))
        now.surplus.append(velocity - self.animal.wanted)
        target = self.targets[now.target]
        if now.missed is None and np.linalg.norm(self.cursor) >= EARLY * self.effector.reach:
            now.missed = between(target, self.cursor)

    def _judge(self, now: _Now) -> None:
        """Won after the dwell, lost at the time-out. self.tick is the edge that has just been reached."""
        far = float(np.linalg.norm(self.targets[now.target] - self.cursor))
        if far > self.effector.window:
            now.entered = -1
        elif now.entered < 0:
            now.entered, now.path_entered, now.far_entered = self.tick, now.path, float(np.linalg.norm(self.cursor))
        won = now.entered >= 0 and self.tick - now.entered >= DWELL
        if won or self.tick - now.start >= TIMEOUT:
            self._end(now, won)

    def _end(self, now: _Now, won: bool) -> None:
        path, gone = (now.path_entered, now.far_entered) if won else (now.path, float(np.linalg.norm(self.cursor)))
        time_s = TICK_S * ((now.entered if won else now.start + TIMEOUT) - now.start)
        efficiency = min(1.0, gone / path) if path > 0 else 0.0
        self.trials.append(
            Trial(
                number=now.number, target=now.target, delay_ms=now.delay_ms, success=won, time_s=time_s, path=path,
                efficiency=efficiency, stale_ticks=now.stale, held_ticks=now.held, aim_deg=now.aim_deg,
            )
        )  # fmt: skip
        self.marks.append(Mark(_to_bin(self.tick + AFTER), "segment_end", now.number, now.target))
        self.animal.aim.learn(now.missed or 0.0, np.mean(now.surplus, axis=0))
        self._now, self._announced = None, False
        self.velocity = np.zeros_like(self.cursor)
        self._next = _to_bin(self.tick + PAUSE)


def _to_bin(tick: int) -> int:
    """The first edge of a bin at or after a tick."""
    return -(-tick // BIN_TICKS) * BIN_TICKS


def between(target: np.ndarray, way: np.ndarray) -> float:
    """The angle (rad, -pi to pi) from the target's direction to that of the way; 0 on a line."""
    if len(target) != 2:
        return 0.0
    angle = np.arctan2(way[1], way[0]) - np.arctan2(target[1], target[0])
    return float((angle + np.pi) % (2 * np.pi) - np.pi)
