"""The two tables, the gate, and the picture of `neds-rt bench peers`, from its JSON alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cost.full_forward import GATE_FLOAT32
from benchmarks.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, canvas
from benchmarks.latency.figures import exceeded
from benchmarks.latency.peers.rows import DEMO, FLOAT32, LOOP, NO_SIZE, OURS, PUBLISHED, ROWS, SMALLER, Key
from runtime.core.latency import Latency
from runtime.scoring.verify import BOUNDS

NEDS, KALMAN = Key(PUBLISHED, OURS, "neds"), (Key(NO_SIZE, LOOP, "kalman"),)
RATIOS: dict[str, tuple[Key, tuple[Key, ...]]] = {  # ours, and what it is taken over
    "full_step": (NEDS, tuple(Key(PUBLISHED, LOOP, name) for name in ("eager", "onnx", "compile"))),
    "kv_step": (NEDS, (Key(PUBLISHED, LOOP, "kv"),)),
    "published_p99_over_kalman": (NEDS, KALMAN),
    **{f"published_{kind}_p99_over_kalman": (NEDS._replace(weights=kind), KALMAN) for kind in SMALLER},
    "demo_p99_over_kalman": (Key(DEMO, OURS, "neds"), KALMAN),
}
LEAST = {"full_step": 30.0, "kv_step": 5.0}  # times our step, p50, at the published size
MOST_OF_KALMAN = 1.5
TAILS = {key for name, (ours, peers) in RATIOS.items() if name not in LEAST for key in (ours, *peers)}  # compared
LEAST_COMPARED = 0.99  # of the bins
MOST_MISSED = 0.01  # of the deadlines, by a row whose tail ours is held to: one that fails flatters
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
    """Ratios of one run, a line for each that is broken, and one for each that lacks a row that it is to be taken over.

    passed: None where nothing is broken but something is incomplete.
    """
    timed = {_key(row): row for row in found if "step_ms" in row}
    why = {_key(row): row["skipped"] or row["wrong"] for row in found}
    broken = [f"{_name(row)} is {row['wrong']}" for row in found if row["wrong"]]
    ratios, incomplete = dict[str, float](), list[str]()
    for name, (ours, peers) in RATIOS.items():
        lacking = [f"{_title(key)}: {why.get(key) or 'not measured'}" for key in (ours, *peers) if key not in timed]
        held = [timed[key] for key in peers if key in timed]
        if name not in LEAST and held and (failed := _failed(held[0])):
            lacking, held = [*lacking, failed], []
        if lacking:
            incomplete.append(f"{name} lacks {', '.join(lacking)}")
        if ours in timed and held:
            ratios[name], line = _ratio(name, timed[ours], held)
            broken += [line] if line else []
    broken += [line for row in timed.values() if "received" in row and (line := _unequal(row))]
    for row in found:
        if row["program"] == OURS and "stall" in row and (n := row["stall"]["empty"] + row["stall"]["old"]):
            broken.append(f"{_name(row)} sent {n} messages of a wrong age")
    passed = False if broken else None if incomplete else True
    return {"ratios": ratios, "broken": broken, "incomplete": incomplete, "passed": passed}


def _failed(row: dict[str, Any]) -> str:
    """Why a row's tail is none that ours can be held to, '' = it is one."""
    missed, n = row["deadline_misses"], row["scheduled"]
    return f"{_name(row)}: missed {missed} of {n}, measure again" if missed > MOST_MISSED * n else ""


def _ratio(name: str, ours: dict[str, Any], peers: list[dict[str, Any]]) -> tuple[float, str]:
    """A ratio over the fastest of the peers that were measured, and the line that says how it is broken, '' = not."""
    if name in LEAST:
        found = _over(min(_p50(row) for row in peers), _p50(ours))
        few = f"ours is {found} times faster than {name.removesuffix('_step')}: the gate is {LEAST[name]:g}"
        return found, few if found < LEAST[name] else ""
    found = _over(ours["edge_to_pub_ms"]["p99"], peers[0]["edge_to_pub_ms"]["p99"])
    many = (f"p99 of edge_to_pub_ms of {_name(ours)} is {found} times that of the Kalman filter: the gate is "
            f"{MOST_OF_KALMAN:g}")  # fmt: skip
    return found, many if found > MOST_OF_KALMAN else ""


def _key(row: dict[str, Any]) -> Key:
    return Key(row["size"], row["program"], row["decoder"], row["weights"])


def _title(key: Key) -> str:
    return next(f"{row.name} ({row.size})" if row.size else row.name for row in ROWS if row.key == key)


def most_apart(key: Key) -> float:
    """How far received values may be from our engine's, in z-scores: what the rounding of its weights may cost."""
    return GATE_FLOAT32 if key.weights == FLOAT32 else BOUNDS[key.weights]


def _unequal(row: dict[str, Any]) -> str:
    """Why the values that a subscriber received are not shown to be those of our engine, '' = they are."""
    if not row["received"] or row["received"] < LEAST_COMPARED * row["received_of"]:
        return (f"{_name(row)}: values of {row['received']} of {row['received_of']} bins were received: the gate is "
                f"{LEAST_COMPARED:g} of them")  # fmt: skip
    if not row["received_unequal"] or (row["program"] != OURS and _failed(row)):
        return ""  # a peer too slow for its bins closes some before it has read their spikes; its arithmetic was held
    return (f"{_name(row)}: received values of {row['received_unequal']} of {row['received']} bins are off, by up to "
            f"{row['received_max_abs']:.2e}: the gate is {most_apart(_key(row)):g}")  # fmt: skip


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
    yield from told["broken"]
    yield from (f"incomplete: {line}" for line in told["incomplete"])
    if told["passed"]:
        yield "the gate holds"
    rounds, trials = result["rounds"], result["trials"]
    yield (
        f"{rounds} launches of each row, {rounds * result['tail_launches']} of those whose tails are compared, "
        f"{trials} held-out trials each; ms"
    )


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
