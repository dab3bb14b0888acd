"""What the tests of trainings share: somebody who hears what a training shows."""

from __future__ import annotations

import pytest

from neds_core.train.log import Silent


class Listener(Silent):
    """What a training has shown so far."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.lines: list[str] = []
        self.ticks: list[tuple[int, int]] = []

    def stage(self, name: str) -> None:
        """A stage."""
        self.stages.append(name)

    def tick(self, done: int, total: int) -> None:
        """A fit."""
        self.ticks.append((done, total))

    def say(self, line: str) -> None:
        """A line."""
        self.lines.append(line)


@pytest.fixture
def heard() -> Listener:
    """One that has heard nothing yet."""
    return Listener()


@pytest.fixture
def listener() -> type[Listener]:
    """For more than one training."""
    return Listener
