"""One recording to a checkpoint: NEDS, the linear decoder beside it, and their blend.

Everything is chosen on the first 80 % of the recording; the test part is never touched here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from neds_core import checkpoint, ensemble
from neds_core.checkpoint import Checkpoint, Record, versions
from neds_core.config import TrainConfig
from neds_core.data import lead, scalers
from neds_core.data.scalers import Scalers
from neds_core.data.session import Splits
from neds_core.errors import CheckpointError, ConfigError
from neds_core.files import beside, sha256, without_ending
from neds_core.io import recording
from neds_core.linear import baseline
from neds_core.linear.linear import Linear, Tick, unwatched
from neds_core.model.model import NEDS
from neds_core.scores import judging
from neds_core.train import distributed, loop, many, ready, state, validation
from neds_core.train.distributed import StopError, World
from neds_core.train.log import Log, Show, Silent, refuse_taken
from neds_core.train.loop import Fit, Plan
from neds_core.train.many import Pretrained
from neds_core.train.sources import Source
from neds_core.train.state import Resume


@dataclass(frozen=True, slots=True)
class Linears:
    """The linear decoder of each output: fitted on training alone, and on training + validation."""

    train: dict[str, Linear]
    development: dict[str, Linear]


def told(config: TrainConfig) -> int:
    """Bins of the segment that the linear decoder is told apart: those that NEDS knows the time of."""
    model = config.model
    return model.window_bins if model.attention == "full" else model.clock_bins


def fit_linears(config: TrainConfig, parts: Splits, scale: Scalers, tick: Tick = unwatched) -> Linears:
    """Search inside training, then refit the same banks and penalties on training + validation."""
    specs = tuple(parts.train.spec(name) for name in config.outputs)
    found = baseline.fit(parts.train, specs, scale, config.linear, told(config), tick)
    both = parts.development
    final = {s.name: baseline.refit(both, s, scale, found[s.name].bank, found[s.name].penalty, tick) for s in specs}
    return Linears(found, final)


def watch(show: Show, total: int, asked_to_stop: Callable[[], bool]) -> Tick:
    """Shows the fits of the linear search, and raises `StopError` between two of them where it is asked to."""
    done = 0

    def tick(n: int) -> None:
        nonlocal done
        if asked_to_stop():
            raise StopError("stopped in the linear decoders; nothing is written, and the same command begins again")
        if n:
            done += n
            show.tick(done, total)

    return tick


@dataclass(frozen=True, slots=True)
class Job:
    """One checkpoint to train, of one recording.

    trunk: a multi-session NEDS to fine-tune in `config.stages`; None = NEDS starts afresh. In a `world` of many
    processes each has the same job. resume: both trainings go on from their states; one that is over is not repeated.
    """

    config: TrainConfig
    recording: Path
    seed: int
    name: str
    trunk: Pretrained | None = None
    world: World = field(default_factory=World)
    resume: Resume | None = None

    def plan(self, source: Source, steps: int | None = None, resume: Resume | None = None) -> Plan:
        """The training of this job on one part of its recording."""
        start = many.graft(self.trunk, self.config, source, self.seed) if self.trunk else None
        return Plan(self.config, (source,), self.seed, steps, start, self.world, resume)


def learn(job: Job, parts: Splits, scale: Scalers, show: Show) -> tuple[Fit, NEDS]:
    """Train until validation says stop, then again for as many steps on training + validation: both models."""
    show.stage("NEDS, stopped on validation")
    fit = loop.fit(job.plan(Source(parts.train, parts.validation, scale), None, job.resume), show.step)
    if not fit.best_step and not fit.interrupted:
        raise ConfigError("NEDS never had a finite skill on validation; lower fit.learning_rate, or check the outputs")
    if not job.config.fit.refit or fit.interrupted or not fit.best_step:
        return fit, fit.model
    show.stage("NEDS again on training + validation, for as many steps")
    refit = job.resume.refit if job.resume else None
    again = loop.fit(job.plan(Source(parts.development, None, scale), fit.best_step, refit), show.step)
    fit.earlier_s += again.earlier_s
    fit.interrupted = again.interrupted
    return fit, fit.model if again.interrupted else again.model


def release(job: Job, show: Show | None = None, linears: Linears | None = None) -> tuple[Checkpoint, Fit, Linears]:
    """Train one checkpoint of a recording. `linears` may be passed on: they do not depend on the seed.

    An interrupt keeps the best weights so far; the checkpoint is then written from them. `show` hears of the
    stages and steps in the first process. Raises `DataError` or `ConfigError` for what cannot be trained.
    """
    began = time.monotonic()
    config = job.config
    show = show if show and not job.world.rank else Silent()
    torch.set_num_threads(config.fit.threads)
    session = recording.load(job.recording)
    parts = lead.split(session, config.lead_ms)
    ready.check(config, parts)
    specs = tuple(parts.train.spec(name) for name in config.outputs)
    scale = scalers.fit(parts.train, specs, config.min_rate_hz, config.model.filter_taus_ms)
    for line in validation.start(config, session, parts, scale):
        show.say(line)
    if linears is None:
        show.stage("linear decoders")
        total = baseline.n_fits(specs, config.linear, told(config)) + len(specs)
        tick = watch(show, total, job.resume.asked_to_stop if job.resume else lambda: False)
        linears = job.world.from_first(lambda: fit_linears(config, parts, scale, tick))
    fit, model = learn(job, parts, scale, show)
    decoded = validation.decode(fit.model, linears.train, parts.validation, scale)
    header = checkpoint.Header(
        format=checkpoint.FORMAT,
        name=job.name,
        bin_ns=session.bin_ns,
        config=config,
        specs=model.specs,
        unit_map_sha=session.units.sha256,
        mean=scale.mean,
        sd=scale.sd,
        prior={k: v.tolist() for k, v in scale.prior.items()},
        linear={k: checkpoint.LinearHeader(v.bank, v.penalty) for k, v in linears.development.items()},
        blend=validation.blend_shares(decoded, specs, parts.validation),
        record=record(job, parts, fit, time.monotonic() - began),
        longest_silence_bins=scalers.longest_silence(parts.train, scale.kept),
    )
    evidence = validation.evidence(decoded, model.specs, parts.validation)
    made = judging.decide(Checkpoint(header, model, session.units, scale, linears.development, judged=evidence))
    for line in judging.lines(made.header.verdicts) if fit.best_step else ():
        show.say(line)
    return made, fit, linears


def refuse_other_states(job: Job) -> None:
    """Raise `CheckpointError` where a state to go on from is of another training: before anything that takes time."""
    if job.resume is None or not job.resume.path.exists():
        return
    session = recording.load(job.recording)
    parts = lead.split(session, job.config.lead_ms)
    ready.check(job.config, parts)
    specs = tuple(parts.train.spec(name) for name in job.config.outputs)
    scale = scalers.fit(parts.train, specs, job.config.min_rate_hz, job.config.model.filter_taus_ms)
    plan = job.plan(Source(parts.train, parts.validation, scale))
    found = state.load(job.resume.path, loop.identity(plan))
    refit = job.resume.refit.path
    if found is not None and refit.exists():
        state.load(refit, loop.identity(job.plan(Source(parts.development, None, scale), found["at"])))


def record(job: Job, parts: Splits, fit: Fit, seconds: float) -> Record:
    """How a checkpoint came about; `seconds` of this process, those of the ones before it are added."""
    return Record(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recording=parts.train.name,
        recording_sha=sha256(job.recording),
        seed=job.seed,
        train_segments=len(parts.train.segments),
        validation_segments=len(parts.validation.segments),
        best_step=fit.best_step,
        validation_skill=fit.best_skill,
        seconds=seconds + fit.earlier_s,
        versions=versions(),
        trunk_sha=job.trunk.sha if job.trunk else "",
        interrupted=fit.interrupted,
    )


def is_done(path: Path, job: Job) -> bool:
    """Whether `path` holds, by its record, what this training would write."""
    if not job.recording.is_file():
        return False
    try:
        header = checkpoint.load(path).header
    except CheckpointError:
        return False
    record = header.record
    found = (record.seed, record.recording_sha, record.trunk_sha, record.versions, record.interrupted)
    wanted = (job.seed, sha256(job.recording), job.trunk.sha if job.trunk else "", versions(), False)
    return header.config == job.config and found == wanted


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


def run(
    config: TrainConfig, folder: Path, out: Path, seeds: list[int], show: Show,
    attend: Callable[..., Tensor] | None = None,
) -> tuple[Path, ...]:  # fmt: skip
    """Train what a file in `folder` says, a checkpoint a seed, in this process or in all that `torchrun` started.

    Writes `out` (several seeds: `out-seedN`); beside it `.jsonl` (a line a step) and, until it is done, `.state`
    and `.refit.state` to go on from. Asked to stop, it saves these and writes the best so far. An ensemble is written
    to `out` once all of its members, in files of their own as several seeds are, are done. Returns
    the checkpoints where all are done, of an ensemble that one; none in the other processes.
    """
    seeds = _seeds(config, seeds)
    targets = {seed: out if len(seeds) == 1 else _of_seed(out, seed) for seed in seeds}
    for target in (*targets.values(), *([out] if config.ensemble.seeds else [])):
        refuse_taken(target)
    first = _train_each(config, folder, targets, show, attend)
    if not first:
        return ()
    if config.ensemble.seeds:
        joined = ensemble.join(
            [checkpoint.load(target) for target in targets.values()], without_ending(out).name,
            config.ensemble.linear_share,
        )  # fmt: skip
        checkpoint.save(joined, out)
        print("\n".join((f"{out}: done; {len(seeds)} networks in one checkpoint", *judging.outcome(joined))))
        return (out,)
    return tuple(targets.values())


def _seeds(config: TrainConfig, given: list[int]) -> list[int]:
    """The seeds to train: an ensemble has its own."""
    if given and config.ensemble.seeds:
        raise ConfigError("--seed and ensemble.seeds both name seeds; leave one of them out")
    return given or list(config.ensemble.seeds) or [0]


def _train_each(
    config: TrainConfig, folder: Path, targets: dict[int, Path], show: Show, attend: Callable[..., Tensor] | None
) -> bool:
    """A checkpoint for each seed; whether this is the first process, and all of them are done."""
    recording = (folder / config.recording).resolve()
    trunk = many.load(folder / config.finetune.trunk) if config.finetune.trunk else None
    linears = None
    with distributed.world(config.fit.device, attend) as world, distributed.stop_on_signal() as stop:
        jobs = {}
        for seed, target in targets.items():
            resume = Resume(beside(target, ".state"), stop.is_set)
            job = Job(config, recording, seed, without_ending(target).name, trunk, world, resume)
            jobs[target] = job, resume, world.from_first(partial(is_done, target, job))
            if not jobs[target][2]:
                world.from_first(partial(refuse_other_states, job))
        for target, (job, resume, done) in jobs.items():
            if done:
                if not world.rank:
                    print(f"{target}: done before from the same; delete it to train it again")
                    resume.discard()
                continue
            if not world.rank and not resume.path.exists():
                resume.discard()  # a refit's state is of the training whose state lies beside it
            with Log(beside(target, ".jsonl"), show) as log:
                try:
                    made, fit, linears = release(job, log, linears)
                except StopError as stopped:
                    if not world.rank:
                        print(f"{target}: {stopped}")
                    return False
            if not world.rank:
                write(made, fit, target, resume)
            if fit.interrupted:
                return False
        return not world.rank


def _of_seed(out: Path, seed: int) -> Path:
    """mouse7.day1-seed3.safetensors of mouse7.day1.safetensors."""
    own = without_ending(out)
    return own.with_name(f"{own.name}-seed{seed}{out.name.removeprefix(own.name)}")
