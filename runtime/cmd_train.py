"""`neds-rt train CONFIG.toml`: NEDS and the linear decoder beside it, from one recording."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

if TYPE_CHECKING:
    from neds_core.train import Progress


class Log:
    """Progress bar and CSV: one row a step, validation skill where it was measured."""

    def __init__(self, path: Path) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.path = path
        self.file: TextIO | None = None  # opened by the first step: a training that is refused leaves nothing
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self.task = self.bar.add_task("start", total=None, note="")
        self.name = "start"

    def stage(self, name: str) -> None:
        """A new stage of the training."""
        self.name = name
        self.bar.reset(self.task, total=None, description=name, note="")

    def step(self, progress: Progress) -> None:
        """One optimisation step."""
        terms = " ".join(f"{k}={v:.4f}" for k, v in progress.terms.items())
        if self.file is None:
            self.file = self.path.open("w", newline="", encoding="utf-8")
            csv.writer(self.file).writerow(["stage", "step", "loss", "validation_skill", "terms"])
        csv.writer(self.file).writerow([self.name, progress.step, f"{progress.loss:.5f}", progress.skill, terms])
        self.bar.update(self.task, completed=progress.step, total=progress.steps)
        if progress.skill is not None:
            self.bar.update(self.task, note=f"validation skill {progress.skill:.3f}")

    def __enter__(self) -> Log:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self.file is not None:
            self.file.close()


def train(
    config: Annotated[Path, typer.Argument(help="training CONFIG.toml")],
    out: Annotated[Path | None, typer.Option(help="checkpoint to write; default: beside the config")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="training seed; repeat for several checkpoints")] = None,
) -> None:
    """Train, stop on validation, refit, and write a checkpoint. Ctrl-C keeps the best so far."""
    from neds_core import checkpoint as checkpoints, config as configs, pretrain, release
    from neds_core.errors import ConfigError

    settings = configs.load(config, configs.TrainConfig)
    recording = (config.parent / settings.recording).resolve()
    base = out or config.with_suffix(".safetensors")
    if not base.parent.is_dir():
        raise ConfigError(f"--out {base}: its folder does not exist; make it first")
    seeds = seed or [0]
    trunk = pretrain.load(config.parent / settings.finetune.trunk) if settings.finetune.trunk else None
    linears = None
    for number in seeds:
        path = base if len(seeds) == 1 else base.with_stem(f"{base.stem}-seed{number}")
        with Log(path.with_suffix(".csv")) as log:
            made, fit, linears = release.release(
                settings, recording, number, path.stem, linears, log.step, log.stage, trunk
            )
        if fit.best_step == 0:
            print(f"stopped before the first validation, nothing written to {path}")
            return
        checkpoints.save(made, path)
        state = "interrupted, best so far" if fit.interrupted else "done"
        print(
            f"{path}: {state}; best step {fit.best_step}, validation skill {fit.best_skill:.3f}, "
            f"{made.header.record.seconds:.0f} s, {path.stat().st_size / 1e6:.2f} MB"
        )
        if fit.interrupted:
            return
