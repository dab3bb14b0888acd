"""The contenders of the GPU benchmark say what the offline forward says; here on CPU tensors, without graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.cost import gpu_contenders, kernels_gpu, random_models
from benchmarks.cost.gpu_contenders import Bench, Row
from benchmarks.cost.kernel_sweep import Size

CPU = torch.device("cpu")
SIZE = Size(units=30, layers=2, width=64, band=6)


def bench() -> Bench:
    return Bench(CPU, random_models.tokens(SIZE, gpu_contenders.WINDOW_BINS + 3), gpu_contenders.NOTHING)


def test_every_step_is_right() -> None:
    """Ours fused and plain, and the torch step in both its forms; through a band that is full and wraps."""
    made = bench()

    rows = made.stream(2, random_models.random_checkpoint(SIZE))

    assert made.left_out == []
    assert [row.ours for row in rows] == [True, True, False, False, False, False]
    assert {row.name for row in rows} >= {"KV step in torch, SDPA, eager", "KV step in torch, matmul, graph"}
    assert all(0.0 <= row.max_abs < 1e-5 for row in rows)


@pytest.mark.slow
def test_every_window_is_right() -> None:
    """Ours and torch's attention, as far as a CPU has its backends; what it lacks says so."""
    made = bench()

    rows = made.window(2, random_models.random_window(2, SIZE.units))

    assert {(row.precision, row.ours) for row in rows} >= {("float32", True), ("bfloat16", True), ("float32", False)}
    assert all(row.max_abs < gpu_contenders.GATE[row.precision] for row in rows)
    assert all("scaled_dot_product_attention" in why for why in made.left_out)


def test_what_is_wrong_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is off by more than its bound has no row, and its name stands among those left out."""
    made, tell = bench(), Bench._streamed

    def wrong(self: Bench, engine: Any) -> Any:
        said = tell(self, engine)
        return said + 1e-3 if engine.name.endswith("-plain") else said

    monkeypatch.setattr(Bench, "_streamed", wrong)

    rows = made.stream(2, random_models.random_checkpoint(SIZE))

    assert [row.ours for row in rows][:2] == [True, False]
    assert len(made.left_out) == 1
    assert "stream-triton-cuda-plain, float32: differs by 1.0e-03" in made.left_out[0]


def test_the_headline_compares_the_fastest_of_each_side() -> None:
    """Within a case, a clock and a precision; a side without a row has no headline."""

    def row(name: str, ours: bool, ms: float, precision: str = "float32") -> dict[str, Any]:
        took = {"host": [ms, ms], "paced": [2 * ms, 2 * ms], "device": [ms / 2, ms / 2]}
        return Row("stream, 5 layers", name, precision, lambda: None, None, ours, 0.0, took).json()

    found = kernels_gpu.headline([row("a", True, 2.0), row("b", True, 1.0), row("c", False, 3.0), row("d", False, 4.0),
                                  row("e", True, 1.0, "tf32")])  # fmt: skip

    assert list(found) == ["stream, 5 layers, float32"]
    host, paced = (found["stream, 5 layers, float32"][clock] for clock in ("host", "paced"))
    assert (host["ours"], host["best_peer"], host["times"]) == ("b", "c", 3.0)
    assert (paced["p50_ms"], paced["peer_p50_ms"]) == (2.0, 6.0)
