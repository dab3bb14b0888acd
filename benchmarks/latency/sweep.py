"""Where a budget breaks as the load grows, and in which stage: short runs of models with random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil, exp, log
from typing import Any

from benchmarks import report
from benchmarks.cost.kernel_sweep import Size
from benchmarks.cost.random_models import for_a_run
from benchmarks.latency import bench, floor
from benchmarks.latency.bench import Asked, Say
from benchmarks.latency.budget import miss_share
from benchmarks.latency.load import Load
from neds_core.checkpoint import Checkpoint
from runtime.certificate.evidence import most
from runtime.config import BinConfig, EngineConfig, InputConfig, OutputConfig, RigConfig

SECONDS = 10.0  # of each run
BROKEN, SURE = 1e-3, 0.05  # a budget allows this share of missed deadlines; more than chance would have with this share
ENOUGH = ceil(-log(SURE) / BROKEN)  # bins without a miss that show a budget to be kept
LATENESS_SHARE = 0.25  # of a bin: how long it waits for its last sample
Row = dict[str, Any]
Keep = Callable[[report.Report], None]  # is given what is measured so far: a sweep that is stopped loses one point


def nowhere(found: report.Report) -> None:
    """Nothing is kept on the way."""


@dataclass(frozen=True, slots=True)
class Point:
    """A load: units of the model, spikes a second of all together, ms of a bin. The budget is one bin."""

    units: int = 449
    rate: float = 10_000.0
    bin_ms: float = 20.0

    def words(self, factor: str) -> str:
        """The load by what is swept."""
        return {
            "units": f"{self.units} units", "rate": f"{self.rate:,.0f} spikes/s", "bins": f"bins of {self.bin_ms:g} ms",
        }[factor]  # fmt: skip


FACTORS = {"units": "units", "rate": "rate", "bins": "bin_ms"}  # what is swept -> its key in a row
POINTS: dict[str, tuple[Point, ...]] = {
    "units": tuple(replace(Point(), units=n) for n in (100, 449, 1000, 2000)),
    "rate": tuple(replace(Point(), rate=float(n)) for n in (1_000, 10_000, 30_000, 100_000)),
    "bins": tuple(replace(Point(), bin_ms=float(n)) for n in (45, 20, 10, 5, 2, 1)),
}


def run(
    factors: tuple[str, ...], seconds: float, warm_up_s: float, say: Say = lambda line: None, keep: Keep = nowhere
) -> report.Report:
    """Measure every point of the factors, of `POINTS`, for so many seconds each; one that they share, once."""
    say("the floor of this machine")
    machine_floor = floor.measure(bench.FLOOR_S[0])
    measured: dict[Point, Row] = {}
    found = finished({}, seconds, machine_floor)
    for point in dict.fromkeys(point for factor in factors for point in POINTS[factor]):
        say(f"{point.units} units, {point.rate:g} spikes/s, bins of {point.bin_ms:g} ms")
        where = {"units": point.units, "rate": point.rate, "bin_ms": point.bin_ms}
        measured[point] = where | row(bench.paced(asked(point, seconds, warm_up_s), machine_floor=machine_floor))
        found["tables"] = _tables(factors, measured)
        keep(found)
    return found


def _tables(factors: tuple[str, ...], measured: dict[Point, Row]) -> dict[str, list[Row]]:
    return {f: [{"load": p.words(f)} | measured[p] for p in POINTS[f] if p in measured] for f in factors}


def finished(tables: dict[str, list[Row]], seconds: float, machine_floor: dict[str, Any]) -> report.Report:
    """The report: what was swept -> a row for each load."""
    return report.begun("latency-sweep") | {"seconds": seconds, "floor_ms": machine_floor, "tables": tables}


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


def row(result: report.Report) -> Row:
    """One line of a table."""
    stages = result["miss_stages"]
    return {
        "budget_ms": result["budget_ms"],
        "edge_to_pub_ms": result["edge_to_pub_ms"],
        "infer_ms": result["infer_ms"],
        "take_ms": result["take_ms"],
        "scheduled": result["scheduled"],
        "deadline_misses": result["deadline_misses"],
        "miss_share": miss_share(result),
        "miss_causes": {cause: n for cause, n in result["miss_causes"].items() if n},
        "broken": broken(result["deadline_misses"], result["scheduled"]),
        "miss_share_at_most": most(result["deadline_misses"], max(1, result["scheduled"])),
        "stage": max(stages, key=lambda name: stages[name]) if stages else result["slowest_stage"],
        "spikes_lost_upstream": result["counters"]["spikes_lost_upstream"],
        "stolen_ms": result["stolen_ms"],
        "run_delay_ms": result["run_delay_ms"],
    }


def broken(missed: int, of: int) -> bool:
    """Whether so many misses are more than a run within the budget has by chance (Poisson, 5 %)."""
    expected = BROKEN * of
    fewer, term = 0.0, exp(-expected)
    for k in range(missed):
        fewer += term
        term *= expected / (k + 1)
    return missed > 0 and 1.0 - fewer < SURE


def word(row: Row) -> str:
    """What a load does to its budget: `broken`, `kept` where the upper bound of its share of misses is within it, or
    `not shown` by so few bins."""
    if row["broken"]:
        return "broken"
    return "kept" if row["miss_share_at_most"] <= BROKEN else "not shown"


def lines(result: report.Report) -> Iterator[str]:
    """The tables."""
    for name, rows in result["tables"].items():
        head = ("p50", "p99", "max", "infer p50", "missed", "of", "at most")
        yield f"{_title(name):32} " + " ".join(f"{word:>9}" for word in head) + "  most time in"
        for each in rows:
            times = [each["edge_to_pub_ms"][p] for p in ("p50", "p99", "max")] + [each["infer_ms"]["p50"]]
            bound = f"{each['miss_share_at_most']:.2g}"
            cells = [*map(_ms, times), each["deadline_misses"], each["scheduled"], bound]
            told = " ".join(f"{cell!s:>9}" for cell in cells)
            yield f"{each['load']:32} {told}  {each['stage']}  {word(each)}"
        words = [word(each) for each in rows]
        counts = ", ".join(f"{words.count(one)} {one}" for one in ("kept", "broken", "not shown"))
        yield f"the budget of {len(rows)} loads: {counts}"
    yield (
        f"ms; broken: more missed deadlines than {BROKEN:g} of the bins explain (5 %); kept: at most that share (95 % "
        f"bound; without a miss from {ENOUGH} bins on); {result['seconds']:g} s each"
    )


def _title(name: str) -> str:
    """What all rows of a table share."""
    others = [Point().words(factor) for factor in FACTORS if factor != name]
    return ", ".join(others) if name in FACTORS else "load"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
