"""A gated recurrent unit (Cho et al. 2014) from spikes to behaviour: the plain causal network."""

from __future__ import annotations

from itertools import product
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.accuracy.peers import sequence
from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, Task, parameters_of
from neds_core.data.session import Session

QUICK_STEPS = 200


class Recurrent(nn.Module):
    """Inputs, one GRU layer, linear read-out; an invalid bin enters as the mean."""

    def __init__(self, task: Task, setting: Setting) -> None:
        super().__init__()
        width = setting["width"]
        self.inputs = sequence.Inputs(task, width, setting["dropout"])
        self.gru = nn.GRU(width, width, batch_first=True)
        self.dropout = nn.Dropout(setting["dropout"])
        self.read = nn.Linear(width, len(task.specs))

    def forward(self, counts: Tensor, valid: Tensor) -> Tensor:
        return self.step(counts, valid, None)[0]

    def step(self, counts: Tensor, valid: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs (B, T, V) and the state after them."""
        x, state = self.gru(self.inputs(counts) * valid[..., None], state)
        return self.read(self.dropout(x)), cast(Tensor, state)


def grid() -> list[Setting]:
    """Widths and rates of unit dropout."""
    common = {"weight_decay": 0.1, "dropout": 0.3, "learning_rate": 3e-3, "steps": 400}
    return [{**common, "width": width, "unit_dropout": drop} for width, drop in product((64, 128), (0.3, 0.5))]


def search(task: Task) -> tuple[Setting, str]:
    """Size and regularisation on the rolling origins; quick: none, and a short training."""
    settings = grid()
    if task.quick:
        return {**settings[0], "steps": QUICK_STEPS, "stop": QUICK_STEPS}, "nothing (quick)"

    def build_of(setting: Setting, before: Session, seed: int) -> sequence.Build:
        return lambda: Recurrent(task, setting)

    return sequence.search(task, settings, build_of), f"{len(settings)} settings on rolling origins"


def fit(task: Task, setting: Setting, seed: int) -> Fitted:
    """One seed on training + validation, stopped where the origins were best."""
    network, _, _ = sequence.train(
        lambda: Recurrent(task, setting), task, setting, task.parts.development, None, seed, setting["stop"]
    )
    state: list[Tensor | None] = [None]
    valid = torch.ones(1, 1, dtype=torch.bool)

    @torch.inference_mode()
    def step(counts: np.ndarray, clock: int) -> object:
        given = torch.from_numpy(counts.astype(np.float32))[None, None]
        value, state[0] = cast(Recurrent, network).step(given, valid, state[0])
        return value

    n_parameters = parameters_of(network)
    return Fitted(sequence.predictor(task, network), n_parameters, step)


GRU = Peer("GRU", search, fit, seeds=3)
