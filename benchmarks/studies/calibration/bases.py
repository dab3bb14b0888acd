"""Bases of an arm: trained on its sessions, on the same with shuffled behaviour, or not at all."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import msgspec

from benchmarks.studies.calibration.arms import Arm, shuffled
from calibration.fitting.base import Base
from neds_core.config import PretrainConfig
from neds_core.data import scalers
from neds_core.data.session import Session
from neds_core.files import make_folder
from neds_core.train import loop, many
from neds_core.train.many import Pretrained
from neds_core.train.sources import Source, build

Kind = Literal["real", "shuffled", "random"]


def recipe_of(arm: Arm, base: str, seed: int) -> PretrainConfig:
    """How a base is trained; its sessions are named instead of files."""
    names = tuple(session.name for session in arm.bases[base])
    return msgspec.structs.replace(arm.recipe, recordings=names, seed=seed)


def trained(arm: Arm, base: str, kind: Kind, seed: int, folder: Path) -> Base:
    """A base, from its file in `folder` or trained now and kept there; a random one is made each time.

    The seed is that of a fit; an arm with fewer seeds of bases takes them in turn.
    """
    own = seed % arm.base_seeds
    config = recipe_of(arm, base, own)
    path = folder / f"calibration-arm{arm.number}-{base.replace(' ', '-')}-{kind}-seed{own}.safetensors"
    if kind != "random" and path.exists() and (found := many.load(path)).header.config == config:
        return Base(base, found, ("",), config.masks)
    seen = arm.bases[base]
    if kind == "shuffled":
        seen = tuple(shuffled(session, 1000 * own + row) for row, session in enumerate(seen))
    made = _untrained(config, seen, own) if kind == "random" else _fitted(config, seen)
    if kind != "random":
        make_folder(folder)
        many.save(made, path)
    return Base(base, made, ("",), config.masks)


def _sources(config: PretrainConfig, seen: tuple[Session, ...]) -> tuple[Source, ...]:
    taus = config.model.filter_taus_ms
    specs = [tuple(session.spec(name) for name in config.outputs) for session in seen]
    each = zip(seen, specs, strict=True)
    return tuple(Source(one, None, scalers.fit(one, own, config.min_rate_hz, taus)) for one, own in each)


def _fitted(config: PretrainConfig, seen: tuple[Session, ...]) -> Pretrained:
    """Trained by its schedule: nothing is chosen, so nothing stops it early."""
    began, sources = time.process_time(), _sources(config, seen)
    found = loop.fit(loop.Plan(config, sources, config.seed))
    rows, seconds = tuple(many.row(source) for source in sources), time.process_time() - began
    bin_ns = sources[0].train.bin_ns
    header = many.Header(many.FORMAT, bin_ns, config, found.model.specs, rows, found.best_step, 0.0, seconds)
    return Pretrained(header, found.model)


def _untrained(config: PretrainConfig, seen: tuple[Session, ...], seed: int) -> Pretrained:
    """The same network before any training, of a seed that no training starts from."""
    sources = _sources(config, seen)
    model = build(config, sources, seed + 100)
    rows = tuple(many.row(source) for source in sources)
    return Pretrained(many.Header(many.FORMAT, sources[0].train.bin_ns, config, model.specs, rows, 0, 0.0, 0.0), model)
