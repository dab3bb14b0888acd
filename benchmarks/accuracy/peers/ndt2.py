"""NDT2-style (Ye et al. 2023, Neural Data Transformer 2): masked spike modelling, then a causal decoder.

After NDT2's two stages, not its code or its published weights: the trunk is our own causal one
over whole-bin tokens (NDT2's are patches of channels, its encoder sees both sides), of the
sizes of the NEDS it stands beside, and the decoder is one more causal block.
"""

from __future__ import annotations

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from benchmarks.accuracy.peers import sequence
from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, Task, parameters_of
from neds_core.data.session import Session
from neds_core.model.banded import attention
from neds_core.model.model import NEDS, Block
from neds_core.train import losses, sources
from neds_core.train.optim import one_cycle
from neds_core.train.sources import Source
from neds_core.train.windows import Windows

QUICK_STEPS = 100


def pretrain(task: Task, setting: Setting, before: Session, seed: int) -> NEDS:
    """A spike-only NEDS that predicts the counts of randomly hidden bins from those before them."""
    config = replace(task.config, model=replace(task.config.model, clock_bins=0))
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    windows = Windows(before, (), task.scale)
    trunk = NEDS(config.model, (len(before.units),), ())
    sources.adopt(trunk, 0, Source(before, None, task.scale))
    kept = torch.from_numpy(task.scale.kept)
    optimiser, schedule = one_cycle(
        trunk.parameters(), setting["pretrain_rate"], setting["weight_decay"], setting["pretrain_steps"]
    )
    trunk.train()
    for _ in range(setting["pretrain_steps"]):
        batch, defined = windows.cut(sequence.spans(windows, rng, config.fit), clocked=False)
        hidden = rng.random(defined.shape) < setting["mask_ratio"]
        asked = torch.from_numpy(hidden & defined)[..., 0]
        keep = rng.random((len(defined), 1, batch.counts.shape[2])) >= setting["unit_dropout"]
        out = trunk(batch, torch.from_numpy(hidden | ~defined), torch.from_numpy(keep.astype(np.float32)))
        loss = losses.poisson(out["spikes"][asked], batch.counts[asked])[:, kept].mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trunk.parameters(), config.fit.clip_norm)
        optimiser.step()
        schedule.step()
    return trunk


class Decoder(nn.Module):
    """The pre-trained trunk over visible spikes, then one causal block and a linear read-out."""

    def __init__(self, task: Task, trunk: NEDS, frozen: bool) -> None:
        super().__init__()
        config = trunk.config
        self.trunk, self.frozen = trunk.requires_grad_(not frozen), frozen
        self.block = Block(config)
        self.norm = nn.LayerNorm(config.width)
        self.read = nn.Linear(config.width, len(task.specs))

    def forward(self, counts: Tensor, valid: Tensor) -> Tensor:
        if self.frozen:
            self.trunk.eval()
        n_batch, n_bins, _ = counts.shape
        trunk = self.trunk
        tokens = trunk.tokenizer()(counts) + trunk.modality[0]
        x = trunk.drop_token(torch.cat([trunk.sinks(0).expand(n_batch, -1, -1), tokens], dim=1))
        bins = torch.arange(n_bins)
        position = torch.cat([bins.new_zeros(trunk.n_sinks), bins])
        hidden = torch.cat([valid.new_zeros((n_batch, trunk.n_sinks)), ~valid], dim=1)
        for block in [*trunk.layers, self.block]:
            x = block(x, position, hidden, trunk.n_sinks, attention)
        return self.read(self.norm(x[:, trunk.n_sinks :]))


def grid(task: Task) -> list[Setting]:
    """Frozen or fine-tuned trunk."""
    common = {"weight_decay": 0.1, "mask_ratio": 0.3, "pretrain_rate": 2e-3, "learning_rate": 2e-3}
    common |= {"unit_dropout": task.config.model.unit_dropout, "pretrain_steps": 400, "steps": 400}
    return [{**common, "frozen": frozen} for frozen in (True, False)]


def build(task: Task, setting: Setting, before: Session, seed: int) -> sequence.Build:
    """Pre-train on `before`, and put a fresh decoder on the result."""
    trunk = pretrain(task, setting, before, seed)
    return lambda: Decoder(task, trunk, setting["frozen"])


def search(task: Task) -> tuple[Setting, str]:
    """Settings on the rolling origins, each pre-trained on what lies before it; quick: none, and a short training."""
    settings = grid(task)
    if task.quick:
        short = {"pretrain_steps": QUICK_STEPS, "steps": QUICK_STEPS, "stop": QUICK_STEPS}
        return {**settings[-1], **short}, "nothing (quick)"
    chosen = sequence.search(task, settings, lambda setting, before, seed: build(task, setting, before, seed))
    return chosen, f"{len(settings)} settings on rolling origins"


def fit(task: Task, setting: Setting, seed: int) -> Fitted:
    """One seed of both stages on training + validation."""
    part = task.parts.development
    made = build(task, setting, part, seed)
    network, _, _ = sequence.train(made, task, setting, part, None, seed, setting["stop"])
    n_parameters = parameters_of(network)
    return Fitted(sequence.predictor(task, network), n_parameters)


NDT2 = Peer("NDT2-style", search, fit, seeds=3)
