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
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from neds_core import baseline, checkpoint, scalers, scores, session as sessions, train
from neds_core.checkpoint import Checkpoint
from neds_core.config import TrainConfig
from neds_core.linear import Linear
from neds_core.pretrain import Pretrained, graft
from neds_core.scalers import Scalers
from neds_core.session import Session, Splits
from neds_core.sources import Source
from neds_core.train import Fit, OnStep

BLEND_STEPS = 21
PACKAGES = ("torch", "numpy", "safetensors", "msgspec")


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


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
    bins = np.concatenate([np.arange(a, b) for a, b in validation.segments])
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


def release(
    config: TrainConfig,
    recording: Path,
    seed: int,
    name: str,
    linears: Linears | None = None,
    on_step: OnStep | None = None,
    on_stage: Callable[[str], None] | None = None,
    trunk: Pretrained | None = None,
) -> tuple[Checkpoint, Fit, Linears]:
    """Train one checkpoint of a recording. `linears` may be passed on: they do not depend on the seed.

    An interrupt keeps the best weights so far; the checkpoint is then written from them. trunk: a
    multi-session NEDS to fine-tune in `config.stages`, else NEDS starts afresh.
    """
    began = time.monotonic()
    say = on_stage or (lambda _: None)
    torch.set_num_threads(config.fit.threads)
    session = sessions.load(recording)
    parts = sessions.split(session)
    specs = tuple(session.spec(n) for n in config.outputs)
    scale = scalers.fit(parts.train, specs, config.min_rate_hz)
    if linears is None:
        say("linear decoders")
        linears = fit_linears(config, parts, scale)
    say("NEDS, stopped on validation")
    start = graft(trunk, config, Source(parts.train, parts.validation, scale), seed) if trunk else None
    fit = train.fit(config, parts.train, parts.validation, scale, seed, on_step=on_step, start=start)
    shares = blend_shares(fit, linears.train, parts.validation, scale)
    model = fit.model
    if config.fit.refit and not fit.interrupted and fit.best_step:
        say("NEDS again on training + validation, for as many steps")
        both = parts.development
        start = graft(trunk, config, Source(both, None, scale), seed) if trunk else None
        again = train.fit(config, both, None, scale, seed, fit.best_step, on_step, start)
        model, fit.interrupted = again.model, again.interrupted
        if again.interrupted:
            model = fit.model
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
        blend=shares,
        record=checkpoint.Record(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            recording=session.name,
            recording_sha=sha256(recording),
            seed=seed,
            train_segments=len(parts.train.segments),
            validation_segments=len(parts.validation.segments),
            best_step=fit.best_step,
            validation_skill=fit.best_skill,
            seconds=time.monotonic() - began,
            versions=versions(),
        ),
    )
    return Checkpoint(header, model, session.units, scale, linears.development), fit, linears
