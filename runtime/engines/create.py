"""Engines: one contract, `step(token) -> values (V,)`, and the offline twin each is held to."""

from __future__ import annotations

import time
from typing import Literal, Protocol

import numpy as np
import torch

from kernels.cpu.pack import Precision
from neds_core.checkpoint import Checkpoint
from neds_core.errors import ConfigError
from neds_core.linear import linear
from neds_core.linear.linear import BankState
from runtime.core.values import Token
from runtime.engines.cuda import CudaStreamEngine, CudaWindowEngine
from runtime.engines.layout import Layout, layout
from runtime.engines.stream import StreamEngine
from runtime.engines.window import WindowEngine

Device = Literal["cpu", "cuda"]


class Engine(Protocol):
    """What the pipeline needs of a decoder."""

    name: str
    layout: Layout
    window_bins: int  # it decodes so many bins from a cold start, and knows each by its place there; 0 = no end

    def reset(self, position: int = 0) -> None:
        """Start cold at a position."""
        ...

    def step(self, token: Token) -> np.ndarray:
        """Take in one bin; returns values (V,) float32, reused by the next step."""
        ...

    def skip(self, n_bins: int) -> None:
        """Bins that were never seen: the position advances, nothing is remembered of them."""
        ...

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        """The same values (T, V) computed at once from a log of what was stepped."""
        ...


class LinearEngine:
    """The causal ridge (and logistic for classes) stored with a checkpoint."""

    name = "linear-numpy-cpu"
    window_bins = 0

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.layout = checkpoint, layout(checkpoint)
        n_units, bin_ns = len(checkpoint.units), checkpoint.header.bin_ns
        self.kept = checkpoint.scalers.kept
        self.banks = {m.bank: BankState(m.bank, n_units, bin_ns) for m in checkpoint.linear.values()}
        self.values = np.zeros(self.layout.n_values, np.float32)

    def reset(self, position: int = 0) -> None:
        for bank in self.banks.values():
            bank.reset()

    def skip(self, n_bins: int) -> None:
        zeros = np.zeros(len(self.kept), np.float32)
        for _ in range(n_bins):
            for bank in self.banks.values():
                bank.step(zeros, -1)

    def step(self, token: Token) -> np.ndarray:
        counts = np.where(self.kept & token.valid, token.counts, 0).astype(np.float32)
        found = {bank: state.step(counts, token.clock) for bank, state in self.banks.items()}
        for spec in self.layout.specs:
            model = self.checkpoint.linear[spec.name]
            self._place(spec.name, spec.kind, model.apply(found[model.bank]), self.values)
        return self.values

    def _place(self, name: str, kind: str, y: np.ndarray, out: np.ndarray) -> None:
        if kind == "class":
            y = np.exp(y - y.max(-1, keepdims=True))
            y = y / y.sum(-1, keepdims=True)
        out[..., self.layout.columns[name]] = y

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        shown = np.where(self.kept & valid[:, None], counts, 0).astype(np.float32)
        bin_ns = self.checkpoint.header.bin_ns
        found = {bank: linear.features(bank, shown, clock, reset, bin_ns) for bank in self.banks}
        out = np.zeros((len(counts), self.layout.n_values), np.float32)
        for spec in self.layout.specs:
            model = self.checkpoint.linear[spec.name]
            self._place(spec.name, spec.kind, model.apply(found[model.bank]), out)
        return out


class BlendEngine:
    """A fixed average of NEDS and the linear decoder, its weights chosen on validation."""

    name = "blend"

    def __init__(self, checkpoint: Checkpoint, weights: Precision = "float32", device: Device = "cpu") -> None:
        self.parts = (network(checkpoint, weights, device), LinearEngine(checkpoint))
        self.layout, self.window_bins = self.parts[0].layout, self.parts[0].window_bins
        self.share = np.zeros(self.layout.n_values, np.float32)
        for name, column in self.layout.columns.items():
            self.share[column] = checkpoint.header.blend[name]
        self.values = np.zeros(self.layout.n_values, np.float32)

    def reset(self, position: int = 0) -> None:
        for part in self.parts:
            part.reset(position)

    def skip(self, n_bins: int) -> None:
        for part in self.parts:
            part.skip(n_bins)

    def step(self, token: Token) -> np.ndarray:
        ours, theirs = (part.step(token) for part in self.parts)
        np.copyto(self.values, self.share * ours + (1.0 - self.share) * theirs)
        return self.values

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        ours, theirs = (part.offline(counts, valid, clock, reset) for part in self.parts)
        return self.share * ours + (1.0 - self.share) * theirs


ENGINES = ("neds", "ridge", "blend")
Network = StreamEngine | WindowEngine | CudaStreamEngine  # a CudaWindowEngine is a WindowEngine


def network(checkpoint: Checkpoint, weights: Precision = "float32", device: Device = "cpu") -> Network:
    """The engine of NEDS: by the window where attention is full, else by the stream."""
    causal = checkpoint.header.config.model.attention == "causal"
    if weights != "float32" and not (causal and device == "cpu"):
        raise ConfigError(
            f"engine.weights {weights!r} is for causal checkpoints on the CPU, and {checkpoint.header.name!r} "
            f"{'runs on the GPU' if causal else 'has full attention'}; leave engine.weights at 'float32'"
        )
    if device == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("engine.device is 'cuda', but torch finds no GPU here; set it to 'cpu'")
        return CudaStreamEngine(checkpoint) if causal else CudaWindowEngine(checkpoint)
    return StreamEngine(checkpoint, weights) if causal else WindowEngine(checkpoint)


def create(
    checkpoint: Checkpoint, decoder: str, weights: Precision = "float32", device: Device = "cpu"
) -> Network | LinearEngine | BlendEngine:
    """The engine of a decoder name. weights, device: how those of NEDS are stored (see `StreamEngine`), and where."""
    if decoder not in ENGINES:
        raise ConfigError(f"decoder {decoder!r} is not known; choose one of {', '.join(ENGINES)}")
    name = checkpoint.header.name
    if decoder != "neds" and not checkpoint.linear:
        raise ConfigError(f"checkpoint {name!r} holds no linear decoder; train one with neds-rt train")
    if decoder == "ridge":
        return LinearEngine(checkpoint)
    return (network if decoder == "neds" else BlendEngine)(checkpoint, weights, device)


def refuse_endless(engine: Engine) -> None:
    """Nothing tells such a run where a segment starts, which an engine with a window has to know."""
    if engine.window_bins:
        raise ConfigError(
            f"engine {engine.name} decodes {engine.window_bins} bins from the start of a segment and needs markers; "
            "name a marker stream and leave bins.use_markers on, or choose a causal checkpoint or --decoder ridge"
        )


def warm_up(engine: Engine, n_units: int, steps: int = 50) -> float:
    """Run dense and empty bins through every path, then start cold: nothing is first on the rig.

    Returns the median ms of the last quarter of the steps; an engine with a window steps until it is full.
    """
    steps = engine.window_bins or steps
    took = np.zeros(steps)
    for i in range(steps):
        token = Token(i, 0, np.full(n_units, i % 3, np.uint16), valid=i % 5 != 0, clock=i)
        begin = time.perf_counter_ns()
        engine.step(token)
        took[i] = (time.perf_counter_ns() - begin) * 1e-6
    engine.skip(3)
    engine.reset()
    return float(np.median(took[-max(1, steps // 4) :]))


def too_slow(engine: Engine, step_ms: float, bin_ns: int) -> str:
    """One sentence where a step takes longer than the bin that it decodes, else ''."""
    if step_ms <= bin_ns * 1e-6:
        return ""
    return (
        f"engine {engine.name} takes {step_ms:.1f} ms a step, longer than its bin of {bin_ns * 1e-6:g} ms, and falls "
        "behind; choose a causal checkpoint or --decoder ridge"
    )
