"""`neds-rt train CONFIG.toml`: NEDS and the linear decoder beside it from one recording, or one NEDS for many."""

from __future__ import annotations

import shlex
from functools import partial
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
    report: Annotated[Path | None, typer.Option(help="report to write; default: CHECKPOINT.report.html")] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="write no report")] = False,
) -> None:
    """Train, stop on validation, refit, and write a checkpoint and a report of it (HTML).

    Ctrl-C or SIGTERM ends after the step at hand and keeps the best so far; the same command goes on. Under torchrun:
    `python -m neds_core.train`, which trains the same and makes no report.
    """
    from kernels.attention import attention
    from neds_core.errors import ConfigError
    from neds_core.train import command as train_command
    from runtime.cli.page import page_for, write
    from runtime.start import called

    recipe = train_command.read(config)
    source = recipe.recording
    if report is not None and (source is None or len(seed or []) > 1):
        raise ConfigError("--report is for one checkpoint of one recording; leave it out")
    if report is not None or no_report:
        page_for(report, no_report, config)
    bar = Bar()
    with bar.bar:
        made = train_command.train(recipe, out, seed or [], bar, attention)
    if source is None or not made:
        return
    for checkpoint in made:
        if (page := page_for(report, no_report, checkpoint)) is not None:
            from benchmarks.accuracy import reported

            if write(partial(reported.training, checkpoint, source), page, asked=report is not None):
                print(f"report of {checkpoint}: {page}")
    print(f"next: {called('neds-rt')} evaluate {shlex.join(map(str, (source, *made)))}")
