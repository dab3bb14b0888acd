"""The published way to decode a bin, as fast as its own tools make it: what a streaming step is measured against."""

from __future__ import annotations

import copy
import importlib.util
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.cost.timing import percentiles
from neds_core.config import ModelConfig
from neds_core.model.model import Block

PAPER = {"tokens": 500, "width": 256, "heads": 8, "mlp_ratio": 2}  # Zhang et al. 2025, Table 4: 100 bins x 5 modalities
GATE_FLOAT32 = 1e-4  # z-scores and probabilities, through up to 22 layers of random weights
Call = Callable[[], object]


class WrongError(Exception):
    """A contender does not compute what it should."""


@dataclass(slots=True)
class Row:
    """One contender: what it is and how long each call took, ms."""

    name: str
    size: dict[str, int]
    call: Call
    per_turn: int
    took: list[float] = field(default_factory=list)
    note: str = ""

    def json(self) -> dict[str, Any]:
        return {
            "name": self.name, **self.size, "n": len(self.took), "ms": percentiles(self.took), "note": self.note,
        }  # fmt: skip


class FullForward(nn.Module):
    """The published way: all 500 tokens of a window through every layer, anew for every bin."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        size = ModelConfig(
            width=PAPER["width"], layers=layers, heads=PAPER["heads"], mlp_ratio=PAPER["mlp_ratio"], dropout=0.0
        )
        self.blocks = nn.ModuleList(Block(size) for _ in range(layers))
        self.norm = nn.LayerNorm(PAPER["width"])

    def forward(self, x: Tensor) -> Tensor:
        """x (1, N, D) tokens to (1, N, D); bidirectional attention without a mask."""
        for block in self.blocks:
            q, k, v = block.heads_of(x)  # pyright: ignore[reportCallIssue]
            x = block.finish(x, nn.functional.scaled_dot_product_attention(q, k, v))  # pyright: ignore[reportCallIssue]
        return self.norm(x)


def full_forwards(layers: int, quick: bool) -> list[Row]:
    """The full forward in eager torch, ONNX Runtime and torch.compile.

    quick: torch.compile only where ONNX Runtime is absent. What is not installed here has a row that says so.
    """
    torch.manual_seed(0)
    model = FullForward(layers).eval().requires_grad_(False)
    x = torch.randn(1, PAPER["tokens"], PAPER["width"])
    size = {"layers": layers, "width": PAPER["width"], "tokens": PAPER["tokens"]}
    per_turn = 2 if layers <= 5 else 1
    expected = model(x)
    onnx = _onnx(model, x, expected)
    faster = {"ONNX Runtime": onnx}
    if not (quick and callable(onnx)):
        faster["torch.compile"] = _compiled(model, x, expected)
    rows = [Row("full forward, torch eager", size, lambda: model(x), per_turn)]
    for name, found in faster.items():
        if callable(found):
            rows.append(Row(f"full forward, {name}", size, found, per_turn))
        else:
            rows.append(Row(f"full forward, {name}", {}, lambda: None, 0, note=found))
    return rows


def compiled(model: nn.Module, dynamic: bool | None = None) -> Any | str:
    """A copy of a model through torch.compile, or why there is none. dynamic: of any shape at once."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"no C++ compiler {compiler!r} here: install one, or set CXX to its path"
    return torch.compile(copy.deepcopy(model), dynamic=dynamic)


def exported(model: nn.Module, inputs: tuple[Tensor, ...], path: Path, longest: int = 0) -> str:
    """Write a model as ONNX; returns why it cannot be, '' = it was.

    longest: the first dimension of all inputs is dynamic, from 2 up to so many. 0 = it is static.
    """
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnxscript") is None:
        return "not installed: pip install 'neds-rt[peers]'"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of its own future
        shapes = ({0: torch.export.Dim("n", min=2, max=longest)},) * len(inputs) if longest else None
        torch.onnx.export(model, inputs, path, dynamo=True, verbose=False, dynamic_shapes=shapes)
    return ""


def onnx_call(path: Path) -> Callable[..., np.ndarray]:
    """An exported model as a call with its inputs, on one thread."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda *given: session.run(None, dict(zip(names, given, strict=True)))[0]


def _compiled(model: nn.Module, x: Tensor, expected: Tensor) -> Call | str:
    """A call of the compiled model, or why there is none."""
    if isinstance(fast := compiled(model), str):
        return fast
    gate("torch.compile", float((fast(x) - expected).abs().max()), GATE_FLOAT32)
    return lambda: fast(x)


def _onnx(model: nn.Module, x: Tensor, expected: Tensor) -> Call | str:
    """A call of the exported model on one thread, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        if why := exported(model, (x,), path := Path(folder) / "full.onnx"):
            return why
        call, given = onnx_call(path), x.numpy()
    gate("ONNX Runtime", float(np.abs(call(given) - expected.numpy()).max()), GATE_FLOAT32)
    return lambda: call(given)


def gate(name: str, error: float, bound: float) -> None:
    """Nothing that is wrong gets a time."""
    if not error <= bound:
        raise WrongError(f"{name} is off by {error:.2e}, more than {bound:g}: it is wrong, so it is not timed")
