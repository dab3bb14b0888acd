"""Where the outputs of a checkpoint lie in the vector of values."""

from __future__ import annotations

import numpy as np

from neds_core.checkpoint import Checkpoint
from runtime.core.values import Layout


def layout(checkpoint: Checkpoint) -> Layout:
    """The layout of a checkpoint's outputs."""
    columns: dict[str, slice] = {}
    scale: list[float] = []
    offset: list[float] = []
    for spec in checkpoint.specs:
        n = 1 if spec.kind == "continuous" else len(spec.classes)
        columns[spec.name] = slice(len(scale), len(scale) + n)
        scale += [checkpoint.header.sd[spec.name] if spec.kind == "continuous" else 1.0] * n
        offset += [checkpoint.header.mean[spec.name] if spec.kind == "continuous" else 0.0] * n
    return Layout(checkpoint.specs, columns, np.array(scale, np.float32), np.array(offset, np.float32))
