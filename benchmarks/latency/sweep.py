"""Where a budget breaks as the load grows, and in which stage: short runs of models with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import report
from benchmarks.cost.kernel_sweep import Size
from benchmarks.cost.random_models import for_a_run
from benchmarks.latency import bench, floor
from benchmarks.latency.bench import Asked, Say
from benchmarks.latency.budget import miss_share
from benchmarks.latency.load import Load
from neds_core.checkpoint import Checkpoint
from runtime.config import BinConfig, EngineConfig, InputConfig, OutputConfig, RigConfig

BROKEN = 1e-3  # more missed deadlines than this share of the bins break the budget
LATENESS_SHARE = 0.25  # of a bin: how long it waits for its last sample


@dataclass(frozen=True, slots=True)
class Point:
    """A load: units of the model, spikes a second of all together, ms of a bin. The budget is one bin."""

    units: int = 449
    rate: float = 10_000.0
    bin_ms: float = 20.0


FACTORS = {"units": "units", "rate": "rate", "bins": "bin_ms"}  # what is swept, as a column of the table
POINTS: dict[str, tuple[Point, ...]] = {
    "units": tuple(replace(Point(), units=n) for n in (100, 449, 1000, 2000)),
    "rate": tuple(replace(Point(), rate=float(n)) for n in (1_000, 10_000, 30_000, 100_000)),
    "bins": tuple(replace(Point(), bin_ms=float(n)) for n in (45, 20, 10, 5, 2, 1)),
}


def run(factor: str, seconds: float, warm_up_s: float, say: Say = lambda line: None) -> report.Report:
    """Measure every point of a factor, one of `POINTS`, for so many seconds each."""
    say("the floor of this machine")
    machine_floor = floor.measure(bench.FLOOR_S[0])
    rows = []
    for point in POINTS[factor]:
        say(f"{point.units} units, {point.rate:g} spikes/s, bins of {point.bin_ms:g} ms")
        rows.append(row(point, bench.paced(asked(point, seconds, warm_up_s), machine_floor=machine_floor)))
    found = {"factor": FACTORS[factor], "seconds": seconds, "floor_ms": machine_floor, "rows": rows}
    return report.begun("latency-sweep") | found


def asked(point: Point, seconds: float, warm_up_s: float) -> Asked:
    """The measurement of one point: the published width and layers, one stream of spikes, without markers."""
    config = RigConfig(
        "sweep", "", InputConfig("spikes"), bins=BinConfig(lateness_ms=LATENESS_SHARE * point.bin_ms),
        output=OutputConfig(budget_ms=point.bin_ms), engine=EngineConfig(decoder="neds"),
    )  # fmt: skip
    return Asked(config, Load(rate=point.rate, streams=1), seconds, warm_up_s, checkpoint=model(point))


def model(point: Point) -> Checkpoint:
    """Random weights at the headline's size for so many units, in bins of the point's width."""
    return for_a_run(Size(units=point.units), round(point.bin_ms * 1e6))


def row(point: Point, result: report.Report) -> dict[str, Any]:
    """One line of the table."""
    stages = result["miss_stages"]
    return {
        "units": point.units,
        "rate": point.rate,
        "bin_ms": point.bin_ms,
        "edge_to_pub_ms": result["edge_to_pub_ms"],
        "infer_ms": result["infer_ms"],
        "take_ms": result["take_ms"],
        "scheduled": result["scheduled"],
        "deadline_misses": result["deadline_misses"],
        "miss_share": miss_share(result),
        "miss_causes": {cause: n for cause, n in result["miss_causes"].items() if n},
        "broken": miss_share(result) > BROKEN,
        "stage": max(stages, key=lambda name: stages[name]) if stages else result["slowest_stage"],
        "spikes_lost_upstream": result["counters"]["spikes_lost_upstream"],
        "stolen_ms": result["stolen_ms"],
        "run_delay_ms": result["run_delay_ms"],
    }


def lines(result: report.Report) -> Iterator[str]:
    """The table: the budget is one bin."""
    head = ("units", "spikes/s", "bin ms", "p50", "p99", "max", "infer p50", "missed", "of")
    yield " ".join(f"{name:>9}" for name in head) + "  most time in"
    for each in result["rows"]:
        times = [each["edge_to_pub_ms"][p] for p in ("p50", "p99", "max")] + [each["infer_ms"]["p50"]]
        cells = [each["units"], f"{each['rate']:g}", f"{each['bin_ms']:g}", *map(_ms, times)]
        cells += [each["deadline_misses"], each["scheduled"]]
        word = "  BROKEN" if each["broken"] else ""
        yield " ".join(f"{cell!s:>9}" for cell in cells) + f"  {each['stage']}{word}"
    held = [each for each in result["rows"] if not each["broken"]]
    yield f"{len(held)} of {len(result['rows'])} loads keep the budget (at most {BROKEN:g} of the deadlines missed)"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
