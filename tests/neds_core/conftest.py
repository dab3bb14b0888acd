"""A checkpoint and its file; three sessions and a configuration that trains one NEDS on all of them."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.config import PretrainConfig, TrainConfig
from neds_core.data import scalers, session as sessions
from neds_core.data.session import Session
from neds_core.train.sources import Source

SESSIONS = 3


@pytest.fixture
def small_disk() -> Callable[[int], AbstractContextManager[None]]:
    """A limit of the size of files: what is written beyond it fails, as it does where a disk or a quota is full."""

    @contextmanager
    def limited(n_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture(scope="module")
def recordings(session: Session) -> tuple[Session, ...]:
    """Three sessions of other sizes: units 12, 9 and 12, trials 60, 60 and 30."""
    rng = np.random.default_rng(7)
    units = replace(session.units, **{k: getattr(session.units, k)[:9] for k in ("ids", "region", "depth_um")})
    few = replace(session, name="few units", units=units, counts=session.counts[:, :9])
    order = rng.permutation(12)
    short = replace(session, name="short", counts=session.counts[:, order])
    return session, few, sessions.part(short, 0.5, 1.0)


@pytest.fixture(scope="module")
def sources(recordings: tuple[Session, ...]) -> tuple[Source, ...]:
    """Training and validation parts with their scalers."""
    found = []
    for one in recordings:
        parts = sessions.split(one)
        found.append(Source(parts.train, parts.validation, scalers.fit(parts.train, one.specs, 0.5)))
    return tuple(found)


@pytest.fixture(scope="module")
def recipe(tiny: TrainConfig) -> PretrainConfig:
    """Dropout, two sessions a step, a state every 8 steps."""
    fit = msgspec.structs.replace(tiny.fit, steps=20, sessions_per_step=2, save_every=8, ema_decay=0.9)
    names = tuple(f"{n}.npz" for n in range(SESSIONS))
    return PretrainConfig(names, tiny.outputs, model=tiny.model, fit=fit, seed=5)


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    """Random NEDS and fitted linear decoders."""
    return make_checkpoint(clock_bins=4)


@pytest.fixture
def path(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """The checkpoint's file."""
    checkpoints.save(checkpoint, tmp_path / "neds.safetensors")
    return tmp_path / "neds.safetensors"
