"""The benchmark of a step times only what is right, and its ratios are those of its own rows."""

from __future__ import annotations

import pytest
import torch

from benchmarks import kernels
from benchmarks.full_forward import FullForward, Row, WrongError, gate


def test_engines_are_held_to_the_offline_forward_before_they_are_timed() -> None:
    size = kernels.Size(units=10, layers=1, width=16, band=5)
    rows, errors = kernels.steps(size, ("float32", "int8"), torch_step=True)
    assert set(errors) == {"stream-numba-cpu", "stream-numba-cpu-int8", "stream-torch-cpu"}
    assert 0.0 < errors["stream-numba-cpu"] < 1e-5 < errors["stream-numba-cpu-int8"]
    assert not any(row.took for row in rows)

    kernels.take_turns([*rows, kernels.floor(size, "float32")], 0.05)

    for row in rows:
        times = row.json()["ms"]
        assert 0.0 < times["p50"] <= times["p99"] <= times["max"]


@pytest.mark.parametrize("error", [2e-4, float("nan")])
def test_what_is_wrong_gets_no_time(error: float) -> None:
    with pytest.raises(WrongError, match="it is wrong, so it is not timed"):
        gate("it", error, 1e-4)


def test_the_headline_is_made_of_medians() -> None:
    took = {
        "stream-numba-cpu": 0.5,
        "stream-torch-cpu": 2.0,
        "full forward, a": 30.0,
        "full forward, b": 20.0,
        "floor": 0.25,
    }
    rows = [Row(name, {}, lambda: None, 1, [ms, ms, 100.0]) for name, ms in took.items()]
    rows.append(Row("full forward, not here", {}, lambda: None, 0))
    top = kernels.headline(rows)
    assert (top["p50_ms"], top["speedup_vs_best_full_forward"]) == (0.5, 40.0)
    assert (top["speedup_vs_torch_kv"], top["ratio_to_floor"]) == (4.0, 2.0)


@torch.inference_mode()
def test_the_full_forward_reads_every_token() -> None:
    """A change of the last token changes the first: nothing is cut off to look fast."""
    model = FullForward(1).eval()
    x = torch.randn(1, 12, 256, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[0, -1] += 1.0
    assert not torch.equal(model(x)[0, 0], model(other)[0, 0])
