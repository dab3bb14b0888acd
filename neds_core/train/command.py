"""The command that trains: one recording or many, in one process or in all that `torchrun` started."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from neds_core import toml
from neds_core.config import PretrainConfig, TrainConfig
from neds_core.errors import ConfigError, NedsError
from neds_core.files import beside, without_ending
from neds_core.train import many, single
from neds_core.train.log import Lines, Show


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a file says of a training, read once. path: of the file, from whose folder its own paths start."""

    path: Path
    config: TrainConfig | PretrainConfig

    @property
    def recording(self) -> Path | None:
        """The one that is trained on; None = many."""
        config = self.config
        return (self.path.parent / config.recording).resolve() if isinstance(config, TrainConfig) else None


def read(path: Path) -> Recipe:
    """Read and check a TOML file. Raises `ConfigError` with the remedy."""
    found = toml.tree(path)
    if ("recording" in found) == ("recordings" in found):
        raise ConfigError(f"{path}: it has to name either recording (one file) or recordings (many); correct it")
    return Recipe(path, toml.convert(found, TrainConfig if "recording" in found else PretrainConfig, str(path)))


def train(
    recipe: Recipe, out: Path | None, seeds: list[int], show: Show, attend: Callable[..., Tensor] | None = None
) -> tuple[Path, ...]:
    """Train what a file says (see `single.run` and `many.run`); `out`: default beside the file.

    Returns the checkpoints of one recording that are done, in the first process alone.
    attend: what attends where the file asks for a GPU; None = torch.
    seeds: of a training of one recording, none = those of the file, or 0; many recordings have theirs in the file.
    """
    path, config = recipe.path, recipe.config
    out = out or beside(without_ending(path, ".toml"), ".safetensors")
    if isinstance(config, TrainConfig):
        return single.run(config, path.parent, out, seeds, show, attend)
    if seeds:
        raise ConfigError(f"--seed is for one recording; for many, set seed in {path}")
    many.run(config, path.parent, out, show, attend)
    return ()


def run(path: Path, out: Path | None, seeds: list[int], show: Show) -> tuple[Path, ...]:
    """Read a file, and train what it says."""
    return train(read(path), out, seeds, show)


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
