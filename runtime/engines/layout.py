"""Where each output lies in the flat vector of values that flows through the loop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.data.session import BehaviourSpec


@dataclass(frozen=True, slots=True)
class Layout:
    """specs in the checkpoint's order; columns name -> slice of the (V,) vector; scale and
    offset (V,) float32 turn z-scores into units (1 and 0 for probabilities)."""

    specs: tuple[BehaviourSpec, ...]
    columns: dict[str, slice]
    scale: np.ndarray
    offset: np.ndarray

    @property
    def n_values(self) -> int:
        """V."""
        return len(self.scale)


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
