"""`neds-rt train CONFIG.toml`: NEDS and the linear decoder beside it from one recording, or one NEDS for many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from neds_core.train.log import Progress


class Bar:
    """Progress bar of the stage at hand, with the last validation skill."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self.task = self.bar.add_task("start", total=None, note="")

    def stage(self, name: str) -> None:
        """A new stage of the training."""
        self.bar.reset(self.task, total=None, description=name, note="")

    def tick(self, done: int, total: int) -> None:
        """Fits of the linear search."""
        self.bar.update(self.task, completed=done, total=total)

    def say(self, line: str) -> None:
        """A line above the bar."""
        print(line, flush=True)

    def step(self, progress: Progress) -> None:
        """One optimisation step."""
        self.bar.update(self.task, completed=progress.step, total=progress.steps)
        if progress.skill is not None:
            self.bar.update(self.task, note=f"validation skill {progress.skill:.3f}")


def train(
    config: Annotated[Path, typer.Argument(help="training CONFIG.toml")],
    out: Annotated[Path | None, typer.Option(help="checkpoint to write; default: beside the config")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="training seed; repeat for several checkpoints")] = None,
) -> None:
    """Train, stop on validation, refit, and write a checkpoint.

    Ctrl-C or SIGTERM ends after the step at hand and keeps the best so far; the same command goes on. Under torchrun:
    `python -m neds_core.train`, which trains the same.
    """
    from kernels.attention import attention
    from neds_core.train import command as train_command

    bar = Bar()
    with bar.bar:
        train_command.run(config, out, seed or [], bar, attention)
