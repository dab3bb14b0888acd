"""What a training step costs, beside the plain torch modules it is made of.

Sizes of the published single-session model: 5 modalities of 100 bins = 500 tokens, batch 16, width 256,
8 heads, MLP 512, 5 layers (Zhang et al. 2025, App. C). "full" is the published pattern with the published
tokenizers, "causal" the streaming one with unit rows; longer windows come in smaller batches, so that every
step sees as many bins. "plain" is nn.TransformerEncoder on as many tokens with the same kind of tokenizers,
linear read-outs and AdamW, full attention at 100 bins and a dense band mask beyond: no masks, no unit dropout,
no averaging, no schedule, its batch already in memory. NEDS is the whole training step, drawing its windows
and masks included. Dropout is off in both. Every row is a process of its own, and they take turns step by step.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import machine
from benchmarks.cost.train_contenders import SPECS, Contender, Pattern, config, neds, plain, source
from neds_core.model.attention import Attention, rotary, rotate
from neds_core.train import loop, sources

# float32 sums over up to 500 keys and 5 layers, taken in another order, relative to the largest output
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Row:
    """Cost of one training step of `batch` windows of `bins` bins; memory is what the steps add to the process."""

    model: str
    bins: int
    tokens: int
    batch: int
    parameters: int
    step_ms: float  # median
    cpu_ms: float  # median CPU time of the process: what is left of step_ms on a machine without other work
    draw_ms: float  # of that, drawing windows and masks; 0 for the plain modules
    samples_per_s: float
    cpu_ms_per_bin: float
    peak_mib: float


def peak_mib(device: str) -> float:
    """Largest memory so far: of the GPU, or of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # the high-water mark of this process alone; ru_maxrss starts from its parent's
        return next(int(x.split()[1]) for x in status.read_text().splitlines() if x.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def clock(device: str) -> tuple[float, float]:
    """Seconds by the wall and of this process's CPU time, once the device is done with what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def serve(pipe: Connection, one: Contender, steps: int, device: str, threads: int) -> None:
    """A contender's process: says what it is, takes a step each time it is told to, then says what memory it took."""
    torch.set_num_threads(threads)
    run, parameters, draw_s = (plain if one.model == "plain" else neds)(one, steps, device)
    before = peak_mib(device)
    pipe.send((parameters, draw_s))
    pipe.recv()
    began = clock(device)

    def done(_: object) -> None:
        nonlocal began
        now = clock(device)
        pipe.send((now[0] - began[0], now[1] - began[1]))
        pipe.recv()
        began = clock(device)

    run(done)
    pipe.send(peak_mib(device) - before)


def take_turns(contenders: list[Contender], steps: int, device: str, threads: int) -> tuple[list[Row], np.ndarray]:
    """A row for each contender, and the CPU seconds of every step but the first (contenders, steps - 1)."""
    context = multiprocessing.get_context("spawn")
    pipes = []
    for one in contenders:
        ours, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, one, steps, device, threads), daemon=True).start()
        pipes.append((ours, *ours.recv()))
    took = np.empty((len(contenders), steps, 2))
    for turn in range(steps):
        for c, (pipe, *_) in enumerate(pipes):
            pipe.send(None)
            took[c, turn] = pipe.recv()
    took = took[:, 1:]  # the first also makes the optimiser's state
    rows = []
    for one, (pipe, parameters, draw_s), each in zip(contenders, pipes, took, strict=True):
        pipe.send(None)
        step, cpu = np.median(each, axis=0).tolist()
        size = one.bins, one.bins * (1 + len(SPECS)), one.batch, parameters
        cost = step * 1e3, cpu * 1e3, draw_s * 1e3, one.batch / step, cpu * 1e3 / one.batch / one.bins, pipe.recv()
        rows.append(Row(f"{one.model} {one.pattern}", *size, *cost))
    return rows, took[..., 1]


def dense(q: Tensor, k: Tensor, v: Tensor, *, position: Tensor, hidden: Tensor, band: int, n_sinks: int) -> Tensor:
    """`neds_core.model.attention.attention` with one dense mask over all scores."""
    table = rotary(position[n_sinks:], q.shape[-1])
    queries = torch.cat([q[:, :, :n_sinks], rotate(q[:, :, n_sinks:], table)], 2)
    keys = torch.cat([k[:, :, :n_sinks], rotate(k[:, :, n_sinks:], table)], 2)
    score = torch.cat([q @ k[:, :, :n_sinks].mT, queries @ keys[:, :, n_sinks:].mT], -1) * q.shape[-1] ** -0.5
    age = position[:, None] - position[None]
    shown = ((age >= 0) & (age < band))[None] & ~hidden[:, None]
    shown[:, :, :n_sinks] = True
    shown[:, :n_sinks, n_sinks:] = False
    return score.masked_fill(~shown[:, None], float("-inf")).softmax(-1) @ v


def dense_full(q: Tensor, k: Tensor, v: Tensor, *, position: Tensor, hidden: Tensor, band: int, n_sinks: int) -> Tensor:
    """`neds_core.model.attention.Full` with all scores written out."""
    table = rotary(position, q.shape[-1])
    score = rotate(q, table) @ rotate(k, table).mT * q.shape[-1] ** -0.5
    return score.masked_fill(hidden[:, None, None], float("-inf")).softmax(-1) @ v


def gate(pattern: Pattern, bins: int) -> float:
    """Largest difference of the step's outputs from the dense evaluation, relative to the largest output."""
    settings = config(pattern, bins, 2, "cpu")
    found = source(pattern, bins)
    model = sources.build(settings, (found,), 0).eval()
    (piece,) = loop.Training(loop.Plan(settings, (found,), 0)).sampler.pieces(0)
    ways: tuple[Attention, Attention] = (model.pattern(), dense_full if pattern == "full" else dense)
    with torch.no_grad():
        ours, theirs = (model(piece.batch, piece.hidden, piece.keep, attend) for attend in ways)
    return max(float((ours[n] - theirs[n]).abs().max() / theirs[n].abs().max()) for n in ours)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows, the machine they were measured on, the correctness they rest on, and ratios of CPU time a bin."""

    machine: dict[str, Any]
    gate: bool
    gate_error: float
    rows: list[Row]
    ratios: dict[str, float]


def ratios(contenders: list[Contender], cpu: np.ndarray) -> dict[str, float]:
    """Medians over turns of what two contenders took for the same number of bins in the same turn."""
    took = {(c.model, c.pattern, c.bins): row for c, row in zip(contenders, cpu, strict=True)}
    pairs = {
        "full 100 / plain": (("neds", "full", 100), ("plain", "full", 100)),
        **{f"causal {t} / plain": (("neds", "causal", t), ("plain", "causal", t)) for t in (100, 200)},
        **{f"causal {t} / full 100": (("neds", "causal", t), ("neds", "full", 100)) for t in (100, 200, 400)},
        "causal 200 / causal 100": (("neds", "causal", 200), ("neds", "causal", 100)),
        "causal 400 / causal 200": (("neds", "causal", 400), ("neds", "causal", 200)),
    }
    return {name: float(np.median(took[a] / took[b])) for name, (a, b) in pairs.items()}


def run(quick: bool, device: str = "cpu", threads: int = 1) -> Table:
    """Gate, then all contenders in turn. Quick: a quarter of the batch and 3 steps instead of 4."""
    torch.set_num_threads(threads)
    error = max(gate("full", 100), gate("causal", 100), gate("causal", 200))
    windows, steps = (4, 3) if quick else (16, 4)
    pairs: list[tuple[Pattern, int]] = [("full", 100), ("causal", 100), ("causal", 200)]
    contenders = [Contender(model, p, bins, windows * 100 // bins) for p, bins in pairs for model in ("neds", "plain")]
    contenders.append(Contender("neds", "causal", 400, windows * 100 // 400))  # plain there: dense, 4 times the work
    where = machine.describe() | {"threads": threads}
    if device == "cuda":
        where["gpu"] = torch.cuda.get_device_name()
    if not error <= TOLERANCE:
        return Table(where, False, error, [], {})
    rows, cpu = take_turns(contenders, steps, device, threads)
    return Table(where, True, error, rows, ratios(contenders, cpu))


def lines(result: Table) -> list[str]:
    """The table as text."""
    head = f"{'model':13} {'bins':>5} {'tokens':>6} {'batch':>5} {'step ms':>9} {'cpu ms':>9} {'draw ms':>8}"
    out = [f"{head} {'samples/s':>9} {'cpu/bin':>7} {'MiB':>6}"]
    for r in result.rows:
        out.append(
            f"{r.model:13} {r.bins:5} {r.tokens:6} {r.batch:5} {r.step_ms:9.1f} {r.cpu_ms:9.1f} {r.draw_ms:8.1f} "
            f"{r.samples_per_s:9.2f} {r.cpu_ms_per_bin:7.3f} {r.peak_mib:6.0f}"
        )
    out += [f"CPU time a bin, {name}: {value:.2f}" for name, value in result.ratios.items()]
    if not result.gate:
        out.append(f"outputs differ from the dense evaluation by {result.gate_error:.1e}; nothing was timed")
    return out
