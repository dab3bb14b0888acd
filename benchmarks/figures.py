"""Figures of measured results, by kind of picture. Colours: Okabe & Ito 2008, told apart also by the colour-blind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neds_core.data.session import BehaviourSpec
from neds_core.files import whole
from neds_core.scores.bits import Tuning

mpl.use("Agg")

from matplotlib import pyplot as plt

BLACK, ORANGE, SKY, GREEN, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
SERIES = {"neds": RED, "ridge": BLUE, "blend": GREEN}
LOWEST = -1.0  # an R2 below it says no more than that the target hardly varies there


@contextmanager
def canvas(out: Path, width: float = 5.0, height: float = 3.2, **subplots: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure of `width` by `height` inches, written to `out` at the end."""
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained", **subplots)
    try:
        yield figure, axes
        for each in np.atleast_1d(axes).flat:
            each.spines[["top", "right"]].set_visible(False)
        with whole(out) as partial:
            figure.savefig(partial, dpi=110, format=out.suffix.removeprefix("."))
    finally:
        plt.close(figure)


def traces(
    measured: np.ndarray, decoded: np.ndarray, segment: np.ndarray, bin_s: float, spec: BehaviourSpec, out: Path
) -> None:
    """Decoded over measured values (n,) in units, over the trials of `segment` (n,), joined."""
    t_s = np.arange(len(measured)) * bin_s
    with canvas(out, 10, 3) as (_, axes):
        axes.plot(t_s, measured, color="0.55", lw=1.4, label="measured")
        axes.plot(t_s, decoded, color=RED, lw=1.4, label="decoded from spikes")
        for start in np.flatnonzero(np.diff(segment)):
            axes.axvline(t_s[start + 1], color="0.85", lw=0.8, zorder=0)
        axes.set_xlabel("time in held-out trials, joined (s)")
        axes.set_ylabel(labelled(spec))
        axes.legend(frameon=False, loc="upper right")


def labelled(spec: BehaviourSpec) -> str:
    """Axis label of a behaviour, unit included."""
    unit = "class" if spec.kind == "class" else spec.unit
    return spec.name.replace("_", " ") + (f" ({unit})" if unit else "")


def curve(
    x: list[float], series: dict[str, list[float | None]], x_label: str, y_label: str, out: Path, level: float = 0.0
) -> None:
    """Scores against time; gaps where a score is not defined. `level`: where chance or the mean lies."""
    with canvas(out) as (_, axes):
        for (name, values), colour in zip(series.items(), [RED, BLUE, GREEN, ORANGE, PURPLE], strict=False):
            y = np.array([np.nan if v is None else v for v in values])
            axes.plot(x, y, color=SERIES.get(name, colour), lw=1.5, label=name.replace("_", " "))
        axes.axhline(level, color="0.7", lw=0.8)
        axes.axvline(0.0, color="0.85", lw=0.8, zorder=0)
        if axes.get_ylim()[0] < LOWEST:
            axes.set_ylim(LOWEST, 1.0)
            y_label = f"{y_label} (below {LOWEST:g} not shown)"
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend(frameon=False)


def reliability(row: dict[str, Any], name: str, out: Path) -> None:
    """Accuracy against confidence (Guo et al. 2017, fig. 1), area of a point in proportion to its trials."""
    known = [i for i, n in enumerate(row["n"]) if n]
    with canvas(out, 3.4, 3.2) as (_, axes):
        axes.plot([0, 1], [0, 1], color="0.7", lw=0.8)
        x, y, n = (np.array([row[key][i] for i in known], float) for key in ("confidence", "accuracy", "n"))
        axes.plot(x, y, color=RED, lw=1)
        axes.scatter(x, y, 200.0 * n / n.max(), color=RED, alpha=0.7)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence (probability)", ylabel="accuracy (share of trials)")
        axes.set_title(f"{name.replace('_', ' ')}, ECE {row['ece']:.3f}", fontsize="medium")


def bars(rows: dict[str, tuple[float, float, float]], y_label: str, out: Path) -> None:
    """A value with its 95 % interval for each name."""
    value, low, high = np.array(list(rows.values())).T
    with canvas(out, 1.6 + 0.8 * len(rows), 3.4) as (_, axes):
        axes.bar(range(len(rows)), value, color=SKY, yerr=(value - low, high - value), ecolor=BLACK, capsize=3)
        axes.axhline(0.0, color=BLACK, lw=0.8)
        axes.set_xticks(range(len(rows)), [n.replace("_", "\n") for n in rows], fontsize="small")
        axes.set_ylabel(y_label)


def raster(counts: np.ndarray, rates: np.ndarray, bin_ms: float, starts: np.ndarray, out: Path) -> None:
    """Spikes (n, U) beside predicted rates (n, U) spikes a bin, units in the order given; starts: bins of trials."""
    hz = 1000.0 / bin_ms
    with canvas(out, 10, 5, nrows=2, sharex=True) as (figure, axes):
        top = float(np.quantile(rates, 0.99)) * hz
        extent = (0.0, len(counts) * bin_ms * 1e-3, -0.5, counts.shape[1] - 0.5)
        axes[0].imshow(
            counts.T, aspect="auto", origin="lower", cmap="Greys", vmax=2, extent=extent, interpolation="nearest"
        )
        shade = axes[1].imshow(
            rates.T * hz, aspect="auto", origin="lower", cmap="cividis", vmax=top, extent=extent,
            interpolation="nearest",
        )  # fmt: skip
        figure.colorbar(shade, ax=axes[1], label="predicted rate (Hz)")
        for each, title in zip(axes, ("spikes", "predicted from behaviour"), strict=True):
            each.set_title(title, fontsize="medium")
            each.set_ylabel("unit")
            for start in starts:
                each.axvline(start * bin_ms * 1e-3, color="0.6", lw=0.5)
        axes[1].set_xlabel("time in held-out trials, joined (s)")


def tuning(found: Tuning, spec: BehaviourSpec, bin_ms: float, out: Path) -> None:
    """Empirical and predicted tuning of each unit (K, U), a panel each."""
    hz = 1000.0 / bin_ms
    n_units = found.empirical.shape[1]
    with canvas(out, 9, 5, nrows=3, ncols=-(-n_units // 3), sharex=True, squeeze=False) as (figure, axes):
        panels: list[Axes] = list(axes.flat)
        for u, each in enumerate(panels[:n_units]):
            each.plot(found.centre, found.empirical[:, u] * hz, "o", ms=3, color="0.4", label="empirical")
            each.plot(found.centre, found.predicted[:, u] * hz, color=RED, lw=1.4, label="predicted")
            each.tick_params(labelsize="small")
        for each in panels[n_units:]:
            each.set_axis_off()
        panels[0].legend(frameon=False, fontsize="small")
        figure.supxlabel(labelled(spec))
        figure.supylabel("rate (Hz)")
