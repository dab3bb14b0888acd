"""Pictures of a latency report, from its JSON alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from benchmarks.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, canvas
from runtime.core.latency import Latency

SHOWN = {
    "edge_to_pub_ms": RED, "edge_to_sub_ms": BLACK, "wait_ms": SKY, "infer_ms": BLUE, "send_ms": GREEN,
    "sub_ms": ORANGE, "age_ms": PURPLE, "step_ms": RED, "take_ms": "0.5",
}  # fmt: skip
LINES = {
    ("edge_to_pub_ms", "p50"): (RED, "-"), ("edge_to_pub_ms", "p99"): (RED, "--"),
    ("edge_to_pub_ms", "max"): (RED, ":"), ("infer_ms", "p50"): (BLUE, "-"), ("infer_ms", "p99"): (BLUE, "--"),
}  # fmt: skip
AXES = {"units": ("units", "units"), "rate": ("rate", "spikes/s"), "bins": ("bin_ms", "bin (ms)")}
CAUSE_COLOURS = (RED, BLUE, GREEN, ORANGE, PURPLE, SKY, BLACK, "0.5")


def draw(result: dict[str, Any], stem: Path) -> dict[str, Path]:
    """Write STEM.cdf.png and STEM.timeline.png, or STEM.load.png of a sweep; returns title -> file."""
    if "tables" in result:
        load = stem.with_name(f"{stem.name}.load.png")
        sweep(result["tables"], load)
        return {"Cost against load": load}
    tail, time = (stem.with_name(f"{stem.name}.{name}.png") for name in ("cdf", "timeline"))
    cdf(result, tail)
    timeline(result, time)
    return {"Share of the bins that took longer": tail, "Second by second, with the missed deadlines": time}


def cdf(result: dict[str, Any], out: Path) -> None:
    """Share of the bins that took longer than t, on a logarithmic scale: the tail is what counts."""
    with canvas(out, 8, 4.5) as (_, axes):
        for name, colour in SHOWN.items():
            if name in result["histograms"] and result[name]["n"]:
                x, y = exceeded(Latency.decoded(result["histograms"][name]))
                axes.step(x, y, where="post", color=colour, lw=1.4, label=name.removesuffix("_ms").replace("_", " "))
        if "deadline_misses" in result:
            axes.axvline(result["budget_ms"], color="0.6", lw=0.8, ls="--")
        axes.set(xscale="log", yscale="log", xlabel="ms", ylabel="share of the bins that took longer")
        axes.grid(color="0.9", lw=0.6)
        axes.legend(frameon=False, fontsize="small", loc="lower left")


def exceeded(latency: Latency) -> tuple[np.ndarray, np.ndarray]:
    """Times in ms (m,) and the share (m,) of the samples at or beyond each."""
    found = [(item.value_iterated_to, item.count_at_value_iterated_to)
             for item in latency.histogram.get_recorded_iterator()]  # fmt: skip
    value, count = np.array(found, float).reshape(-1, 2).T
    return value * 1e-3, np.cumsum(count[::-1])[::-1] / count.sum()


def timeline(result: dict[str, Any], out: Path) -> None:
    """p50 and maximum of each second, the budget, and each missed deadline in the colour of its cause."""
    name = "edge_to_pub_ms" if "edge_to_pub_ms" in result else "step_ms"
    block = result["blocks"]
    with canvas(out, 8, 3.6) as (_, axes):
        t = np.arange(len(block["n"])) * block["seconds"]
        for statistic, colour in (("max", SKY), ("p50", BLUE)):
            y = np.array([np.nan if v is None else v for v in block[name][statistic]])
            axes.step(t, y, where="post", color=colour, lw=1.2, label=f"{statistic} of a second")
        if "deadline_misses" in result:
            axes.axhline(result["budget_ms"], color="0.6", lw=0.8, ls="--", label="budget")
        for k, cause in enumerate(dict.fromkeys(miss["cause"] for miss in result.get("misses", []))):
            mine = [miss for miss in result["misses"] if miss["cause"] == cause]
            at, ms = [m["t_s"] for m in mine], [m["ms"] for m in mine]
            axes.plot(at, ms, "x", ms=5, color=CAUSE_COLOURS[k], label=f"missed: {cause}")
        axes.set(
            yscale="log", xlabel="s after the warm-up", ylabel=f"{name.removesuffix('_ms').replace('_', ' ')} (ms)"
        )
        axes.legend(frameon=False, fontsize="small", ncols=3, loc="upper right")


def sweep(tables: dict[str, list[dict[str, Any]]], out: Path) -> None:
    """Latencies against what was swept, a panel each; a load that breaks its budget is crossed."""
    tall = max(len(rows) for name, rows in tables.items() if name not in AXES) if set(tables) - set(AXES) else 0
    with canvas(out, 4.6 * len(tables) + 2.4, max(4.0, 0.32 * tall), ncols=len(tables), squeeze=False) as (
        figure,
        axes,
    ):
        for (name, rows), axis in zip(tables.items(), axes[0], strict=True):
            if name in AXES:
                _against(*AXES[name], rows, axis)
            else:
                _named(rows, axis)
        handles = axes[0, 0].get_legend_handles_labels()
        figure.legend(*handles, frameon=False, fontsize="small", ncols=len(handles[0]), loc="outside upper center")


def _against(key: str, label: str, rows: list[dict[str, Any]], axis: Axes) -> None:
    rows = sorted(rows, key=lambda row: row[key])
    x = [row[key] for row in rows]
    for (name, p), (colour, style) in LINES.items():
        y = [_known(row[name][p]) for row in rows]
        axis.plot(x, y, style, marker="o", ms=3, color=colour, lw=1.3, label=f"{name.removesuffix('_ms')} {p}")
    axis.plot(x, [row["budget_ms"] for row in rows], "--", color="0.6", lw=0.8, label="budget")
    crossed = [row for row in rows if row["broken"]]
    at, most = [row[key] for row in crossed], [_known(row["edge_to_pub_ms"]["max"]) for row in crossed]
    axis.plot(at, most, "x", ms=9, color=BLACK, label="broken")
    axis.set(xscale="log", yscale="log", xlabel=label, ylabel="ms")


def _named(rows: list[dict[str, Any]], axis: Axes) -> None:
    rows = rows[::-1]  # the first on top
    y = range(len(rows))
    for p, marker in (("p50", "o"), ("p99", "s"), ("max", "|")):
        axis.plot([_known(row["edge_to_pub_ms"][p]) for row in rows], y, marker, ms=5, color=RED, label=p)
    axis.plot([_known(row["infer_ms"]["p50"]) for row in rows], y, "o", ms=4, color=BLUE, label="infer p50")
    axis.plot([row["budget_ms"] for row in rows], y, ":", color="0.6", lw=1, label="budget")
    crossed = [k for k in y if rows[k]["broken"]]
    most = [_known(rows[k]["edge_to_pub_ms"]["max"]) for k in crossed]
    axis.plot(most, crossed, "x", ms=9, color=BLACK, label="broken")
    axis.set_yticks(y, [row["load"] for row in rows], fontsize="small")
    axis.set(xscale="log", xlabel="bin edge to published (ms)")
    axis.grid(axis="y", color="0.92", lw=0.6)


def _known(value: float | None) -> float:
    return np.nan if value is None else value
