"""`neds_core.fit`: what `neds-rt train` does for one recording, as a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict, Unpack

import msgspec
import numpy as np
import torch
from msgspec import Struct

from neds_core import checkpoint as files, ensemble, toml
from neds_core.checkpoint import Checkpoint
from neds_core.config import TrainConfig
from neds_core.data.session import Session
from neds_core.errors import ConfigError, DataError
from neds_core.files import without_ending
from neds_core.model.attention import Attention
from neds_core.public.given import file_of, refuse_other, session_of
from neds_core.train import distributed, many, single
from neds_core.train.log import Lines, Show, Silent, refuse_taken
from neds_core.train.single import Job

Table = dict[str, Any] | Struct


class Keys(TypedDict, total=False):
    """The keys of train.toml (docs/training.md); a table as a dict or as its struct of `neds_core.config`."""

    outputs: Sequence[str]
    select: Sequence[str]
    lead_ms: dict[str, float]
    min_rate_hz: float
    model: Table
    masks: Table
    fit: Table
    linear: Table
    finetune: Table
    ensemble: Table


def fit(
    session: Session | str | Path,
    config: str | Path | TrainConfig | None = None,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    attention: Attention | None = None,
    **keys: Unpack[Keys],
) -> Checkpoint:
    """Train NEDS and the linear decoder beside it on a recording, choose by its validation part, return both.

    The same as `neds-rt train` with the same configuration and seed, to the bit: the first 70 % of the recording train,
    the next 10 % stop training and choose, and the last 20 % are not looked at.

    session: a `Session`, or the path of a `Session.npz`; one in memory is written to a temporary file first.
    config: a train.toml, whose `recording` is not read, or a `TrainConfig`. Without it the keys of train.toml are
    arguments, with its defaults: outputs=["wheel_speed"], model={"width": 32}, fit={"steps": 200}; without outputs,
    every behaviour of the recording. out: the checkpoint's file (.safetensors), None = none; its `sha` is that of the
    file, and "" without one. seed: of the training; an ensemble has its own (`ensemble.seeds`), and its members' files
    are not kept. progress: called with each line that is said of the training, such as `print`; None = quiet.
    attention: what attends where fit.device is "cuda", as `kernels.attention.attention`; None = torch.

    Ctrl-C ends NEDS after the step at hand and keeps its best so far (`header.record.interrupted`); where there is
    none yet, it raises KeyboardInterrupt. Raises `DataError` for a recording or an output that cannot be learned,
    `ConfigError` for a key that is not known or cannot be: one sentence with the remedy.
    """
    _refuse_types(session, config, out, seed, progress)
    settings, folder = _settings(session, config, keys)
    if seed and settings.ensemble.seeds:
        raise ConfigError(f"fit: seed={seed} and ensemble.seeds both name seeds; leave one of them out")
    target = None if out is None else Path(out)
    if target is not None:
        refuse_taken(target)
    name = without_ending(Path(settings.recording), ".npz").name if target is None else without_ending(target).name
    show, threads = Silent() if progress is None else Lines(progress), torch.get_num_threads()
    try:
        with TemporaryDirectory(prefix="neds-rt-") as own, distributed.world(settings.fit.device, attention) as world:
            trunk = many.load(folder / settings.finetune.trunk) if settings.finetune.trunk else None
            job = Job(settings, file_of(session, Path(own)), seed, name, trunk, world)
            made = _trained(job, show, Path(own), session.of_file() if isinstance(session, Session) else "")
    finally:
        torch.set_num_threads(threads)
    if target is None:
        return made
    files.save(made, target)
    return files.load(target)


def _refuse_types(session: object, config: object, out: object, seed: object, progress: object) -> None:
    """Raise `DataError` for an argument of another type than `fit` takes."""
    refuse_other("fit: session", session, Session, "a Session, or the path of a Session.npz")
    refuse_other("fit: config", config, (TrainConfig, type(None)), "the path of a train.toml, or a TrainConfig")
    refuse_other("fit: out", out, type(None), "a path")
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise DataError(f"fit: seed is {seed!r:.60}; give a whole number from 0 on")
    if progress is not None and not callable(progress):
        raise DataError(f"fit: progress is {progress!r:.60}; give what is called with each line, such as print")


def _settings(
    session: Session | str | Path, config: str | Path | TrainConfig | None, keys: Keys
) -> tuple[TrainConfig, Path]:
    """The configuration, and the folder that its paths start from."""
    if config is not None and keys:
        raise ConfigError(f"fit: {', '.join(keys)} and a configuration both say what is trained; give one of them")
    if isinstance(config, TrainConfig):
        return config, Path()
    if config is not None:
        return toml.load(Path(config), TrainConfig), Path(config).parent
    recording = f"{session.name}.npz" if isinstance(session, Session) else str(session)
    outputs = keys["outputs"] if "outputs" in keys else [spec.name for spec in session_of(session).specs]
    if isinstance(outputs, str):
        raise ConfigError(f"fit: outputs is the text {outputs!r}; give a list of names, such as [{outputs!r}]")
    if not isinstance(outputs, Iterable):
        raise ConfigError(f"fit: outputs is {outputs!r:.60}; give a list of names")
    return toml.convert({**keys, "recording": recording, "outputs": list(outputs)}, TrainConfig, "fit"), Path()


def _trained(job: Job, show: Show, folder: Path, sha: str) -> Checkpoint:
    """The checkpoint of a job, or the ensemble of its configuration's seeds; `folder` keeps files meanwhile.

    sha: of the file that the recording was read from, "" = the job's.
    """
    seeds = job.config.ensemble.seeds
    if not seeds:
        return _of_file(_released(job, show, None)[0], sha)
    members, linears = [], None
    for seed in seeds:
        name = f"{job.name}-seed{seed}"
        member, linears = _released(replace(job, seed=seed, name=name), show, linears)
        if member.header.record.interrupted:
            raise KeyboardInterrupt  # fewer networks than were asked for are another decoder
        files.save(_of_file(member, sha), folder / f"{name}.safetensors")
        members.append(files.load(folder / f"{name}.safetensors"))  # with the SHA-256 that an ensemble names it by
    return ensemble.join(members, job.name, job.config.ensemble.linear_share)


def _released(job: Job, show: Show, linears: single.Linears | None) -> tuple[Checkpoint, single.Linears]:
    made, found, linears = single.release(job, show, linears)
    if not found.best_step:  # interrupted before there was one: without an interrupt that is refused
        raise KeyboardInterrupt
    return made, linears


def _of_file(made: Checkpoint, sha: str) -> Checkpoint:
    """The same, said to be trained on the file with that SHA-256: by it `neds-rt evaluate` knows what is evidence."""
    if not sha:
        return made
    record = msgspec.structs.replace(made.header.record, recording_sha=sha)
    return replace(made, header=msgspec.structs.replace(made.header, record=record))
