"""Training states: what an interrupted training needs to go on exactly. Tensors and numbers, never code.

Draws are keyed by the step (see `windows`), so the step is the sampler's place and the state of every
random generator.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from neds_core.errors import CheckpointError

FORMAT = 1


def our_version() -> str:
    """Version of neds-rt; "not installed" where it runs from a checkout alone."""
    try:
        return version("neds-rt")
    except PackageNotFoundError:
        return "not installed"


def save(state: dict[str, Any], identity: str, path: Path) -> None:
    """Write a state; a crash at any moment leaves the old one or the new one. identity: what it is a training of."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            torch.save({"format": FORMAT, "identity": identity, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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
