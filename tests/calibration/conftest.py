"""What the tests of a calibration share: a session with known relations, a base that has never seen its units."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from calibration.fitting import base as bases, fit as fits
from calibration.fitting.base import Base
from calibration.fitting.config import CalibrateConfig, Everything, FitConfig, Linear, Readouts, Scratch, Stage
from calibration.fitting.fit import Fitted, Task
from neds_core import checkpoint
from neds_core.checkpoint import Checkpoint
from neds_core.config import ModelConfig
from neds_core.data import parts as cutting
from neds_core.data.parts import Parts
from neds_core.data.session import Session

TINY = """ridge_start = true
[spikes]
steps = 2
learning_rate = 3e-3
[readouts]
steps = 6
learning_rate = 1e-2
[everything]
steps = 4
learning_rate = 1e-3
[fit]
batch = 8
window_bins = 20
check_every = 2
[linear]
lags = [3]
filter_taus_ms = [[40.0, 200.0]]
penalties = [10.0, 1e3]
folds = 3
"""


@pytest.fixture(scope="session")
def tiny_calibration() -> CalibrateConfig:
    """All stages within seconds."""
    return CalibrateConfig(
        ridge_start=True,
        spikes=Stage(2, 3e-3),
        readouts=Readouts(6, 1e-2),
        everything=Everything(4, 1e-3),
        scratch=Scratch(60, 1e-2),
        fit=FitConfig(batch=8, window_bins=20, check_every=2),
        linear=Linear(lags=(3,), filter_taus_ms=((40.0, 200.0),), penalties=(10.0, 1e3), folds=3),
    )


@pytest.fixture(scope="session")
def base_path(make_checkpoint: Callable[..., Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one recording, as `neds-rt train` writes them."""
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    checkpoint.save(make_checkpoint(), path)
    return path


@pytest.fixture(scope="session")
def base(base_path: Path) -> Base:
    """The same, read as a base."""
    return bases.read(base_path)


@pytest.fixture(scope="session")
def cut(session: Session) -> Parts:
    """The planted session in parts."""
    return cutting.cut(session)


@pytest.fixture(scope="session")
def make_task(tiny_calibration: CalibrateConfig, cut: Parts, base: Base) -> Callable[..., Task]:
    """Builder of a calibration; keywords change its configuration."""

    def make(parts: Parts = cut, of: Base | None = base, **keys: object) -> Task:
        config = msgspec.structs.replace(tiny_calibration, **keys)
        return Task(config, parts, Path("session.npz"), "5" * 64, "today", of)

    return make


@pytest.fixture(scope="session")
def fitted(make_task: Callable[..., Task]) -> Fitted:
    """The planted session on the base, in all stages."""
    return fits.fit(make_task())


@pytest.fixture(scope="session")
def first_day(make_task: Callable[..., Task]) -> Fitted:
    """The planted session from scratch."""
    size = ModelConfig(width=16, layers=1, heads=2, band=5, registers=1, unit_dropout=0.1)
    return fits.fit(make_task(of=None, outputs=("wheel_speed", "choice"), model=size))
