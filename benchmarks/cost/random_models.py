"""Models with random weights, and bins of random counts: cost does not depend on them."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import torch

from benchmarks.cost.full_forward import PAPER
from benchmarks.cost.kernel_sweep import Size
from benchmarks.cost.timing import BIN_NS
from neds_core.checkpoint import FORMAT, Checkpoint, Header, LinearHeader, Record
from neds_core.config import ModelConfig, TrainConfig
from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, UnitTable
from neds_core.linear.linear import Bank, Linear
from neds_core.model.model import NEDS
from runtime.core.values import Token

SPECS = (
    BehaviourSpec("wheel_speed", "continuous"),
    BehaviourSpec("whisker_motion_energy", "continuous"),
    BehaviourSpec("choice", "class", classes=("left", "right")),
)
PUBLISHED = (*SPECS, BehaviourSpec("block", "class", classes=("0.2", "0.5", "0.8")))  # with spikes: 5 tokens a bin


def random_checkpoint(size: Size, seed: int = 0, specs: tuple[BehaviourSpec, ...] = SPECS) -> Checkpoint:
    """A causal checkpoint of this size with weights of ordinary scale."""
    return _random(ModelConfig(width=size.width, layers=size.layers, heads=8, band=size.band), specs, size.units, seed)


def random_window(layers: int, units: int = 449) -> Checkpoint:
    """One of full attention at the published size: spikes and four behaviours (Zhang et al. 2025, Table 4)."""
    config = ModelConfig(
        attention="full", tokenizer="stitcher", width=PAPER["width"], layers=layers, heads=PAPER["heads"],
        mlp_ratio=PAPER["mlp_ratio"], window_bins=PAPER["tokens"] // 5,
    )  # fmt: skip
    return _random(config, PUBLISHED, units, 0)


def _random(config: ModelConfig, specs: tuple[BehaviourSpec, ...], n_units: int, seed: int) -> Checkpoint:
    torch.manual_seed(seed)
    model = NEDS(config, (n_units,), specs).eval().requires_grad_(False)
    for spec in specs:  # a fresh model says next to nothing, which would hide an error
        torch.nn.init.normal_(model.head(spec.name).weight, std=config.width**-0.5)
    units = UnitTable(np.arange(n_units), np.full(n_units, "?"), np.zeros(n_units, np.float32))
    names = [s.name for s in specs]
    header = Header(
        FORMAT, "random", BIN_NS, TrainConfig("none", tuple(names), model=config), specs, units.sha256,
        dict.fromkeys(names, 0.0), dict.fromkeys(names, 1.0), {}, {}, {},
        Record("", "", "", seed, 0, 0, 0, 0.0, 0.0, {}),
    )  # fmt: skip
    nothing = np.zeros(n_units, np.float32)
    return Checkpoint(header, model, units, Scalers(np.ones(n_units, bool), nothing, nothing, {}, {}, {}, {}), {})


def tokens(size: Size, n: int, seed: int = 0) -> list[Token]:
    """Bins of Poisson counts: most are 0."""
    counts = np.random.default_rng(seed).poisson(size.spikes / size.units, (n, size.units)).astype(np.uint16)
    return [Token(i, 0, c, valid=True) for i, c in enumerate(counts)]


def for_a_run(size: Size, bin_ns: int = BIN_NS, specs: tuple[BehaviourSpec, ...] = SPECS) -> Checkpoint:
    """`random_checkpoint` with what a file needs beside the network: class shares, and linear decoders of zeros."""
    made = random_checkpoint(size, specs=specs)
    bank, linear = Bank(lags=1), {}
    for spec in made.specs:
        shape = bank.n_features(size.units), max(1, len(spec.classes))
        linear[spec.name] = Linear(bank, 1.0, np.zeros(shape, np.float32), np.zeros(shape[1], np.float32))
    header = msgspec.structs.replace(
        made.header,
        bin_ns=bin_ns,
        prior={s.name: [1.0 / len(s.classes)] * len(s.classes) for s in made.specs if s.kind == "class"},
        linear={name: LinearHeader(one.bank, one.penalty) for name, one in linear.items()},
        blend=dict.fromkeys(linear, 1.0),
    )
    return replace(made, header=header, linear=linear)
