"""Training states: what an interrupted training needs to go on exactly. Tensors and numbers, never code.

Draws are keyed by the step (see `windows`), so the step is the sampler's place and the state of every
random generator.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from neds_core.checkpoint import our_version
from neds_core.config import PretrainConfig, TrainConfig
from neds_core.errors import CheckpointError
from neds_core.files import whole
from neds_core.model.model import NEDS
from neds_core.train.sources import Source

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a training keeps its states, and what asks it to save one and stop."""

    path: Path
    asked_to_stop: Callable[[], bool] = lambda: False

    @property
    def refit(self) -> Resume:
        """The same for the refit that follows: `X.refit.state` beside `X.state`, which stays."""
        return Resume(self.path.with_suffix(f".refit{self.path.suffix}"), self.asked_to_stop)

    def discard(self) -> None:
        """Delete the states of a training that is done."""
        self.path.unlink(missing_ok=True)
        self.refit.path.unlink(missing_ok=True)


def identity(
    config: TrainConfig | PretrainConfig, sources: tuple[Source, ...], seed: int, steps: int, start: NEDS | None
) -> str:
    """SHA-256 of all that a training depends on: version, configuration, data, seed, length and the start."""
    found = hashlib.sha256()
    data = [(source.train.name, source.sha256) for source in sources]
    found.update(msgspec.json.encode((our_version(), config, seed, steps, data)))
    for name, value in start.state_dict().items() if start is not None else ():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().data)
    return found.hexdigest()


def save(state: dict[str, Any], identity: str, path: Path) -> None:
    """Write a state; a crash at any moment leaves the old one or the new one. identity: what it is a training of."""
    made = io.BytesIO()  # torch, writing to a full disk, says nothing of the disk
    torch.save({"format": FORMAT, "identity": identity, **state}, made)
    with whole(path) as partial, partial.open("wb") as file:
        file.write(made.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def load(path: Path, identity: str) -> dict[str, Any] | None:
    """Read a state, None where there is none. Raises `CheckpointError` for one that is not of this training."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = (state["format"], state["identity"])
    except Exception:  # zip, pickle and torch raise a dozen kinds of error for damaged bytes
        raise CheckpointError(f"{path} is not a training state or is cut short; delete it to start afresh") from None
    if found != (FORMAT, identity):
        raise CheckpointError(
            f"{path} is the state of another training (configuration, recordings or version); "
            "delete it to start afresh or give another --out"
        )
    return state
