"""The cost of a training step is measured on steps that are right, in turns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.cost import train_throughput as bench
from benchmarks.cost.train_contenders import Contender, Pattern, neds, plain
from neds_core.model.attention import Full, attention


def drawn(n: int, n_sinks: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """q, k, v (2, 2, N, 8), bins of 3 tokens, and hidden tokens."""
    rng = torch.Generator().manual_seed(n)
    q, k, v = torch.randn(3, 2, 2, n_sinks + n, 8, generator=rng)
    hidden = torch.rand(2, n_sinks + n, generator=rng) < 0.4
    hidden[:, :n_sinks] = False
    position = torch.cat([torch.zeros(n_sinks, dtype=torch.int64), torch.arange(n) // 3])
    return (q, k, v), {"position": position, "hidden": hidden}


def test_the_dense_twins_are_the_patterns() -> None:
    """What the gate compares with: the same numbers from one dense matrix of scores."""
    for ours, theirs, n_sinks in ((attention, bench.dense, 3), (Full(), bench.dense_full, 0)):
        qkv, where = drawn(300, n_sinks)
        got, wanted = (f(*qkv, **where, band=20, n_sinks=n_sinks) for f in (ours, theirs))
        # 1e-5: float32 sums of up to 300 terms in another order
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pattern", ["full", "causal"])
def test_a_step_is_a_step(pattern: Pattern) -> None:
    """Both contenders take as many steps as they were told, and are as large as each other but for embeddings."""
    size = []
    for prepare in (plain, neds):
        said: list[object] = []
        run, parameters, draw_s = prepare(Contender("neds", pattern, 4, 2), 2, "cpu")
        run(said.append)
        assert len(said) == 2
        assert (draw_s > 0) == (prepare is neds)
        size.append(parameters)
    assert size[0] == pytest.approx(size[1], rel=0.01)


@pytest.mark.slow
def test_contenders_take_turns() -> None:
    """A row each, with the sizes asked for, and the CPU time of every step after the first."""
    contenders = [Contender("neds", "full", 4, 2), Contender("plain", "full", 4, 2)]

    rows, cpu = bench.take_turns(contenders, 3, "cpu", 1)

    assert [(r.model, r.bins, r.tokens, r.batch) for r in rows] == [("neds full", 4, 20, 2), ("plain full", 4, 20, 2)]
    assert cpu.shape == (2, 2)
    for row, took in zip(rows, cpu, strict=True):
        assert row.cpu_ms == pytest.approx(float(np.median(took)) * 1e3)
        assert row.samples_per_s == pytest.approx(2 / row.step_ms * 1e3)
        assert row.parameters > 2_000_000
    assert rows[0].draw_ms > rows[1].draw_ms == 0.0


def test_ratios_compare_the_same_turn() -> None:
    """A turn in which the whole machine was slow changes no ratio."""
    sizes: list[tuple[Pattern, int]] = [("full", 100), ("causal", 100), ("causal", 200), ("causal", 400)]
    contenders = [Contender(m, p, t, 1) for p, t in sizes for m in ("neds", "plain")]
    cpu = np.arange(1.0, 9.0)[:, None] * np.array([1.0, 50.0, 1.0])

    found = bench.ratios(contenders, cpu)

    assert found["full 100 / plain"] == pytest.approx(1 / 2)
    assert found["causal 200 / full 100"] == pytest.approx(5 / 1)
    assert found["causal 400 / causal 200"] == pytest.approx(7 / 5)
