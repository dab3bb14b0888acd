"""The command that trains: one recording or many, in one process or in all that `torchrun` started."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct
from torch import Tensor

from neds_core import toml
from neds_core.errors import ConfigError, NedsError
from neds_core.files import beside, without_ending
from neds_core.train import many, single
from neds_core.train.log import Lines, Show


class Kind(Struct, frozen=True):
    """The keys that say what a configuration is of; the others are read later."""

    recording: Any = None
    recordings: Any = None


def run(
    path: Path, out: Path | None, seeds: list[int], show: Show, attend: Callable[..., Tensor] | None = None
) -> tuple[Path, ...]:
    """Train what a TOML file says (see `single.run` and `many.run`); `out`: default beside the file.

    Returns the checkpoints of one recording that are done, in the first process alone.
    attend: what attends where the file asks for a GPU; None = torch.
    seeds: of a training of one recording, none = those of the file, or 0; many recordings have theirs in the file.
    """
    kind = toml.load(path, Kind)
    if (kind.recording is None) == (kind.recordings is None):
        raise ConfigError(f"{path}: it has to name either recording (one file) or recordings (many); correct it")
    out = out or beside(without_ending(path, ".toml"), ".safetensors")
    if kind.recording is not None:
        return single.run(path, out, seeds, show, attend)
    if seeds:
        raise ConfigError(f"--seed is for one recording; for many, set seed in {path}")
    many.run(path, out, show, attend)
    return ()


def main() -> None:
    """`python -m neds_core.train CONFIG.toml`; exit 2 and one sentence for a user's error."""
    parser = argparse.ArgumentParser(prog="python -m neds_core.train", description="train NEDS; also under torchrun")
    parser.add_argument("config", type=Path, help="CONFIG.toml (neds_core.config.TrainConfig or PretrainConfig)")
    parser.add_argument("--out", type=Path, help="checkpoint to write; default: beside the config")
    parser.add_argument("--seed", type=int, action="append", default=[], help="training seed; repeat for several")
    given = parser.parse_args()
    try:
        run(given.config, given.out, given.seed, Lines())
    except NedsError as error:
        print(f"neds_core.train: {error}", file=sys.stderr)
        sys.exit(2)
