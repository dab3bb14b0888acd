"""Cost of a step of several networks at the demo's size: their mean, one call against one for each, and the blend.

`neds-rt bench kernels --ensembles [--json]`. Correctness first; the rows take turns, then each runs once every 20 ms.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from benchmarks import machine
from benchmarks.cost import timing
from benchmarks.cost.full_forward import GATE_FLOAT32, Call, Row, gate
from benchmarks.cost.kernel_sweep import Size
from benchmarks.cost.kernels import take_turns
from benchmarks.cost.random_models import random_checkpoint, tokens
from neds_core.linear.linear import Bank, Linear
from runtime.core.engine import Engine
from runtime.core.values import Token
from runtime.engines.ensemble import EnsembleEngine
from runtime.engines.linear import LinearEngine
from runtime.engines.stream import StreamEngine
from runtime.io import system

MEMBERS = (1, 3, 5, 8)
DEMO = Size(units=449, layers=2, width=64, band=100, spikes=45)
LAGS, TAUS_MS = Bank(lags=10, root=True), Bank(taus_ms=(40.0, 120.0, 300.0), root=True)  # of the demo's ridge


def linear(size: Size) -> LinearEngine:
    """The demo's linear decoder with random weights: the first output on lags, the others on filters."""
    made, rng = random_checkpoint(size), np.random.default_rng(0)
    for m, spec in enumerate(made.specs):
        bank, n = (TAUS_MS if m else LAGS), len(spec.classes) or 1
        weight = rng.normal(scale=0.01, size=(bank.n_features(size.units), n)).astype(np.float32)
        made.linear[spec.name] = Linear(bank, 1.0, weight, np.zeros(n, np.float32))
    return LinearEngine(made)


def engines(size: Size, members: tuple[int, ...] = MEMBERS) -> dict[str, Engine]:
    """By name: the mean of so many networks, and their blend with the linear decoder."""
    found: dict[str, Engine] = {}
    for n in members:
        networks = [StreamEngine(random_checkpoint(size, seed)) for seed in range(n)]
        shares = np.full((n, networks[0].layout.n_values), 1.0 / n)
        found[f"mean of {n}"] = EnsembleEngine(networks, shares)
        found[f"blend of {n}"] = EnsembleEngine(networks, 0.5 * shares, linear(size))
    return found


def held(engine: Engine, told: list[Token]) -> float:
    """The largest difference between an engine's steps and its offline values."""
    n, counts = len(told), np.stack([t.counts for t in told])
    truth = engine.offline(counts, np.ones(n, bool), np.full(n, -1), np.arange(n) == 0)
    engine.reset()
    return float(np.abs(np.stack([engine.step(t).copy() for t in told]) - truth).max())


def _turns(step: Callable[[Token], object], told: list[Token]) -> Call:
    at = 0

    def call() -> None:
        nonlocal at
        step(told[at])
        at = (at + 1) % len(told)

    return call


@torch.inference_mode()
def run(seconds: float = 30.0, n_paced: int = 500, size: Size = DEMO) -> dict[str, Any]:
    """All rows. Raises `WrongError` where a sum is not what its parts say offline."""
    torch.set_num_threads(1)
    told = tokens(size, size.band + 7)
    with system.pinned() as pinned:
        made, errors = engines(size), {}
        for name, engine in made.items():
            errors[name] = held(engine, told)
            gate(name, errors[name], GATE_FLOAT32)
        rows = [Row(name, asdict(size), _turns(engine.step, told), 50) for name, engine in made.items()]
        apart = made["mean of 3"]
        assert isinstance(apart, EnsembleEngine)

        def each(token: Token) -> None:
            for network in apart.networks:
                network.step(token)

        rows += [Row("3 networks, a call each", asdict(size), _turns(each, told), 50)]
        rows += [Row("linear decoder", asdict(size), _turns(linear(size).step, told), 50)]
        take_turns(rows, seconds)
        paced = [
            Row(f"{row.name}, paced at 50 Hz", row.size, row.call, 1, timing.paced(row.call, n_paced)) for row in rows
        ]
    return {
        "created": timing.now(), "command": " ".join(["neds-rt", *sys.argv[1:]]), "machine": machine.describe(),
        "pinned": pinned, "size": asdict(size), "max_abs_vs_offline": {n: float(f"{e:.2e}") for n, e in errors.items()},
        "rows": [row.json() for row in [*rows, *paced]],
    }  # fmt: skip


def lines(result: dict[str, Any]) -> list[str]:
    """The rows in words."""
    out = [f"{'ms':40} {'n':>6} {'p50':>9} {'p99':>9} {'p99.9':>9} {'max':>9}"]
    for row in result["rows"]:
        times = " ".join(f"{row['ms'][p]:9.3f}" for p in ("p50", "p99", "p99.9", "max"))
        out.append(f"{row['name']:40} {row['n']:6} {times}")
    return out
