"""What moves the cursor: the animal itself (open loop), decoded values over ZeroMQ, or its intent in their place."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from calibration.simulating.effector import DelayLine
from calibration.simulating.task import BIN_NS, BIN_TICKS, Effector
from calibration.simulating.world import World
from runtime.client import WITHHELD, Subscriber, value_of
from runtime.wire import Decode


class Drive(NamedTuple):
    """The velocity (D,) of the next tick; None = stand still, because the newest value is old (stale) or withheld."""

    velocity: np.ndarray | None
    stale: bool = False


class Driver(Protocol):
    """Asked once a tick for the velocity, then told what the animal intended in that tick."""

    def drive(self, now_ns: int, world: World) -> Drive:
        """What moves the cursor in the tick that ends now."""
        ...

    def intended(self, edge_ns: int, intent: np.ndarray) -> None:
        """The animal's intent (D,) in the tick that ended at edge_ns."""
        ...


class Performed:
    """Open loop: the animal makes the movement itself, and the cursor follows its intent without a delay."""

    def __init__(self, n_axes: int) -> None:
        self._intent = np.zeros(n_axes)

    def drive(self, now_ns: int, world: World) -> Drive:
        return Drive(self._intent)

    def intended(self, edge_ns: int, intent: np.ndarray) -> None:
        self._intent = intent


class Decoded:
    """Closed loop: the newest fresh message of a run, `delay_ms` of the trial after its receipt.

    sub_ms: bin edge to receipt, of each message. A message that the client refuses as stale is never seen here; one
    that runs out while it is in effect stops the cursor.
    """

    def __init__(self, link: Subscriber, effector: Effector) -> None:
        self.link, self.names = link, effector.names("velocity")
        self.line = DelayLine()
        self.sub_ms: list[float] = []

    def drive(self, now_ns: int, world: World) -> Drive:
        message = self.link.receive(timeout_ms=0.0)
        if message is not None:
            self.sub_ms.append((now_ns - message.t_end_ns) * 1e-6)
            delay_ns = world.delay_ms * 1_000_000
            self.line.push(now_ns, round(message.valid_for_ms * 1e6), delay_ns, self.velocity(message))
        command = self.line.at(now_ns)
        return Drive(None, stale=True) if command is None else Drive(command.velocity)

    def intended(self, edge_ns: int, intent: np.ndarray) -> None: ...

    def velocity(self, message: Decode) -> np.ndarray | None:
        """(D,) what a message says, None where it was withheld."""
        values = [value_of(message, name) for name in self.names]
        return None if any(v is None for v in values) else np.array(values, float)


class Oracle(Decoded):
    """The same messages at the same moments, their values exchanged for the animal's mean intent in their bin."""

    def __init__(self, link: Subscriber, effector: Effector) -> None:
        super().__init__(link, effector)
        self._of_bin: dict[int, np.ndarray] = {}  # sum over the ticks of a bin, by its right edge

    def intended(self, edge_ns: int, intent: np.ndarray) -> None:
        end_ns = -(-edge_ns // BIN_NS) * BIN_NS
        self._of_bin[end_ns] = self._of_bin.get(end_ns, np.zeros(len(intent))) + intent / BIN_TICKS
        if len(self._of_bin) > 100:
            del self._of_bin[next(iter(self._of_bin))]

    def velocity(self, message: Decode) -> np.ndarray | None:
        return None if message.flags & WITHHELD else self._of_bin.get(message.t_end_ns)
