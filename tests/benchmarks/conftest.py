"""The planted recording as a task of the accuracy benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.accuracy.peers.task import ORIGINS, Task
from neds_core.config import TrainConfig
from neds_core.data import scalers, session as sessions
from neds_core.data.session import Session


@pytest.fixture(scope="session")
def task(session: Session, tiny: TrainConfig) -> Task:
    """wheel_speed of the planted recording, quick grids."""
    parts = sessions.split(session)
    specs = (session.spec("wheel_speed"),)
    folds = tuple((sessions.part(session, 0.0, a), sessions.part(session, a, b)) for a, b in ORIGINS)
    return Task(Path(), session, parts, specs, scalers.fit(parts.train, session.specs, 0.5), folds, tiny, quick=True)
