"""`neds-rt tune CONFIG.toml`: search learning rate, dropouts and masks on the validation part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.output import emit


def tune(
    config: Annotated[Path, typer.Argument(help="training CONFIG.toml to start from")],
    trials: Annotated[int, typer.Option(min=1, help="finished trainings to reach, earlier calls included")] = 30,
    seeds: Annotated[int, typer.Option(min=1, help="trainings a trial is averaged over")] = 1,
    storage: Annotated[Path | None, typer.Option(help="SQLite file to go on from; default: beside the config")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Search a configuration on validation only; the same command goes on where it stopped. Needs the [tune] extra."""
    from benchmarks.accuracy.tune import search

    def words(values: dict[str, float]) -> str:
        return " ".join(f"{k}={v:.4g}" for k, v in values.items())

    def say(number: int, value: float, values: dict[str, float]) -> None:
        print(f"trial {number}: {value:.4f} {words(values)}", flush=True)

    best = search(config, trials, storage or config.with_suffix(".sqlite"), seeds, say)
    emit(best, lambda: [f"best: {words(best)}"], json)
