"""A step every 20 ms, when others have filled the caches: what helps shortly before it, and what that costs.

`neds-rt bench kernels --cold [--quick] [--json] [--out FILE.json]`. The arms take turns in random order, step by step,
at the scheduling of a run and not pinned, so that a busy machine slows them alike. Random weights.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cost import timing
from benchmarks.cost.full_forward import WrongError
from benchmarks.cost.kernel_sweep import Size
from benchmarks.cost.kernels import PRECISIONS, UNTIMED
from benchmarks.cost.random_models import random_checkpoint, tokens
from benchmarks.cost.timing import BIN_NS, timed
from kernels.cpu.touch import parts, touch
from runtime.core.values import Token
from runtime.engines.memory import memory
from runtime.engines.stream import StreamEngine
from runtime.io import system
from runtime.live.warming import SPARE_NS, Warming

ROUNDS, QUICK_ROUNDS = 900, 50
LEAD_NS, AWAKE_NS = 3_000_000, 1_500_000  # when an arm begins, and when a thread that stays awake does
EVERY, TIMED = 10, 30  # rounds between two blocks of steps back to back, and steps of a block
LATENCY = Path("/dev/cpu_dma_latency")  # a process that holds it open at 0 keeps the cores out of deep idle
PLAIN, WARM = "nothing", "rehearsed as in a run"
GOAL = 1.5  # times a step back to back, at p50
now = time.perf_counter_ns
Before = Callable[[int], None]  # what is done for an edge (ns) before it


@dataclass(slots=True)
class Arm:
    """One way to come to a step, and how long steps (ms) and the whole of each bin (ns of CPU time) took."""

    name: str
    engine: StreamEngine
    before: Before
    took: list[float] = field(default_factory=list)
    cpu_ns: list[int] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        share = round(100 * float(np.mean(self.cpu_ns)) / BIN_NS, 2) if self.cpu_ns else None
        found = {"name": self.name, "engine": self.engine.name, "n": len(self.took)}
        return found | {"ms": timing.percentiles(self.took), "cpu_percent": share}


def sleep(until_ns: int) -> None:
    """Wait as a loop without spikes does."""
    time.sleep(max(0.0, (until_ns - now()) * 1e-9))


def rehearse(engine: StreamEngine, times: int = 1) -> None:
    """A step that nobody reads, so many times."""
    for _ in range(times):
        engine.rehearse()


def early(work: Callable[[], object], lead_ns: int = LEAD_NS) -> Before:
    """Do something some time before the edge."""

    def before(edge_ns: int) -> None:
        sleep(edge_ns - lead_ns)
        work()

    return before


def awake(edge_ns: int) -> None:
    """Do not sleep at the end."""
    sleep(edge_ns - AWAKE_NS)
    while now() < edge_ns:
        pass


def as_in_a_run(engine: StreamEngine) -> Before:
    """What the loop does."""
    warming = Warming(engine, BIN_NS, now, lambda: False)

    def before(edge_ns: int) -> None:
        sleep(warming.due_ns(edge_ns, engine, now()))
        warming.prepare()

    return before


def not_idle(edge_ns: int) -> None:
    """Hold the cores out of deep idle until the edge."""
    held = os.open(LATENCY, os.O_WRONLY)
    os.write(held, (0).to_bytes(4, "little"))
    sleep(edge_ns)
    os.close(held)


def arms(made: dict[str, StreamEngine]) -> list[Arm]:
    """All ways; that by `LATENCY` only where it may be opened."""
    plain = made["float32"]
    once = [part for array in memory(plain) for part in parts(array)]

    def read(times: int) -> None:
        for part in once * times:
            touch(part)

    found = [
        Arm(PLAIN, plain, sleep),
        Arm("awake for the last 1.5 ms", plain, awake),
        Arm("read once", plain, early(lambda: read(1))),
        Arm("read twice", plain, early(lambda: read(2))),
        Arm("rehearsed once", plain, early(lambda: rehearse(plain))),
        Arm("rehearsed twice", plain, early(lambda: rehearse(plain, 2))),
        Arm(WARM, plain, as_in_a_run(plain)),
    ]
    with suppress(OSError):
        os.close(os.open(LATENCY, os.O_WRONLY))
        found.append(Arm("no deep idle (cpu_dma_latency)", plain, not_idle))
    for name, engine in made.items():
        if engine is not plain:
            found += [Arm(f"{name}: {PLAIN}", engine, sleep), Arm(f"{name}: {WARM}", engine, as_in_a_run(engine))]
    return found


def held(made: dict[str, StreamEngine], told: list[Token]) -> None:
    """Raise `WrongError` where what comes before a step changes one bit of what it says."""
    edge_ns = [0]
    for name, engine in made.items():
        warming, values = Warming(engine, BIN_NS, lambda: edge_ns[0] - SPARE_NS, lambda: False), []
        for between in (lambda: None, warming.prepare, lambda one=engine: rehearse(one)):
            engine.reset()
            said = []
            for token in told:
                edge_ns[0] += BIN_NS
                warming.due_ns(edge_ns[0], engine, 0)
                between()
                said.append(engine.step(token).copy())
            values.append(np.stack(said))
        if not all(np.array_equal(values[0], other) for other in values[1:]):
            raise WrongError(f"{name}: a step says something else after what came before it: it is wrong")


def measure(rounds: int, size: Size) -> dict[str, Any]:
    """All arms, and steps back to back between them."""
    told = tokens(size, 2 * size.band + 7)
    for i in range(0, len(told), 9):
        told[i] = Token(i, 0, told[i].counts, valid=False)  # whose bin writes no key
    made = {name: StreamEngine(random_checkpoint(size), name) for name in PRECISIONS}
    held(made, told)
    found, close = arms(made), {name: list[float]() for name in made}
    rng, at, edge_ns = np.random.default_rng(0), 0, now() + BIN_NS
    for turn in range(rounds):
        for i in rng.permutation(len(found)):
            _one(found[i], told[at % len(told)], edge_ns)
            at, edge_ns = at + 1, edge_ns + BIN_NS
            if now() > edge_ns - BIN_NS // 2:  # this machine stood still
                edge_ns = now() + BIN_NS
        if turn % EVERY == 0:
            for name, engine in made.items():
                close[name] += _close(engine, told)
            edge_ns = now() + BIN_NS
    return {"rows": [arm.json() for arm in found], "back_to_back": {k: timing.percentiles(v) for k, v in close.items()}}


def _one(arm: Arm, token: Token, edge_ns: int) -> None:
    began = time.thread_time_ns()
    arm.before(edge_ns)
    sleep(edge_ns)
    arm.took.append(timed(lambda: arm.engine.step(token)))
    arm.cpu_ns.append(time.thread_time_ns() - began)


def _close(engine: StreamEngine, told: list[Token]) -> list[float]:
    for token in told[:UNTIMED]:
        engine.step(token)
    return [timed(lambda token=token: engine.step(token)) for token in told[:TIMED]]


@torch.inference_mode()
def run(quick: bool = False, size: Size | None = None, rounds: int = 0) -> dict[str, Any]:
    """What was measured of all arms. Raises `WrongError` where one changes what a step says."""
    size = size or Size()
    torch.set_num_threads(1)
    scheduling = system.raise_priority()
    try:
        found = measure(rounds or (QUICK_ROUNDS if quick else ROUNDS), size)
    finally:
        system.lower_priority()
    median = {row["name"]: row["ms"]["p50"] for row in found["rows"]}
    close = found["back_to_back"]["float32"]["p50"]
    times = {name: round(median[name] / close, 2) for name in (PLAIN, WARM)}
    said = {"scheduling": scheduling, "size": asdict(size), "times_back_to_back": times, "goal": GOAL}
    return said | found


def lines(result: dict[str, Any]) -> list[str]:
    """A table in Markdown, and how the goal stands."""
    out = [
        "| before a step | p50 | p99 | p99.9 | max | n | CPU, % of a core |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows = [
        {"name": f"back to back, {k}", "n": "", "ms": v, "cpu_percent": ""} for k, v in result["back_to_back"].items()
    ]
    for row in [*rows, *result["rows"]]:
        times = " | ".join(f"{row['ms'][p]:.3f}" for p in ("p50", "p99", "p99.9", "max"))
        out.append(f"| {row['name']} | {times} | {row['n']} | {row['cpu_percent']} |")
    times = result["times_back_to_back"]
    return [*out, f"paced by back to back at p50: {times[PLAIN]}, {WARM} {times[WARM]}, goal {result['goal']}"]
