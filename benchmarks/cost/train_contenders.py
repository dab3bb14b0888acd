"""What `neds-rt bench train` measures: trainings of NEDS at the published sizes, and plain torch beside them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from neds_core.config import FitConfig, ModelConfig, TrainConfig
from neds_core.data import scalers
from neds_core.data.session import BehaviourSpec, Session, UnitTable
from neds_core.train import loop
from neds_core.train.sources import Source

UNITS, TRIALS, BAND = 370, 160, 100  # 370: mean units of a session in the published data
SPECS = (
    BehaviourSpec("wheel_speed", "continuous", "rad/s", "unsigned"),
    BehaviourSpec("whisker_motion_energy", "continuous"),
    BehaviourSpec("choice", "class", classes=("left", "right")),
    BehaviourSpec("block", "class", classes=("left", "none", "right")),
)
Pattern = Literal["full", "causal"]


@dataclass(frozen=True, slots=True)
class Contender:
    """Whose training step is measured, on how much."""

    model: Literal["neds", "plain"]
    pattern: Pattern
    bins: int
    batch: int


def config(pattern: Pattern, bins: int, batch: int, device: str) -> TrainConfig:
    """The published sizes."""
    tokenizer = "stitcher" if pattern == "full" else "rows"
    size = ModelConfig(
        pattern, tokenizer, width=256, layers=5, heads=8, mlp_ratio=2, band=BAND, window_bins=bins, dropout=0.0,
        embed_dropout=0.0,
    )  # fmt: skip
    fit = FitConfig(steps=1000, batch=batch, window_bins=bins, device="cuda" if device == "cuda" else "cpu")
    return TrainConfig("", tuple(s.name for s in SPECS), model=size, fit=fit)


def source(pattern: Pattern, bins: int) -> Source:
    """A random session. Its segments are windows for full attention; for causal longer: most windows are whole."""
    rng = np.random.default_rng(0)
    length = bins if pattern == "full" else 4 * bins
    n = TRIALS * bins
    edges = np.arange(0, n + 1, length, dtype=np.int64)
    values: dict[str, np.ndarray] = {s.name: rng.normal(size=n).astype(np.float32) for s in SPECS[:2]}
    for spec in SPECS[2:]:
        values[spec.name] = rng.integers(0, len(spec.classes), len(edges) - 1).repeat(length)
    session = Session(
        name="random",
        bin_ns=20_000_000,
        units=UnitTable(np.arange(UNITS), np.full(UNITS, "none"), np.full(UNITS, np.nan, np.float32)),
        counts=rng.poisson(0.2, (n, UNITS)).astype(np.uint8),
        valid=np.ones(n, bool),
        specs=SPECS,
        values=values,
        segments=np.stack([edges[:-1], edges[1:]], axis=1),
        segment_ids=np.arange(len(edges) - 1),
    )
    return Source(session, None, scalers.fit(session, SPECS, 0.5))


def stitcher(inputs: int, inner: int, width: int) -> nn.Module:
    """The published tokenizer."""
    return nn.Sequential(nn.Linear(inputs, inner), nn.Softsign(), nn.Linear(inner, width))


class Plain(nn.Module):
    """The modules a NEDS step is made of, as torch ships them."""

    def __init__(self, size: ModelConfig, bins: int) -> None:
        super().__init__()
        published = size.tokenizer == "stitcher"
        self.spikes = stitcher(UNITS, 2 * UNITS, size.width) if published else nn.Linear(UNITS, size.width)
        self.behaviour = nn.ModuleList(
            stitcher(1, 2, size.width) if published else nn.Linear(1, size.width) for _ in SPECS
        )
        self.rates, self.heads = nn.Linear(size.width, UNITS), nn.Linear(size.width, 1)
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
        shown = [self.spikes(counts), *(layer(values[..., m, None]) for m, layer in enumerate(self.behaviour))]
        tokens = torch.stack(shown, 2)
        x = self.encoder(tokens.flatten(1, 2), mask=self.band).unflatten(1, tokens.shape[1:3])
        rate = self.rates(x[:, :, 0])
        return (rate.exp() - counts * rate).mean() + (self.heads(x[:, :, 1:])[..., 0] - values).square().mean()


Done = Callable[[object], None]
Run = Callable[[Done], object]  # takes all its steps and says after each that it is done


def plain(one: Contender, steps: int, device: str) -> tuple[Run, int, float]:
    """Steps of `Plain`, its parameters, and 0 s for drawing."""
    torch.manual_seed(0)
    model = Plain(config(one.pattern, one.bins, one.batch, device).model, one.bins).to(device)
    counts = torch.poisson(torch.full((one.batch, one.bins, UNITS), 0.2)).to(device)
    values = torch.randn(one.batch, one.bins, len(SPECS)).to(device)
    optimiser = torch.optim.AdamW(model.parameters())

    def run(done: Done) -> None:
        for _ in range(steps):
            optimiser.zero_grad()
            model(counts, values).backward()
            optimiser.step()
            done(None)

    return run, sum(p.numel() for p in model.parameters()), 0.0


def neds(one: Contender, steps: int, device: str) -> tuple[Run, int, float]:
    """A NEDS training, its parameters, and the CPU seconds that drawing a batch takes alone."""
    settings = config(one.pattern, one.bins, one.batch, device)
    world = loop.World(device=torch.device(device))
    training = loop.Training(loop.Plan(settings, (source(one.pattern, one.bins),), 0, steps, world=world))
    training.sampler.pieces(0)
    began = time.process_time()
    for step in range(1, 4):
        training.sampler.pieces(step)
    draw_s = (time.process_time() - began) / 3
    return training.run, sum(p.numel() for p in training.learner.model.parameters()), draw_s
