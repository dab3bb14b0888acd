"""From a recording to a checkpoint: NEDS, the linear decoder beside it, and their blend.

Everything is chosen on the first 80 % of the recording; the test part is never touched here.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neds_core import checkpoint, toml
from neds_core.checkpoint import Checkpoint
from neds_core.config import TrainConfig
from neds_core.data import scalers, session as sessions, session_file
from neds_core.data.scalers import Scalers
from neds_core.data.session import Session, Splits
from neds_core.errors import CheckpointError
from neds_core.linear import baseline
from neds_core.linear.linear import Linear
from neds_core.model.model import NEDS
from neds_core.scores import r2 as scores
from neds_core.train import distributed, loop as train, many as pretrain, state as train_state
from neds_core.train.distributed import World
from neds_core.train.log import Log, OnStep, Show
from neds_core.train.loop import Fit
from neds_core.train.many import Pretrained, graft
from neds_core.train.sources import Source
from neds_core.train.state import Resume

BLEND_STEPS = 21
PACKAGES = ("torch", "numpy", "safetensors", "msgspec")


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    found = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "neds-rt": train_state.our_version(), **found}


@dataclass(frozen=True, slots=True)
class Linears:
    """The linear decoders of a configuration: fitted on training alone, and on training + validation."""

    train: dict[str, Linear]
    development: dict[str, Linear]


def fit_linears(config: TrainConfig, parts: Splits, scale: Scalers) -> Linears:
    """Search inside training, then refit the same banks and penalties on training + validation."""
    specs = tuple(parts.train.spec(name) for name in config.outputs)
    model = config.model
    told = model.window_bins if model.attention == "full" else model.clock_bins  # both know the time in the segment
    found = baseline.fit(parts.train, specs, scale, config.linear, told)
    both = parts.development
    final = {s.name: baseline.refit(both, s, scale, found[s.name].bank, found[s.name].penalty) for s in specs}
    return Linears(found, final)


def blend_shares(fit: Fit, linear: dict[str, Linear], validation: Session, scale: Scalers) -> dict[str, float]:
    """Share of NEDS in the blend of each output: best R2 (or log-likelihood) on validation."""
    ours = train.decode_live(fit.model, validation)
    bins = validation.bins()
    shares = {}
    for spec in fit.model.specs:
        theirs = baseline.predict(linear[spec.name], validation, scale.kept, spec.kind)
        target = validation.values[spec.name][bins]
        grid = np.linspace(0.0, 1.0, BLEND_STEPS)
        if spec.kind == "continuous":
            mine = ours[spec.name] * scale.sd[spec.name] + scale.mean[spec.name]
            known = np.isfinite(target) & validation.valid[bins]
            gain = [scores.r2(target[known], (s * mine + (1 - s) * theirs)[known]) for s in grid]
        else:
            known = target >= 0
            rows = np.flatnonzero(known), target[known]
            gain = [np.log(s * ours[spec.name][rows] + (1 - s) * theirs[rows] + 1e-9).mean() for s in grid]
        shares[spec.name] = float(grid[int(np.argmax(gain))])
    return shares


def learn(
    config: TrainConfig,
    parts: Splits,
    scale: Scalers,
    seed: int,
    on_step: OnStep | None,
    say: Callable[[str], None],
    trunk: Pretrained | None,
    world: World,
    resume: Resume | None,
) -> tuple[Fit, NEDS]:
    """Train until validation says stop, then again for as many steps on training + validation: both models."""
    say("NEDS, stopped on validation")
    start = graft(trunk, config, Source(parts.train, parts.validation, scale), seed) if trunk else None
    fit = train.fit(config, parts.train, parts.validation, scale, seed, None, on_step, start, world, resume)
    if not config.fit.refit or fit.interrupted or not fit.best_step:
        return fit, fit.model
    say("NEDS again on training + validation, for as many steps")
    both = parts.development
    start = graft(trunk, config, Source(both, None, scale), seed) if trunk else None
    refit = resume.refit if resume else None
    again = train.fit(config, both, None, scale, seed, fit.best_step, on_step, start, world, refit)
    fit.earlier_s += again.earlier_s
    fit.interrupted = again.interrupted
    return fit, fit.model if again.interrupted else again.model


def release(
    config: TrainConfig,
    recording: Path,
    seed: int,
    name: str,
    linears: Linears | None = None,
    on_step: OnStep | None = None,
    on_stage: Callable[[str], None] | None = None,
    trunk: Pretrained | None = None,
    world: World | None = None,
    resume: Resume | None = None,
) -> tuple[Checkpoint, Fit, Linears]:
    """Train one checkpoint of a recording. `linears` may be passed on: they do not depend on the seed.

    An interrupt keeps the best weights so far; the checkpoint is then written from them. trunk: a
    multi-session NEDS to fine-tune in `config.stages`, else NEDS starts afresh. In a `world` of many
    processes all call this and get the same. With `resume`, both trainings go on from their states;
    one that is over is not repeated.
    """
    began = time.monotonic()
    world = world or World()
    say = on_stage if on_stage and not world.rank else lambda _: None
    torch.set_num_threads(config.fit.threads)
    session = session_file.load(recording)
    parts = sessions.split(session)
    specs = tuple(session.spec(n) for n in config.outputs)
    scale = scalers.fit(parts.train, specs, config.min_rate_hz)
    if linears is None:
        say("linear decoders")
        linears = world.from_first(lambda: fit_linears(config, parts, scale))
    fit, model = learn(config, parts, scale, seed, on_step, say, trunk, world, resume)
    header = checkpoint.Header(
        format=checkpoint.FORMAT,
        name=name,
        bin_ns=session.bin_ns,
        config=config,
        specs=specs,
        unit_map_sha=session.units.sha256,
        mean=scale.mean,
        sd=scale.sd,
        prior={k: v.tolist() for k, v in scale.prior.items()},
        linear={k: checkpoint.LinearHeader(v.bank, v.penalty) for k, v in linears.development.items()},
        blend=blend_shares(fit, linears.train, parts.validation, scale),
        record=checkpoint.Record(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            recording=session.name,
            recording_sha=sha256(recording),
            seed=seed,
            train_segments=len(parts.train.segments),
            validation_segments=len(parts.validation.segments),
            best_step=fit.best_step,
            validation_skill=fit.best_skill,
            seconds=time.monotonic() - began + fit.earlier_s,
            versions=versions(),
            trunk_sha=trunk.sha if trunk else "",
            interrupted=fit.interrupted,
        ),
    )
    return Checkpoint(header, model, session.units, scale, linears.development), fit, linears


def is_done(path: Path, config: TrainConfig, recording: Path, seed: int, trunk: Pretrained | None) -> bool:
    """Whether `path` holds, by its record, what this training would write."""
    if not recording.is_file():
        return False
    try:
        header = checkpoint.load(path).header
    except CheckpointError:
        return False
    record = header.record
    found = (record.seed, record.recording_sha, record.trunk_sha, record.versions, record.interrupted)
    wanted = (seed, sha256(recording), trunk.sha if trunk else "", versions(), False)
    return header.config == config and found == wanted


def write(made: Checkpoint, fit: Fit, path: Path, resume: Resume) -> None:
    """Write the checkpoint, also that of the best so far, and say so; the states of a training that is done go."""
    if fit.best_step:
        checkpoint.save(made, path)
    kept = f"best step {fit.best_step}, validation skill {fit.best_skill:.3f}" if fit.best_step else "nothing written"
    if fit.interrupted:
        goes_on = f"goes on from {resume.path}" if resume.path.exists() else "begins again"
        print(f"{path}: stopped, so far {kept}; the same command {goes_on}")
        return
    resume.discard()
    size = path.stat().st_size / 1e6
    print(f"{path}: done; {kept}, {made.header.record.seconds:.0f} s, {size:.2f} MB")


def run(path: Path, out: Path, seeds: list[int], show: Show, attend: Callable[..., Tensor] | None = None) -> None:
    """Train what a TOML file says, a checkpoint a seed, in this process or in all that `torchrun` started.

    Writes `out` (several seeds: `out-seedN`); beside it `.jsonl` (a line a step) and, until it is done, `.state`
    and `.refit.state` to go on from. Asked to stop, it saves these and writes the best so far.
    """
    config = toml.load(path, TrainConfig)
    recording = (path.parent / config.recording).resolve()
    trunk = pretrain.load(path.parent / config.finetune.trunk) if config.finetune.trunk else None
    linears = None
    with distributed.world(config.fit.device, attend) as world, distributed.stop_on_signal() as stop:
        for seed in seeds:
            target = out if len(seeds) == 1 else out.with_stem(f"{out.stem}-seed{seed}")
            resume = Resume(target.with_suffix(".state"), stop.is_set)
            if world.from_first(partial(is_done, target, config, recording, seed, trunk)):
                if not world.rank:
                    print(f"{target}: done before from the same; delete it to train it again")
                    resume.discard()
                continue
            if not world.rank and not resume.path.exists():
                resume.discard()  # a refit's state is of the training whose state lies beside it
            with Log(target.with_suffix(".jsonl"), show) as log:
                made, fit, linears = release(
                    config, recording, seed, target.stem, linears, log.step, log.stage, trunk, world, resume
                )
            if not world.rank:
                write(made, fit, target, resume)
            if fit.interrupted:
                return
