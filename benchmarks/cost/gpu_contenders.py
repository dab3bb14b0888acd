"""Who takes part in the GPU benchmark: engines and torch's forms, each held to the offline forward on the CPU."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks.cost.gpu_peers import TorchStep, TorchWindow
from benchmarks.cost.timing import percentiles
from neds_core.checkpoint import Checkpoint
from runtime.core.values import Token
from runtime.engines.cuda_stream import CudaStreamEngine
from runtime.engines.cuda_window import CudaWindowEngine
from runtime.engines.stream import StreamEngine

GATE = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 1e-1}  # z-scores and probabilities, largest difference from float32
WINDOW_BINS = 100
NOTHING = "$^"  # matches no name


@dataclass(slots=True)
class Row:
    """One contender: `call` from host to host, `launch` on the device alone, and how long each took, ms."""

    case: str
    name: str
    precision: str
    call: Callable[[], object]
    launch: Callable[[], None] | None
    ours: bool
    max_abs: float
    took: dict[str, list[float]] = field(default_factory=lambda: {"host": [], "paced": [], "device": []})

    def json(self) -> dict[str, Any]:
        times = {kind: percentiles(t) | {"n": len(t)} for kind, t in self.took.items() if t}
        return {
            "case": self.case, "name": self.name, "precision": self.precision, "ours": self.ours,
            "max_abs_vs_offline": float(f"{self.max_abs:.2e}"), "ms": times,
        }  # fmt: skip


class Precision:
    """Products of float32 as they are, or in TF32, while it lasts."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        torch.set_float32_matmul_precision("high" if self.name == "tf32" else "highest")

    def __exit__(self, *_: object) -> None:
        torch.set_float32_matmul_precision("highest")


Maker = tuple[str, bool, str, Callable[[], Any]]  # precision, whether ours, and what torch.compile has to search, if it


@dataclass(slots=True)
class Bench:
    """What the rows have in common. searched: a regular expression of what torch.compile is asked to search for."""

    device: torch.device
    tokens: list[Token]
    searched: str
    left_out: list[str] = field(default_factory=list)

    def stream(self, layers: int, checkpoint: Checkpoint) -> list[Row]:
        """The KV step of every contender, each held to the offline forward, and ours on the CPU."""
        device = self.device
        makers: list[Maker] = [
            ("float32", True, "", lambda: CudaStreamEngine(checkpoint, device=device, fused=True)),
            ("float32", True, "", lambda: CudaStreamEngine(checkpoint, device=device, fused=False)),
            ("float32", False, "", lambda: TorchStep(checkpoint, "eager", True, device)),
            ("float32", False, "", lambda: TorchStep(checkpoint, "graph", True, device)),
            ("float32", False, "", lambda: TorchStep(checkpoint, "graph", False, device)),
            ("float32", False, "matmul", lambda: TorchStep(checkpoint, "compiled", False, device)),
            ("float32", False, "SDPA", lambda: TorchStep(checkpoint, "compiled", True, device)),
        ]
        n, cpu = len(self.tokens), StreamEngine(checkpoint)
        counts = np.stack([t.counts for t in self.tokens])
        truth = cpu.offline(counts, np.ones(n, bool), np.full(n, -1), np.arange(n) == 0)
        case = f"stream, {layers} layers"
        rows = self._rows(case, makers, self._streamed, truth, self._turns)
        return [*rows, Row(case, "CPU, one thread", "float32", self._turns(cpu), None, False, 0.0)]

    def window(self, layers: int, checkpoint: Checkpoint) -> list[Row]:
        """The whole window of every contender; at the window's last place, all bins valid."""
        single, half, device = torch.float32, torch.bfloat16, self.device
        makers: list[Maker] = [
            ("float32", True, "", lambda: CudaWindowEngine(checkpoint, device)),
            ("tf32", True, "", lambda: CudaWindowEngine(checkpoint, device)),
            ("bfloat16", True, "", lambda: CudaWindowEngine(checkpoint, device, dtype=half)),
        ]
        forms = (
            ("float32", "eager", "any", single), ("float32", "graph", "efficient", single),
            ("float32", "graph", "math", single), ("tf32", "graph", "efficient", single),
            ("bfloat16", "graph", "flash", half), ("bfloat16", "graph", "cudnn", half),
            ("bfloat16", "graph", "efficient", half), ("float32", "compiled", "any", single),
            ("bfloat16", "compiled", "any", half), ("tf32", "compiled", "any", single),
            ("bfloat16", "compiled", "flex", half),
        )  # fmt: skip
        makers += [
            (
                p,
                False,
                attention if mode == "compiled" else "",
                lambda m=mode, a=attention, d=d: TorchWindow(checkpoint, m, a, d, device),
            )
            for p, mode, attention, d in forms
        ]
        cpu = CudaWindowEngine(checkpoint, torch.device("cpu"))
        counts = np.stack([t.counts for t in self.tokens[:WINDOW_BINS]]).astype(np.float32)
        cpu.window[0], cpu.live[:] = torch.from_numpy(counts), True
        cpu._decode(WINDOW_BINS - 1, self.tokens[WINDOW_BINS - 1])
        return list(self._rows(f"window, {layers} layers", makers, self._filled, cpu.values, _last))

    def _rows(
        self, case: str, makers: list[Maker], tell: Callable[[Any], np.ndarray], truth: np.ndarray,
        call: Callable[[Any], Callable[[], object]],
    ) -> Iterator[Row]:  # fmt: skip
        """Contenders that are made, right and ready; one that is not says so in a line and is left out."""
        for precision, ours, searches, make in makers:
            if searches and not re.search(self.searched, f"{case}, {searches}, {precision}"):
                continue
            began = time.monotonic()
            with Precision(precision):
                try:
                    engine = make()
                    error = float(np.abs(tell(engine) - truth).max())
                except Exception as problem:  # a backend that this GPU or this torch lacks
                    self._leave(f"{case}, {precision}: {type(problem).__name__}: {str(problem).splitlines()[0][:150]}")
                    continue
            if not error <= GATE[precision]:
                self._leave(f"{case}, {engine.name}, {precision}: differs by {error:.1e}")
                continue
            print(f"{case}, {engine.name}, {precision}: {error:.1e}, {time.monotonic() - began:.0f} s", flush=True)
            yield Row(case, engine.name, precision, call(engine), engine.run.launch, ours, error)

    def _leave(self, why: str) -> None:
        self.left_out.append(why)
        print(f"left out: {why}", flush=True)

    def _streamed(self, engine: Any) -> np.ndarray:
        engine.reset()
        return np.stack([engine.step(t).copy() for t in self.tokens])

    def _filled(self, engine: Any) -> np.ndarray:
        """What is said at the last place of a window that these bins have filled."""
        engine.reset()
        engine.answer.on_host.fill_(torch.nan)
        for at in range(WINDOW_BINS):
            engine._decode(at, self.tokens[at])
        return engine.values.copy()

    def _turns(self, engine: Any) -> Callable[[], object]:
        at = 0

        def call() -> None:
            nonlocal at
            engine.step(self.tokens[at])
            at = (at + 1) % len(self.tokens)

        return call


def _last(engine: Any) -> Callable[[], object]:
    token = Token(0, 0, np.ones(len(engine.checkpoint.units), np.uint16), valid=True)
    return lambda: engine._decode(WINDOW_BINS - 1, token)
