"""The arithmetic of each peer by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from msgspec import Struct

from benchmarks.cost import full_forward
from benchmarks.latency.peers import fits, window
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.errors import ConfigError
from runtime.core.values import Token
from runtime.engines.torch_stream import TorchStreamEngine

WINDOWS = ("eager", "onnx", "compile")  # full forwards
EQUAL = (*WINDOWS, "kv")  # those that compute what our engine computes
BINS = 100  # of a window: the published one, and the band


class Files(Struct, frozen=True):
    """What decoders may need. fitted: folder of `fits`. onnx: where the exported window of the checkpoint lies."""

    checkpoint: str
    fitted: str
    onnx: str


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


def create(name: str, files: Files, outputs: tuple[str, ...]) -> Decoder:
    """A decoder by its name; a ridge is asked for its outputs. Raises `ConfigError`: it cannot run here, and why."""
    if name in fits.FITTED:
        return fits.load(name, Path(files.fitted))
    made = checkpoints.load(Path(files.checkpoint))
    if name == "ridge":
        return fits.Ridge(made, outputs)
    if name == "kv":
        return Kv(made)
    module = window.Mean(made, BINS).eval().requires_grad_(False)
    call: Callable[..., np.ndarray] | str = window.eager(module)
    if name == "compile":
        fast = full_forward.compiled(module, dynamic=True)
        call = fast if isinstance(fast, str) else window.eager(fast)
    elif name == "onnx":
        inputs, path = (torch.zeros(9, len(made.units)), torch.zeros(9, dtype=torch.bool)), Path(files.onnx)
        why = "" if path.is_file() else full_forward.exported(module, inputs, path, BINS)
        call = why or full_forward.onnx_call(path)
    if isinstance(call, str):
        raise ConfigError(call)
    return window.Recompute(BINS, len(made.units), call)
