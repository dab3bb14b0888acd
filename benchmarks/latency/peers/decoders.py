"""The arithmetic of each peer by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from benchmarks.cost import full_forward
from benchmarks.latency.peers import fits, window
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.errors import ConfigError
from runtime.core.values import Token
from runtime.engines.torch_stream import TorchStreamEngine

EQUAL = ("eager", "onnx", "compile", "kv")  # those that compute what our engine computes
BINS = 100  # of a window: the published one, and the band


class Decoder(Protocol):
    """A peer's arithmetic."""

    def reset(self) -> None:
        """A trial begins."""
        ...

    def step(self, counts: np.ndarray) -> np.ndarray:
        """counts (n, U) of the bins that closed at once, oldest first; values (V,) of the newest."""
        ...


class Kv:
    """Our architecture as a cache of keys and values in torch, a network after the other; their mean."""

    def __init__(self, made: Checkpoint) -> None:
        self.engines = [TorchStreamEngine(made.alone(m)) for m in range(len(made.networks))]

    def reset(self) -> None:
        for engine in self.engines:
            engine.reset()

    def step(self, counts: np.ndarray) -> np.ndarray:
        """counts (n, U) of the bins that closed; values (V,) of the newest."""
        for row in counts:
            for engine in self.engines:
                engine.step(Token(0, 0, row, valid=True))
        return np.mean([engine.values for engine in self.engines], axis=0)


def create(name: str, checkpoint: Path, fitted: Path, onnx: Path) -> Decoder:
    """A decoder by its name. checkpoint, fitted, onnx: what it may need. Raises `ConfigError`: not here, and why."""
    if name in fits.FITTED:
        return fits.load(name, fitted)
    made = checkpoints.load(checkpoint)
    n_units = len(made.units)
    if name == "kv":
        return Kv(made)
    module = window.Mean(made, BINS).eval().requires_grad_(False)
    if name == "eager":
        return window.Recompute(BINS, n_units, window.eager(module))
    if name == "compile":
        if isinstance(fast := full_forward.compiled(module), str):
            raise ConfigError(fast)
        return window.Recompute(BINS, n_units, window.eager(fast))
    if name != "onnx":
        raise ConfigError(f"peer decoder {name!r} is not known; choose one of {', '.join((*EQUAL, *fits.FITTED))}")
    if not onnx.is_file() and (why := export(module, n_units, onnx)):
        raise ConfigError(why)
    return window.Recompute(BINS, n_units, full_forward.onnx_call(onnx))


def export(module: torch.nn.Module, n_units: int, path: Path) -> str:
    """Write the window as ONNX; returns why not, '' = it was written."""
    inputs = torch.zeros(BINS, n_units), torch.zeros(BINS, dtype=torch.bool)
    return full_forward.exported(module, inputs, path)
