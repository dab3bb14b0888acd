"""`neds-rt bench ablation`: what each part of the demo's training is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.bench.checkout import from_checkout
from runtime.cli.bench.options import Json, Out
from runtime.cli.output import emit, note


def ablation(
    quick: Annotated[
        bool, typer.Option(help="the same rows with a few steps and one seed: shows that it runs")
    ] = False,
    json: Json = False,
    out: Out = None,
) -> None:
    """Change one part of the demo's training at a time, and score it inside the training part."""
    with from_checkout():
        from benchmarks.studies import ablation as study

    path = out or Path("runs") / ("ablation-quick.jsonl" if quick else "ablation.jsonl")
    result = study.result(study.run(path, quick, note), quick)
    emit(result, lambda: study.lines(result["table"]), json)
