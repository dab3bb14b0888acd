"""`neds-rt report`: the summary of a run again, from the log that it saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.output import emit


def report(
    log: Annotated[Path, typer.Argument(help="a log that neds-rt run --save-log wrote")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="the checkpoint of the run, where it no longer lies where the log says")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Print the summary of a saved run: the same as at its end, from its file and its checkpoint."""
    import torch

    from neds_core import checkpoint as checkpoints
    from neds_core.errors import CheckpointError
    from runtime.io import log_file
    from runtime.scoring import report as words, summary

    torch.set_num_threads(1)  # as at the end of a run: sums in the same order
    made = log_file.load(log)
    path = checkpoint or Path(made.header.checkpoint)
    if not path.is_file():
        raise CheckpointError(f"{path}, which decoded this run, is not there; give it with --checkpoint")
    loaded = checkpoints.load(path)
    if loaded.sha != made.header.model_sha:
        raise CheckpointError(
            f"{path} is {loaded.sha[:12]}, and this run was decoded by {made.header.model_sha[:12]}; "
            "give that one with --checkpoint"
        )
    found = summary.build(made, loaded)
    emit(found, None if json else lambda: words.lines(found), json)
