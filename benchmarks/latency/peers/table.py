"""The two tables, the gate, and the picture of `neds-rt bench peers`, from its JSON alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cost.full_forward import GATE_FLOAT32
from benchmarks.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, canvas
from benchmarks.latency.figures import exceeded
from benchmarks.latency.peers.rows import DEMO, NO_SIZE, OURS, PUBLISHED
from runtime.core.latency import Latency

FULL = ("eager", "onnx", "compile")
LEAST = {"full": 30.0, "kv": 5.0}  # times our step, p50, at the published size
MOST_OF_KALMAN = 1.5
LEAST_COMPARED = 0.99  # of the bins
COLUMNS = (
    "", "step p50 / p99", "edge to pub p50 / p99 / p99.9 / max", "edge to sub p99", "missed",
    "stall: empty / old of sent", "back after it", "R2 wheel, whisker",
)  # fmt: skip
TITLES = {
    PUBLISHED: "Published size: 5 layers, width 256, 500 tokens. Transformers have random weights, so no skill",
    DEMO: "The demo's checkpoint",
}
COLOURS = (RED, BLUE, GREEN, ORANGE, PURPLE, SKY, BLACK, "0.5", "0.7")


def gate(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios of one run, and a line for each that is broken. What a ratio needs and was not measured leaves it out."""
    timed = {(row["size"], row["program"], row["decoder"]): row for row in found if "step_ms" in row}
    ratios, broken = dict[str, float](), [f"{_name(row)} is {row['wrong']}" for row in found if row["wrong"]]
    ours = timed.get((PUBLISHED, OURS, "neds"))
    for name, decoders in (("full", FULL), ("kv", ("kv",))):
        peers = [row for d in decoders if (row := timed.get((PUBLISHED, "loop", d))) is not None]
        if ours is not None and peers:
            ratios[f"{name}_step"] = _over(min(_p50(row) for row in peers), _p50(ours))
            if ratios[f"{name}_step"] < LEAST[name]:
                broken.append(f"ours is {ratios[f'{name}_step']} times faster than {name}: the gate is {LEAST[name]:g}")
    kalman = timed.get((NO_SIZE, "loop", "kalman"))
    for size in (PUBLISHED, DEMO):
        mine = timed.get((size, OURS, "neds"))
        if mine is not None and kalman is not None:
            key = f"{size}_p99_over_kalman"
            ratios[key] = _over(mine["edge_to_pub_ms"]["p99"], kalman["edge_to_pub_ms"]["p99"])
            if ratios[key] > MOST_OF_KALMAN:
                broken.append(f"p99 of edge_to_pub_ms at the {size} size is {ratios[key]} times that of the Kalman "
                              f"filter: the gate is {MOST_OF_KALMAN:g}")  # fmt: skip
    broken += [line for row in timed.values() if "received" in row and (line := _unequal(row))]
    for row in found:
        if row["program"] == OURS and "stall" in row and (n := row["stall"]["empty"] + row["stall"]["old"]):
            broken.append(f"{_name(row)} sent {n} messages of a wrong age")
    return {"ratios": ratios, "broken": broken, "passed": not broken}


def _unequal(row: dict[str, Any]) -> str:
    """Why the values that a subscriber received are not shown to be those of our engine, '' = they are."""
    if not row["received"] or row["received"] < LEAST_COMPARED * row["received_of"]:
        return (f"{_name(row)}: values of {row['received']} of {row['received_of']} bins were received: the gate is "
                f"{LEAST_COMPARED:g} of them")  # fmt: skip
    if not row["received_max_abs"] <= GATE_FLOAT32:
        return f"{_name(row)}: received values are off by {row['received_max_abs']:.2e}: the gate is {GATE_FLOAT32:g}"
    return ""


def _p50(row: dict[str, Any]) -> float:
    return row["step_ms"]["p50"]


def _over(a: float, b: float) -> float:
    return round(a / b, 2)


def _name(row: dict[str, Any]) -> str:
    return f"{row['name']} ({row['size']})" if row["size"] else row["name"]


def _tables(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table; of a run without a sized row, all in one."""
    sizes = [size for size in TITLES if any(row["size"] == size for row in result["rows"])] or [DEMO]
    return {size: [row for row in result["rows"] if row["size"] in (size, NO_SIZE)] for size in sizes}


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The tables as markdown, then the gate."""
    for size, shown in _tables(result).items():
        yield f"{TITLES[size]}."
        yield ""
        yield f"| {' | '.join(COLUMNS)} |"
        yield "| --- " * len(COLUMNS) + "|"
        yield from map(_row, shown)
        yield ""
    told = result["gate"]
    yield ", ".join(f"{name} {value:g}" for name, value in told["ratios"].items()) or "no ratio was measured"
    yield from told["broken"] or ["the gate holds"]
    per_row = result["rounds"] * result["trials"]
    yield f"{result['rounds']} launches of each row, {result['trials']} held-out trials each ({per_row} in all); ms"


def _row(row: dict[str, Any]) -> str:
    if "step_ms" not in row:
        return f"| {row['name']} | {row['skipped'] or 'RED: ' + row['wrong']}{' |' * (len(COLUMNS) - 1)}"
    step, pub, stall = row["step_ms"], row["edge_to_pub_ms"], row["stall"]
    times = " / ".join(f"{pub[p]:.2f}" for p in ("p50", "p99", "p99.9", "max"))
    skill = "-" if row["r2"] is None else ", ".join(f"{row['r2'][n]['value']:.3f}" for n in row["r2"] if n != "trials")
    return (
        f"| {row['name']} | {step['p50']:.3f} / {step['p99']:.3f} | {times} | {row['edge_to_sub_ms']['p99']:.2f} "
        f"| {row['deadline_misses']} of {row['scheduled']} | {stall['empty']} / {stall['old']} of {stall['messages']} "
        f"| {stall['back']} of {stall['after']} | {skill} |"
    )


def draw(result: dict[str, Any], stem: Path) -> dict[str, Path]:
    """Write STEM.cdf.png: for each table, the share of the bins that took longer; returns title -> file."""
    out, tables = stem.with_name(f"{stem.name}.cdf.png"), _tables(result)
    with canvas(out, 9, 4 * len(tables), nrows=len(tables), sharex=True, squeeze=False) as (_, axes):
        for panel, (size, rows) in zip(axes[:, 0], tables.items(), strict=True):
            shown = [row for row in rows if "histogram" in row]
            for k, row in enumerate(shown):
                x, y = exceeded(Latency.decoded(row["histogram"]))
                style = "-" if k < len(COLOURS) else "--"
                panel.step(x, y, style, where="post", color=COLOURS[k % len(COLOURS)], lw=1.3, label=row["name"])
            panel.axvline(20.0, color="0.6", lw=0.8, ls="--")
            panel.set(xscale="log", yscale="log", ylabel="share that took longer", title=f"{size} size")
            panel.grid(color="0.9", lw=0.6)
            panel.legend(frameon=False, fontsize="x-small", ncols=2)
        axes[-1, 0].set_xlabel("bin edge to published (ms)")
    return {"Bin edge to published: share of the bins that took longer": out}
