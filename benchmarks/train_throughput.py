"""What a training step costs, beside the plain torch modules it is made of.

Sizes of the published single-session model: 5 modalities of 100 bins = 500 tokens, batch 16, width 256,
8 heads, MLP 512, 5 layers (Zhang et al. 2025, App. C). "plain" is nn.TransformerEncoder on as many tokens
with linear tokenizers and read-outs and AdamW, full attention at 100 bins and a dense band mask beyond:
no masks, no unit dropout, no averaging, no schedule, its batch already in memory. NEDS is the whole
training step, drawing its windows and masks included. Dropout is off in both; every row is a process of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from neds_core import scalers, sources, train
from neds_core.attention import attention, rotary, rotate
from neds_core.config import FitConfig, ModelConfig, TrainConfig
from neds_core.session import BehaviourSpec, Session, UnitTable
from neds_core.sources import Source

UNITS, SEGMENTS, BAND = 370, 40, 100  # 370: mean units of a session in the published data
SPECS = (
    BehaviourSpec("wheel_speed", "continuous", "rad/s", "unsigned"),
    BehaviourSpec("whisker_motion_energy", "continuous"),
    BehaviourSpec("choice", "class", classes=("left", "right")),
    BehaviourSpec("block", "class", classes=("left", "none", "right")),
)
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


def config(bins: int, batch: int, device: str) -> TrainConfig:
    """The published sizes with causal attention."""
    size = ModelConfig(width=256, layers=5, heads=8, mlp_ratio=2, band=BAND, dropout=0.0, embed_dropout=0.0)
    fit = FitConfig(steps=1000, batch=batch, window_bins=bins, device="cuda" if device == "cuda" else "cpu")
    return TrainConfig("", tuple(s.name for s in SPECS), model=size, fit=fit)


def source(bins: int) -> Source:
    """A random session whose segments are longer than a window, so that most windows are whole."""
    rng = np.random.default_rng(0)
    n = SEGMENTS * 4 * bins
    edges = np.arange(SEGMENTS + 1, dtype=np.int64) * 4 * bins
    values: dict[str, np.ndarray] = {s.name: rng.normal(size=n).astype(np.float32) for s in SPECS[:2]}
    for spec in SPECS[2:]:
        values[spec.name] = rng.integers(0, len(spec.classes), SEGMENTS).repeat(4 * bins)
    session = Session(
        name="random",
        bin_ns=20_000_000,
        units=UnitTable(np.arange(UNITS), np.full(UNITS, "none"), np.full(UNITS, np.nan, np.float32)),
        counts=rng.poisson(0.2, (n, UNITS)).astype(np.uint8),
        valid=np.ones(n, bool),
        specs=SPECS,
        values=values,
        segments=np.stack([edges[:-1], edges[1:]], axis=1),
        segment_ids=np.arange(SEGMENTS),
    )
    return Source(session, None, scalers.fit(session, SPECS, 0.5))


class Plain(nn.Module):
    """The modules a NEDS step is made of, as torch ships them."""

    def __init__(self, size: ModelConfig, bins: int) -> None:
        super().__init__()
        self.spikes, self.rates = nn.Linear(UNITS, size.width), nn.Linear(size.width, UNITS)
        self.behaviour = nn.Linear(len(SPECS), len(SPECS) * size.width)
        self.heads = nn.Linear(size.width, 1)
        layer = nn.TransformerEncoderLayer(
            size.width, size.heads, size.mlp_ratio * size.width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, size.layers, nn.LayerNorm(size.width), enable_nested_tensor=False)
        bin_of = torch.arange(bins).repeat_interleave(1 + len(SPECS))
        age = bin_of[:, None] - bin_of[None]
        band = torch.zeros(age.shape).masked_fill((age < 0) | (age >= BAND), float("-inf"))
        self.register_buffer("band", None if bins <= BAND else band)

    def forward(self, counts: Tensor, values: Tensor) -> Tensor:
        """counts (B, T, U), values (B, T, M-1) to a loss."""
        tokens = torch.cat([self.spikes(counts)[:, :, None], self.behaviour(values).unflatten(2, (len(SPECS), -1))], 2)
        x = self.encoder(tokens.flatten(1, 2), mask=self.band).unflatten(1, tokens.shape[1:3])
        rate = self.rates(x[:, :, 0])
        return (rate.exp() - counts * rate).mean() + (self.heads(x[:, :, 1:])[..., 0] - values).square().mean()


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


Marks = list[tuple[float, float]]


def _row(name: str, bins: int, batch: int, parameters: int, marks: Marks, draw_s: float, mib: float) -> Row:
    step, cpu = np.median(np.diff(marks, axis=0)[1:], axis=0).tolist()  # the first also makes the optimiser's state
    tokens = bins * (1 + len(SPECS))
    each = (step * 1e3, cpu * 1e3, draw_s * 1e3, batch / step, cpu * 1e3 / batch / bins, mib)
    return Row(name, bins, tokens, batch, parameters, *each)


def measure_plain(bins: int, batch: int, steps: int, device: str) -> Row:
    """Median step of `Plain`."""
    torch.manual_seed(0)
    model = Plain(config(bins, batch, device).model, bins).to(device)
    counts = torch.poisson(torch.full((batch, bins, UNITS), 0.2)).to(device)
    values = torch.randn(batch, bins, len(SPECS)).to(device)
    optimiser = torch.optim.AdamW(model.parameters())
    before = peak_mib(device)
    marks = [clock(device)]
    for _ in range(steps + 1):
        optimiser.zero_grad()
        model(counts, values).backward()
        optimiser.step()
        marks.append(clock(device))
    n = sum(p.numel() for p in model.parameters())
    return _row("plain", bins, batch, n, marks, 0.0, peak_mib(device) - before)


def measure_neds(bins: int, batch: int, steps: int, device: str) -> Row:
    """Median step of a NEDS training, and of drawing its batches alone."""
    settings = config(bins, batch, device)
    training = train.Training(settings, (source(bins),), 0, steps + 1, world=train.World(device=torch.device(device)))
    training.sampler.pieces(0)
    began = time.process_time()
    for step in range(1, 4):
        training.sampler.pieces(step)
    draw_s = (time.process_time() - began) / 3
    before = peak_mib(device)
    marks = [clock(device)]
    training.run(lambda _: marks.append(clock(device)))
    n = sum(p.numel() for p in training.learner.model.parameters())
    return _row("neds causal", bins, batch, n, marks, draw_s, peak_mib(device) - before)


def dense(q: Tensor, k: Tensor, v: Tensor, *, position: Tensor, hidden: Tensor, band: int, n_sinks: int) -> Tensor:
    """`neds_core.attention.attention` with one dense mask: rotated and plain products side by side."""
    table = rotary(position[n_sinks:], q.shape[-1])
    queries = torch.cat([torch.cat([q[:, :, :n_sinks] * 0, rotate(q[:, :, n_sinks:], table)], 2), q], -1)
    turned = torch.cat([k[:, :, :n_sinks] * 0, rotate(k[:, :, n_sinks:], table)], 2)
    keys = torch.cat([turned, torch.cat([k[:, :, :n_sinks], k[:, :, n_sinks:] * 0], 2)], -1)
    age = position[:, None] - position[None]
    shown = ((age >= 0) & (age < band))[None] & ~hidden[:, None]
    shown[:, :, :n_sinks] = True
    shown[:, :n_sinks, n_sinks:] = False
    return nn.functional.scaled_dot_product_attention(
        queries, keys, v, attn_mask=shown[:, None], scale=q.shape[-1] ** -0.5
    )


def gate(bins: int) -> float:
    """Largest difference of the step's outputs from the dense evaluation, relative to the largest output."""
    settings = config(bins, 2, "cpu")
    found = source(bins)
    model = sources.build(settings, (found,), 0).eval()
    (piece,) = train.Training(settings, (found,), 0).sampler.pieces(0)
    with torch.no_grad():
        ours, theirs = (model(piece.batch, piece.hidden, piece.keep, attend) for attend in (attention, dense))
    return max(float((ours[n] - theirs[n]).abs().max() / theirs[n].abs().max()) for n in ours)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows, the machine they were measured on, and the correctness they rest on."""

    machine: dict[str, str | int | None]
    gate: bool
    gate_error: float
    rows: list[Row]


def run(quick: bool, device: str = "cpu", threads: int = 1) -> Table:
    """Gate, then every row in a process of its own. Quick: batch 2 and 2 steps instead of 16 and 5."""
    torch.set_num_threads(threads)
    error = max(gate(bins) for bins in (100, 200))
    batch, steps = (2, 2) if quick else (16, 5)
    rows: list[Row] = []
    if error <= TOLERANCE:
        context = multiprocessing.get_context("spawn")
        for bins in (100, 200, 400) if quick else (100, 200):
            for measure in (measure_plain, measure_neds):
                with ProcessPoolExecutor(1, context, torch.set_num_threads, (threads,)) as pool:
                    rows.append(pool.submit(measure, bins, batch, steps, device).result())
    where = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    machine = {"device": where, "cores": os.cpu_count(), "threads": threads, "torch": str(torch.__version__)}
    return Table(machine, error <= TOLERANCE, error, rows)


def lines(rows: list[Row]) -> list[str]:
    """The table as text."""
    head = f"{'model':12} {'bins':>5} {'tokens':>6} {'batch':>5} {'step ms':>9} {'cpu ms':>9} {'draw ms':>8}"
    out = [f"{head} {'samples/s':>9} {'cpu/bin':>7} {'MiB':>6}"]
    for r in rows:
        out.append(
            f"{r.model:12} {r.bins:5} {r.tokens:6} {r.batch:5} {r.step_ms:9.1f} {r.cpu_ms:9.1f} {r.draw_ms:8.1f} "
            f"{r.samples_per_s:9.2f} {r.cpu_ms_per_bin:7.3f} {r.peak_mib:6.0f}"
        )
    return out
