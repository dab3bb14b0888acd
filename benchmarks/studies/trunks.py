"""NEDS of many sessions of Steinmetz et al. 2019: a fixed schedule, a file each, with true or permuted labels.

The first 70 % of each session train; nothing is chosen, so nothing stops a training early.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy.steinmetz import FOLDER, OUTPUTS, Bundle, read_folder
from neds_core.config import FitConfig, MaskConfig, ModelConfig, PretrainConfig
from neds_core.data import scalers, session as sessions
from neds_core.data.session import Session
from neds_core.train import loop as train, many as pretrain
from neds_core.train.many import Pretrained
from neds_core.train.sources import Source

MIN_RATE_HZ = 0.5
MODEL = ModelConfig(width=64, layers=2, heads=4, band=20, window_bins=20, clock_bins=20)
DECODING = MaskConfig(decoding=1.0, encoding=0.0, within_spikes=0.0, within_behaviour=0.0, cross_modal=0.0)
ENCODING = MaskConfig(decoding=0.0, encoding=1.0, within_spikes=0.0, within_behaviour=0.0, cross_modal=0.0)
MASKS = {
    "multi": MaskConfig(decoding=2.0, within_behaviour=0.0),
    "decoding": DECODING,
    "encoding": ENCODING,
}
FIT = FitConfig(steps=840, batch=16, sessions_per_step=4, window_bins=20, learning_rate=3e-3, ema_decay=0.95, threads=1)


def permuted(part: Session, seed: int) -> Session:
    """The part with its trials' labels dealt out anew among its trials; the labels of one trial stay together."""
    rng = np.random.default_rng(seed)
    bins = part.segments[:, :1] + np.arange(int(part.segments[0, 1] - part.segments[0, 0]))
    order = rng.permutation(len(bins))
    values = {name: value.copy() for name, value in part.values.items()}
    for name, value in values.items():
        value[bins] = part.values[name][bins[order]]
    return replace(part, values=values)


def sources(bundles: list[Bundle], shuffled_by: int | None = None) -> tuple[Source, ...]:
    """Training parts, each session's labels permuted by a seed of its own where `shuffled_by` is a seed."""
    found = []
    for row, one in enumerate(bundles):
        part = sessions.split(one.session).train
        if shuffled_by is not None:
            part = permuted(part, 1000 * shuffled_by + row)
        found.append(Source(part, None, scalers.fit(part, part.specs, MIN_RATE_HZ)))
    return tuple(found)


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


def make(bundles: list[Bundle], config: PretrainConfig, shuffled: bool = False) -> Pretrained:
    """Train on all bundles. The skill in the header is measured on the sessions' own validation parts, afterwards."""
    began = time.process_time()
    found = sources(bundles, config.seed if shuffled else None)
    fit = train.fit(train.Plan(config, found, config.seed))
    skill = [
        train.skill(fit.model, sessions.split(one.session).validation, source.scale, config.outputs, row)
        for row, (one, source) in enumerate(zip(bundles, found, strict=True))
    ]
    header = pretrain.Header(
        format=pretrain.FORMAT,
        bin_ns=found[0].train.bin_ns,
        config=config,
        specs=fit.model.specs,
        sessions=tuple(pretrain.row(source) for source in found),
        best_step=fit.best_step,
        validation_skill=float(np.nanmean(skill)),
        seconds=time.process_time() - began,
    )
    return Pretrained(header, fit.model)


def kept(path: Path, bundles: list[Bundle], config: PretrainConfig, shuffled: bool = False) -> Pretrained:
    """The trunk in `path`, trained and saved there if it is missing or of another configuration."""
    if path.exists() and (found := pretrain.load(path)).header.config == config:
        return found
    made = make(bundles, config, shuffled)
    pretrain.save(made, path)
    return made


def main() -> None:
    """`python -m benchmarks.studies.trunks`: a NEDS of all sessions for each mask and seed, for the region map."""
    parser = argparse.ArgumentParser(description="train NEDS on all sessions: multimodal, decoding and encoding masks")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for regions-KIND-seedN.safetensors")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    bundles = read_folder(given.folder)
    for seed, (kind, masks) in itertools.product(range(given.seeds), MASKS.items()):
        config = config_of(bundles, MODEL, masks, FIT, seed)
        path = given.out / f"regions-{kind}-seed{seed}.safetensors"
        header = kept(path, bundles, config).header
        print(
            f"{path}: {header.best_step} steps, validation skill {header.validation_skill:.3f}, {header.seconds:.0f} s"
        )


if __name__ == "__main__":
    main()
