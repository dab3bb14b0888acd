"""`neds-rt bench regions`: the brain-region map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.bench.checkout import from_checkout
from runtime.cli.bench.options import Json
from runtime.cli.options import taking
from runtime.cli.output import emit


@dataclass(frozen=True, slots=True)
class Options:
    """Of `neds-rt bench regions`."""

    recordings: Annotated[list[Path], typer.Argument(help="Session.npz; several: one is left out at a time")]
    model: Annotated[list[str] | None, typer.Option(help="NAME=CHECKPOINT, one for each seed and recording")] = None
    permutations: Annotated[int, typer.Option(min=0, help="shuffles of the labels within each session")] = 100
    repeats: Annotated[int, typer.Option(min=1, help="draws of the folds of one recording")] = 5
    min_animals: Annotated[int, typer.Option(min=1, help="animals that must have shown a region")] = 3
    figures: Annotated[Path | None, typer.Option(help="folder for the maps and confusion matrices")] = None
    projection: Annotated[str, typer.Option(help="pca, or umap (pip install 'neds-rt[map]')")] = "pca"
    json: Json = False


@taking(Options)
def regions(given: Options) -> None:
    """Tell a unit's brain region from its embedding, beside what tells it without a model."""
    from neds_core.errors import ConfigError

    with from_checkout():
        from benchmarks.studies import region_figures, regions as study

    if given.projection not in ("pca", "umap"):
        raise ConfigError(f"--projection {given.projection}: not known; choose pca or umap")
    models = study.parse_models(given.model or [])
    found = study.bench(given.recordings, models, study.Sizes(given.permutations, given.repeats, given.min_animals))
    result = found.result
    if given.figures:
        shown = found.plan.places, found.shown, result["confusion"]
        for path in region_figures.draw(given.figures, *shown, given.projection):
            print(f"wrote {path}")
    emit(result, None if given.json else lambda: study.lines(result), given.json)
