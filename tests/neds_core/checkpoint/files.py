"""What the tests of checkpoints look at a file with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from neds_core import checkpoint as checkpoints
from neds_core.errors import CheckpointError


def refusal(path: Path) -> str:
    """The one line that a file is refused with; it names the file."""
    with pytest.raises(CheckpointError) as error:
        checkpoints.load(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def contents(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118 (not a dict)
