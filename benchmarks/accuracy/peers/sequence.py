"""Training of any causal network from counts to behaviour: one loop, so that peers differ in the network alone.

Windows, optimiser, schedule, averaging of weights and stopping are those of `neds_core.train`:
random cold starts, so that no network is told, or learns to count, the time in the trial.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.accuracy.peers.task import Predict, Setting, Task, r2_of, standard
from neds_core.config import FitConfig
from neds_core.data.session import Session
from neds_core.train.optim import one_cycle
from neds_core.train.windows import Windows

SPANS_AT_ONCE = 64
Build = Callable[[], nn.Module]  # a fresh seeded network: (counts (B, T, U), valid (B, T)) -> z-scores (B, T, V)


def spans(windows: Windows, rng: np.random.Generator, fit: FitConfig) -> list[tuple[int, int]]:
    """A batch of random cold starts."""
    return [windows.span(rng, fit.window_bins, clocked=False) for _ in range(fit.batch)]


def train(
    build: Build, task: Task, setting: Setting, before: Session, after: Session | None, seed: int, steps: int
) -> tuple[nn.Module, int, float]:
    """Train on `before`; with `after`, keep the averaged weights of the best check there, and its step and R2.

    Without `after`, run exactly `steps` of the schedule of setting["steps"].
    """
    fit = task.config.fit
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    windows = Windows(before, task.specs, task.scale)
    network = build()
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(fit.ema_decay))
    trainable = [p for p in network.parameters() if p.requires_grad]
    optimiser, schedule = one_cycle(trainable, setting["learning_rate"], setting["weight_decay"], setting["steps"])
    best, best_step, best_skill, waited = copy.deepcopy(network), 0, -np.inf, 0
    for step in range(1, steps + 1):
        network.train()
        batch, defined = windows.cut(spans(windows, rng, fit), clocked=False)
        keep = rng.random((len(defined), 1, batch.counts.shape[2])) >= setting["unit_dropout"]
        value = network(batch.counts * torch.from_numpy(keep.astype(np.float32)), batch.valid)
        goal = torch.stack([batch.traces[s.name] for s in task.specs], dim=-1)
        asked = torch.from_numpy(defined[..., 1:])
        loss = ((value - goal)[asked] ** 2).mean() * len(task.specs)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, fit.clip_norm)
        optimiser.step()
        schedule.step()
        average.update_parameters(network)
        if after is not None and step % fit.check_every == 0:
            waited += 1
            skill = float(r2_of(task, after, predictor(task, average.module)(after)).mean())
            if skill > best_skill:
                best, best_step, best_skill, waited = copy.deepcopy(average.module), step, skill, 0
            if waited >= fit.patience:
                break
    if after is None:
        best, best_step = copy.deepcopy(average.module), steps
    return best.eval(), best_step, best_skill


def predictor(task: Task, network: nn.Module) -> Predict:
    """Predictions (n, V) in units, each segment from a cold start."""
    mean, sd = standard(task)

    @torch.inference_mode()
    def predict(session: Session) -> np.ndarray:
        network.eval()
        windows = Windows(session, task.specs, task.scale)
        whole = [(int(a), int(b)) for a, b in session.segments]
        rows = []
        for begin in range(0, len(whole), SPANS_AT_ONCE):
            group = whole[begin : begin + SPANS_AT_ONCE]
            batch, _ = windows.cut(group, clocked=False)
            value = network(batch.counts, batch.valid)
            rows += [value[b, : stop - start].double().numpy() for b, (start, stop) in enumerate(group)]
        return np.concatenate(rows) * sd + mean

    return predict


def search(task: Task, settings: list[Setting], build_of: Callable[[Setting, Session, int], Build]) -> Setting:
    """The setting with the best mean R2 over rolling origins (seed 0), each stopped at its best check there.

    build_of(setting, before, seed) may use what lies before the origin, and no more. The setting's `stop` is
    the mean best step, for the refit on training + validation.
    """
    found = []
    for setting in settings:
        fits = [train(build_of(setting, b, 0), task, setting, b, a, 0, setting["steps"]) for b, a in task.folds]
        found.append((float(np.mean([skill for _, _, skill in fits])), round(np.mean([step for _, step, _ in fits]))))
    best = int(np.argmax([skill for skill, _ in found]))
    return {**settings[best], "stop": max(1, found[best][1]), "origins_r2": found[best][0]}


class Inputs(nn.Module):
    """Square-root counts, standardised as for NEDS, to `width` features; a filtered unit has gain 0."""

    mean: Tensor
    gain: Tensor

    def __init__(self, task: Task, width: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(task.scale.spike_mean))
        self.register_buffer("gain", torch.from_numpy(task.scale.spike_gain))
        self.project = nn.Linear(len(task.scale.kept), width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, counts: Tensor) -> Tensor:
        return self.dropout(self.project((counts.sqrt() - self.mean) * self.gain))
