"""NEDS of many sessions of Steinmetz et al. 2019, trained by a fixed schedule.

The first 70 % of each session train. Nothing is chosen, so nothing stops a training early.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.accuracy.masks import DECODING, ENCODING
from benchmarks.accuracy.mice.steinmetz import OUTPUTS, Bundle
from neds_core.config import FitConfig, MaskConfig, ModelConfig, PretrainConfig
from neds_core.data import scalers, session as sessions
from neds_core.data.session import Session
from neds_core.train import loop, many
from neds_core.train.many import Pretrained
from neds_core.train.sources import Source

MIN_RATE_HZ = 0.5
MODEL = ModelConfig(width=64, layers=2, heads=4, band=20, window_bins=20, clock_bins=20)
MASKS = {
    "multi": MaskConfig(decoding=2.0, within_behaviour=0.0),
    "decoding": DECODING,
    "encoding": ENCODING,
}
FIT = FitConfig(steps=840, batch=16, sessions_per_step=4, window_bins=20, learning_rate=3e-3, ema_decay=0.95, threads=1)


def config_of(
    bundles: list[Bundle],
    model: ModelConfig,
    masks: MaskConfig,
    fit: FitConfig,
    seed: int,
    outputs: tuple[str, ...] = OUTPUTS,
) -> PretrainConfig:
    """What a trunk is trained by; sessions are named instead of files."""
    names = tuple(one.session.name for one in bundles)
    return PretrainConfig(names, outputs, min_rate_hz=MIN_RATE_HZ, seed=seed, model=model, masks=masks, fit=fit)


def training_parts(bundles: list[Bundle]) -> list[Session]:
    """The first 70 % of each session."""
    return [sessions.split(one.session).train for one in bundles]


def make(bundles: list[Bundle], config: PretrainConfig, parts: list[Session] | None = None) -> Pretrained:
    """Train on `parts` (default: `training_parts`), one for each bundle.

    The skill in the header is measured afterwards on the sessions' own validation parts.
    """
    began = time.process_time()
    chosen = training_parts(bundles) if parts is None else parts
    found = tuple(Source(part, None, scalers.fit(part, part.specs, MIN_RATE_HZ)) for part in chosen)
    fit = loop.fit(loop.Plan(config, found, config.seed))
    skill = [
        loop.skill(fit.model, sessions.split(one.session).validation, source.scale, config.outputs, row)
        for row, (one, source) in enumerate(zip(bundles, found, strict=True))
    ]
    header = many.Header(
        format=many.FORMAT,
        bin_ns=found[0].train.bin_ns,
        config=config,
        specs=fit.model.specs,
        sessions=tuple(many.row(source) for source in found),
        best_step=fit.best_step,
        validation_skill=float(np.nanmean(skill)),
        seconds=time.process_time() - began,
    )
    return Pretrained(header, fit.model)
