"""Training of one NEDS on one session or many: seeded, stopped on validation, interrupt-safe, resumable.

The same loop runs in one process and in many (`torchrun --nproc-per-node 2 -m neds_core.train CONFIG.toml`).
Every process draws its slice of the same keyed global batch, sums of losses are divided by the number of
targets of all processes, and gradients are summed: without dropout, many agree with one to rounding.
Dropout is keyed by (seed, step, process).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from neds_core.config import PretrainConfig, TrainConfig
from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import ConfigError, DataError
from neds_core.model import offline
from neds_core.model.batches import onto
from neds_core.model.directions import spans_of
from neds_core.model.model import NEDS
from neds_core.scores.r2 import r2
from neds_core.train import losses, ready, state
from neds_core.train.distributed import World
from neds_core.train.log import OnStep, Progress
from neds_core.train.optim import Learner
from neds_core.train.sources import Source, build, shared_specs
from neds_core.train.state import Resume
from neds_core.train.windows import DROPOUT, Piece, Sampler, Windows, keyed

ATTEMPTS = 1000  # batches that ask nothing before the masks are given up

Decode = Callable[[NEDS, Session, int], dict[str, np.ndarray]]


@dataclass(slots=True)
class Fit:
    """A trained model and the record of how it came about. `history` holds the steps of this process.

    earlier_s: seconds that the processes before it took, where it went on from a state.
    """

    model: NEDS
    best_step: int
    best_skill: float
    interrupted: bool = False
    history: list[Progress] = field(default_factory=list)
    earlier_s: float = 0.0


def decode(model: NEDS, session: Session, row: int = 0) -> dict[str, np.ndarray]:
    """Decoding of every segment from its cold start, whole where attention is full; rows follow the segments' bins."""
    return offline.decode(model, session.counts, session.valid, session.clock(), spans_of(session), session=row)


def decode_live(model: NEDS, session: Session, row: int = 0) -> dict[str, np.ndarray]:
    """As `decode`, but no bin after the one that is read is seen, whatever the attention."""
    if model.config.attention == "causal":
        return decode(model, session, row)
    longest, most = int(np.diff(session.segments).max()), model.config.window_bins
    if longest > most:
        raise DataError(f"a segment of {longest} bins is longer than the {most} of this model; raise model.window_bins")
    return offline.decode_prefixes(model, session.counts, session.valid, session.clock(), spans_of(session), row)


def skill(
    model: NEDS, session: Session, scale: Scalers, select: tuple[str, ...], row: int = 0, decode: Decode = decode
) -> float:
    """Mean validation skill of the selected outputs: R2, or 1 - cross-entropy / entropy of the prior."""
    bins = session.bins()
    decoded = decode(model, session, row)
    values = []
    for spec in model.specs:
        if spec.name not in select:
            continue
        target = session.values[spec.name][bins]
        if spec.kind == "continuous":
            y = ((target - scale.mean[spec.name]) / scale.sd[spec.name]).astype(np.float32)
            known = np.isfinite(y) & session.valid[bins]
            values.append(r2(y[known], decoded[spec.name][known]))
        else:
            known = target >= 0
            prior = scale.prior[spec.name]
            got = -np.log(decoded[spec.name][known, target[known]] + 1e-9).mean()
            values.append(1.0 - got / -np.log(prior[target[known]]).mean())
    return float(np.mean(values))


@dataclass(frozen=True, slots=True)
class Plan:
    """One training: what is trained on what, from where, and by whom.

    steps: run exactly so many of the schedule, None = all of them. start: the model to go on from, which is not
    changed; None = a fresh one, which a configuration with a trunk refuses. resume: where states are kept; a training
    that finds one there goes on from it. In a `world` of many processes each has the same plan.
    """

    config: TrainConfig | PretrainConfig
    sources: tuple[Source, ...]
    seed: int
    steps: int | None = None
    start: NEDS | None = None
    world: World = field(default_factory=World)
    resume: Resume | None = None


def checked_specs(config: TrainConfig | PretrainConfig, sources: tuple[Source, ...]) -> tuple[BehaviourSpec, ...]:
    """The outputs' specs. Raises `DataError` where sessions disagree about one or a part has none of its values."""
    specs = shared_specs(sources, config.outputs)
    for source in sources:
        ready.check_part(source.train, specs, "training")
        ready.check_pauses(config, source.train)
        if source.validation is not None:
            ready.check_part(source.validation, specs, "validation")
    return specs


def identity(plan: Plan) -> str:
    """What a training's states say that they are of."""
    return state.identity(plan.config, plan.sources, plan.seed, length(plan), plan.start)


def length(plan: Plan) -> int:
    """Steps of a training."""
    total = sum(stage.steps for stage in plan.config.stages)
    return min(plan.steps or total, total)


def fit(plan: Plan, on_step: OnStep | None = None) -> Fit:
    """Train on the sources' training parts; with validation parts, stop early and keep the best EMA weights.

    Without them, run all steps (the refit on training + validation). Skill is the mean over sessions,
    measured every `check_every` steps and at the last. `on_step` is called in the first process alone.
    KeyboardInterrupt keeps the best so far and says so in the result. With `resume`, a state is written
    every `save_every` steps, when asked to stop and at the end. Raises `ConfigError` or `DataError` for a
    plan that cannot be trained, `CheckpointError` for a state of another training.
    """
    return Training(plan).run(on_step)


class Training:
    """One training, ready to run (see `fit`)."""

    def __init__(self, plan: Plan) -> None:
        config, sources, world = plan.config, plan.sources, plan.world
        if isinstance(config, TrainConfig) and config.finetune.trunk and plan.start is None:
            raise ConfigError("finetune.trunk is set, but this training starts afresh; take [finetune] out")
        self.config, self.sources, self.seed, self.world, self.resume = config, sources, plan.seed, world, plan.resume
        self.specs = checked_specs(config, sources)
        windows = [Windows(source.train, self.specs, source.scale) for source in sources]
        self.sampler = Sampler(windows, config, plan.seed)
        model = copy.deepcopy(plan.start) if plan.start is not None else build(config, sources, plan.seed)
        model.to(world.device)
        model.kernel = world.attend
        world.copy_from_first(model)
        self.learner = Learner(model, config.fit, config.stages)
        self.steps = length(plan)
        self.kept = [torch.from_numpy(source.scale.kept) for source in sources]
        self.checked = all(source.validation is not None for source in sources)
        self.best = Fit(copy.deepcopy(model), 0, -np.inf)
        self.waited = 0
        self.identity, self.began = "", time.monotonic()
        if self.resume is not None:
            self.identity = identity(plan)
            path = self.resume.path
            # the first process alone saves, and the others may be on machines with other folders
            self._restore(world.from_first(lambda: state.load(path, self.identity)))

    def run(self, on_step: OnStep | None) -> Fit:
        """Train to the end, an interrupt, or the request to stop."""
        best, learner = self.best, self.learner
        try:
            while learner.step < self.steps and self.waited < self.config.fit.patience:
                progress = self._step()
                if progress is None:
                    best.interrupted = True
                    self._save()
                    break
                best.history.append(progress)
                if on_step is not None and self.world.rank == 0:
                    on_step(progress)
                if learner.step % self.config.fit.save_every == 0 and learner.step < self.steps:
                    self._save()
            else:
                self._save()
        except KeyboardInterrupt:
            best.interrupted = True
        if not self.checked:
            best.model, best.best_step = copy.deepcopy(learner.smooth), learner.step
        best.model.to("cpu").requires_grad_(True).eval()
        best.model.kernel = None
        return best

    def _draw(self) -> tuple[list[Piece], set[int], dict[str, float]] | None:
        """This process's pieces of the next global batch, all its sessions, and the number of all its targets.

        None where a process was asked to stop.
        """
        step, world = self.learner.step, self.world
        stop = self.resume is not None and self.resume.asked_to_stop()
        names = ("spikes", *(spec.name for spec in self.specs))
        for attempt in range(ATTEMPTS):
            pieces = self.sampler.pieces(step, attempt, world.rank, world.size)
            each = [losses.targets(p.asked, self.specs, self.kept[p.session]) for p in pieces]
            *n, stops = world.sum([*(float(sum(e[name] for e in each)) for name in names), float(stop)])
            if stops:
                return None
            if any(n):  # a small batch may draw a mask that asks nothing
                return pieces, set(self.sampler.sessions(step, attempt).tolist()), dict(zip(names, n, strict=True))
        raise DataError("the masks never ask for anything that is defined; correct [masks] or the recording")

    def _step(self) -> Progress | None:
        """One step on the global batch; None where a process was asked to stop."""
        drawn = self._draw()
        if drawn is None:
            return None
        pieces, sessions, n = drawn
        learner, device = self.learner, self.world.device
        key = keyed(self.seed, learner.step, 0, self.world.rank, DROPOUT)
        torch.manual_seed(int(key.integers(2**63)))
        learner.model.train()
        learner.begin()
        sums = dict.fromkeys(n, torch.zeros((), device=device))
        for piece in pieces:
            for name, term in self._backward(piece, n).items():
                sums[name] = sums[name] + term
        total = self.world.sum_gradients(learner.parameters(sessions), torch.stack(list(sums.values())))
        learner.update()
        terms = {name: value / n[name] for name, value in zip(n, total.tolist(), strict=True) if n[name]}
        loss = sum(self.config.fit.loss_weights.get(name, 1.0) * value for name, value in terms.items())
        return Progress(learner.step, self.steps, loss, terms, self._check())

    def _backward(self, piece: Piece, n: dict[str, float]) -> dict[str, torch.Tensor]:
        """Add a piece's gradient; its sums of losses, detached."""
        if not piece.asked.any():
            return {}
        model, device, bf16 = self.learner.model, self.world.device, self.config.fit.bf16
        batch, asked = onto(piece.batch, device), piece.asked.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            out = model(batch, piece.hidden.to(device), piece.keep.to(device))
        out = {name: value.float() for name, value in out.items()}
        terms = losses.sums(out, batch, asked, self.specs, self.kept[piece.session].to(device))
        value = losses.total({name: term / n[name] for name, term in terms.items()}, self.config.fit.loss_weights)
        if value.requires_grad:  # what a stage trains may have no part in what a piece asks
            value.backward()
        return {name: term.detach() for name, term in terms.items()}

    def _check(self) -> float | None:
        """Skill where it is measured at this step; keeps the best weights."""
        learner, best = self.learner, self.best
        last = learner.step == self.steps
        if not self.checked or (learner.step % self.config.fit.check_every and not last):
            return None
        select = self.config.select or self.config.outputs
        judge = decode_live if self.config.masks.prefix else decode
        mine = range(self.world.rank, len(self.sources), self.world.size)
        values = [
            skill(learner.smooth, validation, self.sources[s].scale, select, s, judge)
            for s in mine
            if (validation := self.sources[s].validation) is not None
        ]
        measured = self.world.sum([sum(values)])[0] / len(self.sources)
        self.waited += learner.in_last_stage
        if measured > best.best_skill:
            self.waited = 0
            best.model, best.best_step, best.best_skill = copy.deepcopy(learner.smooth), learner.step, measured
        return measured

    def _save(self) -> None:
        if self.resume is not None and self.world.rank == 0:
            best = self.best
            seconds = best.earlier_s + time.monotonic() - self.began
            kept = {"best": best.model.state_dict(), "skill": best.best_skill, "at": best.best_step}
            made = {"waited": self.waited, "seconds": seconds, **kept, "learner": self.learner.state()}
            state.save(made, self.identity, self.resume.path)

    def _restore(self, found: dict[str, Any] | None) -> None:
        if found is not None:
            self.learner.restore(found["learner"])
            self.best.model.load_state_dict(found["best"])
            self.waited, self.best.best_skill, self.best.best_step = found["waited"], found["skill"], found["at"]
            self.best.earlier_s = found["seconds"]
