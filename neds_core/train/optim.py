"""What a step of training changes: weights, their running average, the optimiser and its schedule, by stages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from neds_core.config import FitConfig, StageConfig
from neds_core.model.model import NEDS


def role(name: str) -> str:
    """What a parameter belongs to: "units", "session", "heads" or "trunk" (see `StageConfig.trains`)."""
    if owner(name) is not None:
        return "units"
    first = name.split(".")[0]
    return first if first in ("session", "heads") else "trunk"


def owner(name: str) -> int | None:
    """The session that alone uses a parameter, or None; stitchers and their read-outs are a session's own."""
    first, *rest = name.split(".")
    if first in ("units", "rates"):
        return int(rest[0])
    return int(rest[1]) if first in ("behaviour", "heads") and rest[1].isdigit() else None


def one_cycle(
    parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float, steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.OneCycleLR]:
    """AdamW and its cosine one-cycle schedule of `steps` (Zhang et al. 2025, App. B); vectors do not decay."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, total_steps=steps, pct_start=0.15, div_factor=10
    )
    return optimiser, schedule


class Learner:
    """A model and everything that learns it. Stages follow each other; each has a fresh AdamW and one-cycle schedule.

    The running average of the weights is exponential.
    """

    def __init__(self, model: NEDS, config: FitConfig, stages: tuple[StageConfig, ...]) -> None:
        self.model, self.config, self.stages = model, config, stages
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
        self.step = 0
        if config.compile:
            for block in model.layers:
                block.compile()
        self._enter(0)

    @property
    def smooth(self) -> NEDS:
        """The model with the averaged weights."""
        return cast(NEDS, self.average.module)

    @property
    def in_last_stage(self) -> bool:
        """Only the last stage may be ended early."""
        return self.stage == len(self.stages) - 1

    def _enter(self, stage: int) -> None:
        """Freeze what the stage does not train; fresh optimiser and schedule."""
        self.stage = stage
        plan = self.stages[stage]
        self.left = plan.steps
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(role(name) in plan.trains and name not in self.model.left_out)
            parameter.grad = None
        self.optimiser, self.schedule = one_cycle(
            self.model.parameters(), plan.learning_rate, self.config.weight_decay, plan.steps
        )

    def begin(self) -> None:
        """Before a step: the next stage where one is over; no gradients."""
        if not self.left:
            self._enter(self.stage + 1)
        self.optimiser.zero_grad()

    def parameters(self, sessions: set[int]) -> list[nn.Parameter]:
        """What a step on these sessions trains."""
        named = self.model.named_parameters()
        return [p for name, p in named if p.requires_grad and (owner(name) is None or owner(name) in sessions)]

    def update(self) -> None:
        """One step on the gradients that lie there."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimiser.step()
        self.schedule.step()
        self.average.update_parameters(self.model)
        self.step += 1
        self.left -= 1

    def state(self) -> dict[str, Any]:
        """Tensors and numbers from which `restore` goes on as if nothing had happened."""
        return {
            "step": self.step,
            "stage": self.stage,
            "left": self.left,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self._enter(state["stage"])
        self.step, self.left = state["step"], state["left"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
