"""Cost of one decoding step: ours against the published way and the floor, in one run on one pinned thread.

`neds-rt bench kernels [--quick] [--json]`. Correctness first; then the contenders take turns, so that
a busy machine slows them alike and their ratios hold. Random weights: cost does not depend on them.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from benchmarks import machine
from benchmarks.cost import kernels_gpu, timing
from benchmarks.cost.full_forward import GATE_FLOAT32, Call, Row, full_forwards, gate
from benchmarks.cost.kernel_sweep import FACTORS, FLOOR, INGEST, STEP, Size, sizes, slopes
from benchmarks.cost.random_models import random_checkpoint, tokens
from benchmarks.cost.timing import timed
from kernels.cpu import step as kernel
from kernels.cpu.jit import jit
from kernels.cpu.pack import Precision
from runtime.core.values import Token
from runtime.engines.stream import StreamEngine
from runtime.engines.torch_stream import TorchStreamEngine
from runtime.io import system

UNTIMED = 25  # calls at the beginning of a turn, but never more than are timed
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
# speed-ups: at least so much; ratio to the floor: at most
GATE = {"speedup_vs_best_full_forward": 30.0, "speedup_vs_torch_kv": 3.0, "ratio_to_floor": 3.0}


def steps(size: Size, precisions: tuple[Precision, ...], torch_step: bool) -> tuple[list[Row], dict[str, float]]:
    """Streaming engines on one checkpoint, each first held to the offline forward; returns rows and their errors."""
    checkpoint = random_checkpoint(size)
    told = tokens(size, 2 * size.band + 7)
    counts = np.stack([t.counts for t in told])
    engines: list[StreamEngine | TorchStreamEngine] = [StreamEngine(checkpoint, p) for p in precisions]
    engines += [TorchStreamEngine(checkpoint)] if torch_step else []
    n = len(told)
    truth = engines[0].offline(counts, np.ones(n, bool), np.full(n, -1), np.arange(n) == 0)
    rows, errors = [], {}
    for engine in engines:
        engine.reset()
        error = float(np.abs(np.stack([engine.step(t).copy() for t in told]) - truth).max())
        exact = not engine.name.endswith(("bfloat16", "int8"))
        gate(engine.name, error, GATE_FLOAT32 if exact else 0.1)
        errors[engine.name] = error
        rows.append(Row(engine.name, asdict(size), _turns(engine, told), _per_turn(size)))
    return rows, errors


def _per_turn(size: Size) -> int:
    return 100 if size.layers <= 5 else 20


def _turns(engine: StreamEngine | TorchStreamEngine, told: list[Token]) -> Call:
    at = 0

    def call() -> None:
        nonlocal at
        engine.step(told[at])
        at = (at + 1) % len(told)

    return call


@jit
def _read(memory):
    """The sum of memory (4 N,), read in four places at once: what lies beyond the caches comes a quarter sooner so."""
    n, total = len(memory) // 4, np.float32(0.0)
    a, b, c, d = memory[:n], memory[n : 2 * n], memory[2 * n : 3 * n], memory[3 * n : 4 * n]
    for i in range(n):
        total += (a[i] + b[i]) + (c[i] + d[i])
    return total


def floor(size: Size, precision: Precision) -> Row:
    """One warm, vectorised read of as many bytes as a step's weights and cache."""
    engine = StreamEngine(random_checkpoint(size), precision)
    stack, cache = engine.weights.stack, engine.stepper.cache
    weights = sum(rows.weight.nbytes for rows in (stack.qkv, stack.out, stack.up, stack.down))
    n_bytes = weights + cache.k.nbytes + cache.v.nbytes
    memory = np.ones(n_bytes // 4, np.float32)
    row = Row(f"{FLOOR}: read {n_bytes / 1e6:.1f} MB", asdict(size), lambda: _read(memory), _per_turn(size))
    row.note = f"weights {precision}"
    return row


@jit
def _ingest(counts, rows, constant, token):
    for t in range(len(counts)):
        kernel.ingest(counts[t], rows, constant, token)


def ingest(size: Size, bins: int = 1000) -> Row:
    """Counts to spike token alone. Many bins a call, so that it is not the call that is timed: its ms are us a bin."""
    weights = StreamEngine(random_checkpoint(replace(size, layers=1))).weights
    counts = np.stack([t.counts for t in tokens(size, bins)])
    token = np.zeros(size.width, np.float32)
    return Row(
        f"{INGEST}, {bins} bins", asdict(size), lambda: _ingest(counts, weights.rows, weights.constants[0], token), 4
    )


def take_turns(rows: list[Row], seconds: float) -> None:
    """Time every row a little at a time, in turn, until the time is over.

    Each turn begins with calls that are not timed, up to as many as are: another contender has filled the processor's
    caches with its own, and it takes a step that reads 12 MB some 20 calls to find its own there (on an AMD EPYC:
    0.97 ms at first, 0.47 at the 7th call, 0.41 at the 16th, 0.38 at the 40th). Cold caches are what `paced` times.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for row in rows:
            for _ in range(min(UNTIMED, row.per_turn)):
                row.call()
            for _ in range(row.per_turn):
                row.took.append(timed(row.call))


def paced(row: Row, n: int) -> Row:
    """The same call once every 20 ms, as on the rig: caches and clocks have cooled down between."""
    return Row(f"{row.name}, paced at 50 Hz", row.size, row.call, 1, timing.paced(row.call, n))


def headline(rows: list[Row]) -> dict[str, float]:
    """Ratios of medians within this run, at 5 layers, width 256, 449 units, 3 queries, band 100."""
    median = {row.name: float(np.median(row.took)) for row in rows if row.took}
    ours = next(row for row in rows if row.name == STEP)
    best = min(v for k, v in median.items() if k.startswith("full forward"))
    read = next(v for k, v in median.items() if k.startswith(FLOOR))
    return {
        "p50_ms": round(median[ours.name], 4),
        "p99_ms": round(float(np.percentile(ours.took, 99)), 4),
        "speedup_vs_best_full_forward": round(best / median[ours.name], 2),
        "speedup_vs_torch_kv": round(median["stream-torch-cpu"] / median[ours.name], 2),
        "ratio_to_floor": round(median[ours.name] / read, 2),
    }


def missed(top: dict[str, float]) -> list[str]:
    """A line for each ratio of the headline that misses its gate."""
    out = []
    for name, bound in GATE.items():
        ratio, most = top[name], name == "ratio_to_floor"
        if not (ratio <= bound if most else ratio >= bound):
            out.append(f"{name} is {ratio}: the gate is {bound:g} {'at most' if most else 'or more'}")
    return out


@torch.inference_mode()
def run(quick: bool) -> dict[str, Any]:
    """All rows, the headline, and whether it passes the gate."""
    torch.set_num_threads(1)
    size = Size()
    with system.pinned() as pinned:
        rows, errors, top = headline_rows(size, quick)
        if not quick:
            deep, deeper = deep_rows(replace(size, layers=22))
            rows, errors = rows + deep, errors | {f"{name}, 22 layers": error for name, error in deeper.items()}
        swept = [] if quick else [row.json() for row in sweep(size, FACTORS, 60.0)]
    misses = missed(top)
    gpu = None
    if torch.cuda.is_available() and not quick:
        gpu = kernels_gpu.run(quick=False, device=torch.device("cuda"))
    return {
        "created": timing.now(),
        "command": " ".join(["neds-rt", *sys.argv[1:]]),
        "machine": machine.describe(),
        "pinned": pinned,
        "quick": quick,
        "untimed_calls_per_turn": UNTIMED,
        "max_abs_vs_offline": {name: float(f"{error:.2e}") for name, error in errors.items()},
        "headline_size": asdict(size),
        "headline": top,
        "gate": {"passed": not misses, "missed": misses},
        "rows": [row.json() for row in rows],
        "sweep": swept,
        "slopes": slopes(swept, asdict(size)) if swept else {},
        "gpu": gpu,
    }


def headline_rows(size: Size, quick: bool) -> tuple[list[Row], dict[str, float], dict[str, float]]:
    """Every contender at the headline's size, their errors, and the headline; paced rows last."""
    ours, errors = steps(size, PRECISIONS, torch_step=True)
    rows = [*ours, floor(size, "float32"), *full_forwards(size.layers, quick)]
    take_turns(rows, 12.0 if quick else 60.0)
    often = [paced(ours[0], 200)] if quick else [paced(row, 1000) for row in ours[: len(PRECISIONS)]]
    return [*rows, *often], errors, headline(rows)


def deep_rows(size: Size) -> tuple[list[Row], dict[str, float]]:
    """The same contenders through as many layers as the larger published model has, and their errors."""
    ours, errors = steps(size, PRECISIONS, torch_step=True)
    rows = [*ours, floor(size, "float32"), floor(size, "int8"), *full_forwards(size.layers, quick=False)]
    take_turns(rows, 90.0)
    return [*rows, *(paced(row, 500) for row in ours[: len(PRECISIONS)])], errors


def sweep(around: Size, factors: dict[str, tuple[int, ...]], seconds: float) -> list[Row]:
    """One factor at a time around a size, in turns."""
    rows = [row for size in sizes(around, factors) for row in steps(size, ("float32",), torch_step=False)[0]]
    rows += [ingest(size) for size in sizes(around, factors, INGEST)]
    rows += [floor(size, "float32") for size in sizes(around, factors, FLOOR)]
    take_turns(rows, seconds)
    return rows


def lines(result: dict[str, Any]) -> list[str]:
    """The rows in words."""
    out = [f"{'ms':60} {'layers':>6} {'n':>6} {'p50':>9} {'p99':>9} {'p99.9':>9} {'max':>9}"]
    for row in [*result["rows"], *result["sweep"]]:
        if row["ms"]:
            times = " ".join(f"{row['ms'][p]:9.3f}" for p in ("p50", "p99", "p99.9", "max"))
            size = " U {units} D {width} W {band} spikes {spikes}".format(**row) if "units" in row else ""
            out.append(f"{row['name'] + size:60} {row['layers']:6} {row['n']:6} {times}")
        else:
            out.append(f"{row['name']}: {row['note']}")
    top = result["headline"]
    out.append(
        f"headline: {top['p50_ms']} ms; {top['speedup_vs_best_full_forward']}x the best full forward, "
        f"{top['speedup_vs_torch_kv']}x the torch step, {top['ratio_to_floor']}x the floor"
    )
    for name, found in result["slopes"].items():
        each = ", ".join(f"{factor} {slope:.2f}" for factor, slope in found.items())
        out.append(f"{name}, slope of log p50 against the log of each factor (1 = linear, 0 = no dependence): {each}")
    if result["gpu"]:
        out += kernels_gpu.lines(result["gpu"])
    elif not result["quick"]:
        out.append("no GPU here: nothing is said of one")
    return out + result["gate"]["missed"]
