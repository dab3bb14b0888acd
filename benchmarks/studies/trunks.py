"""Trunks of many sessions that are kept in files, with true or permuted labels."""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy.mice import trunks
from benchmarks.accuracy.mice.steinmetz import FOLDER, Bundle, read_folder
from neds_core.config import PretrainConfig
from neds_core.data.session import Session
from neds_core.train import many
from neds_core.train.many import Pretrained


def permuted(part: Session, seed: int) -> Session:
    """The part with its trials' labels dealt out anew among its trials; the labels of one trial stay together."""
    rng = np.random.default_rng(seed)
    bins = part.segments[:, :1] + np.arange(int(part.segments[0, 1] - part.segments[0, 0]))
    order = rng.permutation(len(bins))
    values = {name: value.copy() for name, value in part.values.items()}
    for name, value in values.items():
        value[bins] = part.values[name][bins[order]]
    return replace(part, values=values)


def permuted_parts(bundles: list[Bundle], seed: int) -> list[Session]:
    """The training parts, the labels of each session permuted by a seed of its own."""
    return [permuted(part, 1000 * seed + row) for row, part in enumerate(trunks.training_parts(bundles))]


def kept(path: Path, bundles: list[Bundle], config: PretrainConfig, parts: list[Session] | None = None) -> Pretrained:
    """The trunk in `path`, trained and saved there if it is missing or of another configuration."""
    if path.exists() and (found := many.load(path)).header.config == config:
        return found
    made = trunks.make(bundles, config, parts)
    many.save(made, path)
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
    for seed, (kind, masks) in itertools.product(range(given.seeds), trunks.MASKS.items()):
        config = trunks.config_of(bundles, trunks.MODEL, masks, trunks.FIT, seed)
        path = given.out / f"regions-{kind}-seed{seed}.safetensors"
        header = kept(path, bundles, config).header
        print(
            f"{path}: {header.best_step} steps, validation skill {header.validation_skill:.3f}, {header.seconds:.0f} s"
        )


if __name__ == "__main__":
    main()
