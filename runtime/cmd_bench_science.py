"""`neds-rt bench degraded` and `bench regions`: worse sorting, and the brain-region map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def degraded(
    recording: Annotated[Path, typer.Argument(help="a Session.npz")],
    checkpoints: Annotated[list[Path], typer.Argument(help="one checkpoint for each training seed")],
    draws: Annotated[int, typer.Option(min=1, help="random draws of each condition")] = 5,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Score neds, ridge and blend on held-out spikes that were deleted, merged, lost or left unsorted."""
    import msgspec
    import torch

    from benchmarks import degraded as bench

    torch.set_num_threads(1)
    result = bench.bench(recording, checkpoints, draws)
    print(msgspec.json.encode(result).decode() if json else "\n".join(bench.lines(result)))


def regions(
    recordings: Annotated[list[Path], typer.Argument(help="Session.npz; several: one is left out at a time")],
    model: Annotated[list[str] | None, typer.Option(help="NAME=CHECKPOINT, one for each seed and recording")] = None,
    permutations: Annotated[int, typer.Option(min=0, help="shuffles of the labels within each session")] = 100,
    repeats: Annotated[int, typer.Option(min=1, help="draws of the folds of one recording")] = 5,
    min_animals: Annotated[int, typer.Option(min=1, help="animals that must have shown a region")] = 3,
    figures: Annotated[Path | None, typer.Option(help="folder for the maps and confusion matrices")] = None,
    projection: Annotated[str, typer.Option(help="pca, or umap (pip install 'neds-rt[map]')")] = "pca",
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Tell a unit's brain region from its embedding, beside what tells it without a model."""
    import msgspec

    from benchmarks import region_figures, regions as bench
    from neds_core.errors import ConfigError

    if projection not in ("pca", "umap"):
        raise ConfigError(f"--projection {projection}: not known; choose pca or umap")
    models = bench.parse_models(model or [])
    result, plan, shown = bench.bench(recordings, models, permutations, repeats, min_animals)
    if figures:
        for path in region_figures.draw(figures, plan.places, shown, result["confusion"], projection):
            print(f"wrote {path}")
    print(msgspec.json.encode(result).decode() if json else "\n".join(bench.lines(result)))
