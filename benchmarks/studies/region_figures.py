"""Pictures of the brain-region map: units in the plane, and which regions are taken for which."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import matplotlib as mpl
import numpy as np

from neds_core.errors import ConfigError
from neds_core.files import make_folder, whole
from neds_core.scores import regions
from neds_core.scores.regions import Places

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# Okabe & Ito 2008: told apart with every common colour blindness; the marker says the rest.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MARKERS = ("o", "^", "s", "D")


def plane(x: np.ndarray, projection: str, seed: int = 0) -> tuple[np.ndarray, tuple[str, str]]:
    """Units in two dimensions (n, 2), and the axes' labels; projection "pca" or "umap" (extra `map`)."""
    if projection == "pca":
        place, share = regions.principal_plane(x)
        return place, (f"component 1 ({share[0]:.0%} of variance)", f"component 2 ({share[1]:.0%})")
    try:
        umap = import_module("umap")
    except ModuleNotFoundError:
        raise ConfigError("UMAP is not installed; pip install 'neds-rt[map]', or choose --projection pca") from None
    z = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)
    return umap.UMAP(random_state=seed, n_jobs=1).fit_transform(z), ("UMAP 1", "UMAP 2")


def draw_map(axes: Axes, place: np.ndarray, places: Places, labels: tuple[str, str]) -> None:
    """One point a unit, coloured by its true region; the plane never saw the regions."""
    for c, name in enumerate(places.names):
        mine = places.label == c
        style = {"color": COLOURS[c % len(COLOURS)], "marker": MARKERS[(c + c // len(COLOURS)) % len(MARKERS)]}
        axes.scatter(*place[mine].T, s=14, lw=0, alpha=0.8, label=f"{name} ({mine.sum()})", **style)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.spines[["top", "right"]].set_visible(False)


def draw_confusion(axes: Axes, counts: np.ndarray, names: tuple[str, ...]) -> None:
    """Share of each true region's units (row) that were given each region (column)."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1e-9)
    axes.imshow(share, cmap="cividis", vmin=0.0, vmax=1.0)
    for (i, j), value in np.ndenumerate(share):
        colour = "black" if value > 0.5 else "white"
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("region given")
    axes.set_ylabel("true region")


def draw(
    folder: Path, places: Places, shown: dict[str, np.ndarray], confusion: dict[str, list[list[float]]], projection: str
) -> list[Path]:
    """Write one map a model (`shown`: features (n, F)) and one confusion matrix a row; returns the files."""
    make_folder(folder)
    written = []
    for model, x in shown.items():
        place, labels = plane(x, projection)
        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        draw_map(axes, place, places, labels)
        axes.set_title(f"unit embeddings, {model} ({len(places.label)} units)", fontsize=9)
        written.append(folder / f"region_map_{projection}_{_slug(model)}.png")
        with whole(written[-1]) as partial:
            figure.savefig(partial, dpi=130, format="png")
        plt.close(figure)
    for name, counts in confusion.items():
        side = 2.2 + 0.36 * len(places.names)
        figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
        draw_confusion(axes, np.array(counts), places.names)
        axes.set_title(name, fontsize=9)
        written.append(folder / f"region_confusion_{_slug(name)}.png")
        with whole(written[-1]) as partial:
            figure.savefig(partial, dpi=130, format="png")
        plt.close(figure)
    return written


def _slug(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name).split())
