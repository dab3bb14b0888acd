"""Figures of measured results, by kind of picture. Colours: Okabe & Ito 2008, told apart also by the colour-blind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from neds_core.data.session import BehaviourSpec
from neds_core.files import whole
from neds_core.scores.bits import Tuning

mpl.use("Agg")

from matplotlib import pyplot as plt

BLACK, ORANGE, SKY, GREEN, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
SERIES = {"measured": "0.45", "neds": RED, "ridge": BLUE, "blend": GREEN}
NAMES = {"neds": "NEDS"}  # as people read them
Out = Path | BytesIO
LOWEST = -1.0  # an R2 below it says no more than that the target hardly varies there


@contextmanager
def canvas(out: Out, width: float = 5.0, height: float = 3.2, **subplots: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure of `width` by `height` inches, written to `out` at the end: a file, or bytes of a PNG."""
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained", **subplots)
    try:
        yield figure, axes
        for each in np.atleast_1d(axes).flat:
            each.spines[["top", "right"]].set_visible(False)
        if isinstance(out, BytesIO):
            figure.savefig(out, dpi=110, format="png")
            return
        with whole(out) as partial:
            figure.savefig(partial, dpi=110, format=out.suffix.removeprefix("."))
    finally:
        plt.close(figure)


def traces(
    t_s: np.ndarray, lines: dict[str, np.ndarray], starts: np.ndarray, title: str, y_label: str, out: Out
) -> None:
    """Lines (n,) over t_s (n,), seconds in the recording: "measured" and decoders. starts: rows that begin a segment.

    Nothing is drawn across the beginning of a segment, or where a value is NaN.
    """
    with canvas(out, 10, 2.9) as (_, axes):
        _over_time(axes, t_s, lines, starts)
        axes.set_title(title, fontsize="medium", loc="left")
        axes.set_ylabel(y_label)
        if y_label.endswith("(degrees)"):
            axes.set(ylim=(0, 360), yticks=range(0, 361, 90))


def _over_time(axes: Axes, t_s: np.ndarray, lines: dict[str, np.ndarray], starts: np.ndarray) -> None:
    """Lines over time, segments apart: a vertical line where one begins, a grey field where there is none."""
    bin_s = float(np.diff(t_s).min(initial=np.inf))
    for name, values in lines.items():
        x, y = np.insert(t_s, starts, t_s[starts]), np.insert(values.astype(float), starts, np.nan)
        lw = 1.8 if name == "measured" else 1.1
        axes.plot(x, y, color=SERIES.get(name, RED), lw=lw, label=NAMES.get(name, name))
    for start in starts:
        before_s, at_s = float(t_s[start - 1]), float(t_s[start]) - bin_s
        if at_s - before_s > 0.5 * bin_s:
            axes.axvspan(before_s, at_s, color="0.93", lw=0, zorder=0)
        axes.axvline(at_s, color="0.8", lw=0.8, zorder=0)
    axes.set_xlabel("time in the recording (s)" + ("; a line where a segment begins" if len(starts) else ""))
    axes.margins(x=0.01)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=len(lines), borderaxespad=0.1)


def track(
    t_s: np.ndarray, path: dict[str, np.ndarray], errors: dict[str, np.ndarray], starts: np.ndarray, title: str,
    labels: tuple[str, str, str], out: Out,
) -> None:  # fmt: skip
    """A path (n, 2), measured and decoded, beside how far (n,) decoders are off. labels: of x, y and the distance."""
    with canvas(out, 10, 3.6, ncols=2, width_ratios=(1, 1.6)) as (figure, (left, right)):
        figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
        for name, xy in path.items():
            x, y = (np.insert(xy[:, k].astype(float), starts, np.nan) for k in (0, 1))
            lw = 2.4 if name == "measured" else 0.9
            left.plot(x, y, color=SERIES.get(name, RED), lw=lw, label=NAMES.get(name, name))
        left.set(xlabel=labels[0], ylabel=labels[1])
        left.set_aspect("equal", adjustable="datalim")
        left.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 0.99), ncols=2, borderaxespad=0.1)
        _over_time(right, t_s, errors, starts)
        right.set_ylabel(labels[2])
        right.set_ylim(bottom=0.0)


def learning(curves: dict[str, list[tuple[int, float]]], best: dict[str, int], out: Out) -> None:
    """Validation skill against the step, a curve a network; a ring at the step `best` whose weights were kept."""
    with canvas(out, 6, 3) as (_, axes):
        for (name, points), colour in zip(
            curves.items(), (RED, BLUE, GREEN, ORANGE, PURPLE, SKY, BLACK) * 9, strict=False
        ):
            axes.plot(*zip(*points, strict=True), "o-", ms=2.5, lw=1.2, color=colour, label=name)
            kept = [point for point in points if point[0] == best[name]]
            axes.plot(*zip(*kept, strict=True), "o", ms=10, mfc="none", color=colour)
        axes.set(xlabel="training step (ring: kept)", ylabel="skill on validation")
        axes.legend(frameon=False, loc="lower right")


def rates(kept: np.ndarray, left_out: np.ndarray, out: Out) -> None:
    """How many units fire how often: rates (n,) in Hz of those that are used and of the others."""
    each = {f"used ({len(kept)})": (kept, SKY), f"left out ({len(left_out)})": (left_out, "0.6")}
    shown = {label: (rate[rate > 0], colour) for label, (rate, colour) in each.items() if len(rate)}
    fired = [rate for rate, _ in shown.values()]
    low, high = (np.concatenate(fired).min() * 0.99, np.concatenate(fired).max() * 1.01)
    with canvas(out, 6, 3) as (_, axes):
        bins = np.geomspace(low, high, 1 + int(np.clip(len(kept) // 4, 8, 30)))
        axes.hist(fired, bins, stacked=True, color=[colour for _, colour in shown.values()], label=list(shown))
        axes.set(xscale="log", xlabel="rate (Hz)", ylabel="units")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1e3 * low else (1,)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)


def confusion(
    tables: dict[str, np.ndarray],
    classes: tuple[str, ...],
    name: str,
    out: Out,
    missing: Mapping[str, int] | None = None,
) -> None:
    """Trials of each class (rows) and what was decoded (columns), a table (C, C) a decoder; shade: share of the row.

    missing: trials that a decoder has no value of, which its table leaves out and its title says.
    """
    side = 1.3 + 0.5 * len(classes)
    with canvas(out, 0.8 + len(tables) * (side + 0.4), side + 0.5, ncols=len(tables), squeeze=False) as (_, (panels,)):
        for axes, (decoder, n) in zip(panels, tables.items(), strict=True):
            share = n / np.maximum(n.sum(1, keepdims=True), 1)
            axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
            for (row, column), count in np.ndenumerate(n):
                colour = "white" if share[row, column] > 0.6 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour)
            axes.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
            axes.set_yticks(range(len(classes)), classes)
            n_missing = (missing or {}).get(decoder, 0)
            without = f"\n{n_missing} without a value" if n_missing else ""
            axes.set_title(NAMES.get(decoder, decoder) + without, fontsize="medium")
            axes.set_xlabel("decoded")
        panels[0].set_ylabel(f"{name.replace('_', ' ')}, trials")


def labelled(spec: BehaviourSpec) -> str:
    """Axis label of a behaviour, unit included."""
    unit = "class" if spec.kind == "class" else spec.unit
    return spec.name.replace("_", " ") + (f" ({unit})" if unit else "")


def curve(
    x: list[float], series: dict[str, list[float | None]], x_label: str, y_label: str, out: Out, level: float = 0.0
) -> None:
    """Scores against time; gaps where a score is not defined. `level`: where chance or the mean lies."""
    with canvas(out) as (_, axes):
        for (name, values), colour in zip(series.items(), [RED, BLUE, GREEN, ORANGE, PURPLE], strict=False):
            y = np.array([np.nan if v is None else v for v in values])
            axes.plot(x, y, color=SERIES.get(name, colour), lw=1.5, label=NAMES.get(name, name.replace("_", " ")))
        axes.axhline(level, color="0.7", lw=0.8)
        axes.axvline(0.0, color="0.85", lw=0.8, zorder=0)
        if axes.get_ylim()[0] < LOWEST:
            axes.set_ylim(LOWEST, 1.0)
            y_label = f"{y_label}\n(below {LOWEST:g} not shown)"
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend(frameon=False)


def reliability(row: dict[str, Any], name: str, out: Out) -> None:
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
