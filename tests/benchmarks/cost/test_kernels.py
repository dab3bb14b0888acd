"""The benchmark of a step times only what is right, and its ratios are those of its own rows."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.cost import ensembles, kernel_figures, kernel_sweep, kernels, random_models
from benchmarks.cost.full_forward import FullForward, Row, WrongError, gate
from runtime.engines.ensemble import EnsembleEngine


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


def test_ensembles_are_held_to_the_sum_of_their_parts_before_they_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    size = kernels.Size(units=10, layers=1, width=16, band=5, spikes=3)
    result = ensembles.run(seconds=0.1, n_paced=2, size=size)
    names = [row["name"] for row in result["rows"]]
    assert {"mean of 1", "mean of 8", "blend of 3", "3 networks, a call each", "blend of 8, paced at 50 Hz"} < set(
        names
    )
    assert all(error < 1e-5 for error in result["max_abs_vs_offline"].values())
    assert len(ensembles.lines(result)) == len(names) + 1

    wrong = EnsembleEngine.offline
    monkeypatch.setattr(EnsembleEngine, "offline", lambda *given: wrong(*given) + 0.1)
    with pytest.raises(WrongError, match="mean of 1"):
        ensembles.run(seconds=0.1, n_paced=2, size=size)


def test_a_turn_begins_with_calls_that_are_not_timed() -> None:
    called: list[str] = []
    rows = [Row(name, {}, partial(called.append, name), n) for name, n in (("a", 30), ("b", 2), ("not here", 0))]
    kernels.take_turns(rows, 0.01)
    turns = len(rows[0].took) // 30
    assert [len(row.took) for row in rows] == [30 * turns, 2 * turns, 0]
    assert called == (["a"] * (kernels.UNTIMED + 30) + ["b"] * (2 + 2)) * turns


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


@pytest.mark.parametrize(
    ("name", "ratio", "passes"),
    [
        ("speedup_vs_best_full_forward", 29.9, False),
        ("speedup_vs_torch_kv", 2.9, False),
        ("ratio_to_floor", 3.1, False),
        ("ratio_to_floor", float("nan"), False),
        ("ratio_to_floor", 3.0, True),
    ],
)
def test_the_gate_holds_each_ratio(name: str, ratio: float, passes: bool) -> None:
    """One that misses its bound says so; the others are as required."""
    top = kernels.GATE | {name: ratio}
    assert [line.split()[0] for line in kernels.missed(top)] == ([] if passes else [name])


def swept(cost: Any) -> list[dict[str, Any]]:
    """A row for each size of the shipped sweep and each name, its p50 a function of the size."""
    made = []
    for name in kernel_sweep.SWEPT:
        sizes = kernel_sweep.sizes(kernels.Size(), kernel_sweep.FACTORS, name)
        made += [Row(f"{name}, x", kernels.asdict(size), lambda: None, 1, [cost(size)] * 2) for size in sizes]
    return [row.json() for row in made]


def test_slopes_are_those_of_one_factor_at_a_time() -> None:
    """A cost that is L sqrt(W): linear in layers, half in the band, nothing in the rest."""
    rows = swept(lambda size: 0.1 * size.layers * size.band**0.5)
    found = kernel_sweep.slopes(rows, kernels.asdict(kernels.Size()))
    assert len(rows) == (1 + 2 + 3 + 3 + 2 + 2) + (1 + 2 + 2) + (1 + 3)
    none = {"units": 0, "spikes": 0}
    expected = {kernel_sweep.STEP: {"layers": 1, "width": 0, "band": 0.5, **none}, kernel_sweep.INGEST: none,
                kernel_sweep.FLOOR: {"layers": 1}}  # fmt: skip
    assert {name: set(each) for name, each in found.items()} == {name: set(each) for name, each in expected.items()}
    for name, each in expected.items():
        assert found[name] == pytest.approx(each, abs=1e-3)


def test_ingest_is_that_of_the_engine() -> None:
    """The bins that the row ingests leave the token that the engine makes of the last one."""
    size = kernels.Size(units=20, layers=1, width=16, band=5, spikes=6)
    row = kernels.ingest(size, bins=3)
    engine = kernels.StreamEngine(random_models.random_checkpoint(size))
    token = np.zeros(size.width, np.float32)
    counts = random_models.tokens(size, 3)[-1].counts
    expected = engine.weights.constants[0] + np.sqrt(counts.astype(np.float32)) @ engine.weights.rows

    kernels.kernel.ingest(counts, engine.weights.rows, engine.weights.constants[0], token)
    row.call()

    np.testing.assert_allclose(token, expected, rtol=1e-5, atol=1e-5)
    assert row.name.startswith(kernel_sweep.INGEST)


def test_bins_hold_the_spikes_that_a_size_says() -> None:
    """However many units there are."""
    for units in (100, 1500):
        told = random_models.tokens(kernels.Size(units=units, spikes=45), 400)
        assert np.mean([t.counts.sum() for t in told]) == pytest.approx(45, rel=0.05)


@pytest.mark.slow
def test_the_whole_benchmark_at_tiny_sizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every row, its words, and the figure: all but the published way, whose size is what it is."""
    tiny = partial(kernels.Size, units=10, width=16, band=5, spikes=3)
    few = {"units": (5, 10), "layers": (1, 5), "width": (16, 32), "band": (3, 5), "spikes": (3, 9)}
    take_turns, paced = kernels.take_turns, kernels.paced
    for name, instead in {
        "Size": tiny, "FACTORS": few, "paced": lambda row, n: paced(row, 3),
        "take_turns": lambda rows, seconds: take_turns(rows, 0.01),
        "full_forwards": lambda layers, quick: [Row("full forward", {"layers": layers}, lambda: None, 1)],
    }.items():  # fmt: skip
        monkeypatch.setattr(kernels, name, instead)

    result = kernels.run(quick=False)

    words = kernels.lines(result)
    assert {row["layers"] for row in result["rows"]} == {5, 22}
    assert len(result["sweep"]) == (1 + 5) + (1 + 2) + (1 + 1)
    assert set(result["slopes"]) == set(kernel_sweep.SWEPT)
    assert sum("slope of log p50 against the log of each factor" in line for line in words) == len(kernel_sweep.SWEPT)
    assert sum(line.endswith(tuple("0123456789")) for line in words) >= len(result["rows"]) + len(result["sweep"])
    kernel_figures.draw(result, tmp_path / "cost.png")
    assert (tmp_path / "cost.png").stat().st_size > 10_000
