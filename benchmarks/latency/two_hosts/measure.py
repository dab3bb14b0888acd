"""`neds-rt bench latency --two-hosts`: what a network between sender and loop does to clocks, spikes and deadlines."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import report
from benchmarks.latency import bench, case as cases, drive, floor, sweep
from benchmarks.latency.bench import Asked, Say
from benchmarks.latency.two_hosts.network import NETWORKS, Network, joined
from runtime.children import Child
from runtime.config import RigConfig

TABLE = "two hosts"
CHECK_S = 10.0
Row = dict[str, Any]


def run(asked: Asked, say: Say = lambda line: None) -> report.Report:
    """Each network with the rig's own allowance, and with what `neds-rt check` recommends there.

    Raises `ConfigError` where this machine cannot be two hosts.
    """
    say("the floor of this machine")
    machine_floor, rows, joined_by = floor.measure(bench.FLOOR_S[0]), [], ""
    for network in NETWORKS:
        with (
            tempfile.TemporaryDirectory(prefix="neds-rt-bench-") as folder,
            joined(network, Path(folder)) as (hosts, by),
        ):
            joined_by = by
            say(f"{network.words()}, by {by}")
            rows += _rows(replace(asked, hosts=hosts), network, machine_floor, Path(folder))
    result = sweep.finished({TABLE: rows}, asked.seconds, machine_floor)
    return result | {"kind": "latency-two-hosts", "network_by": joined_by}


def _rows(asked: Asked, network: Network, machine_floor: dict[str, Any], folder: Path) -> Iterator[Row]:
    plan = checked(asked, folder)
    advised = plan["spikes"]["recommended"]
    given = {"as configured": asked}
    if advised is not None:
        given["as check recommends"] = replace(asked, config=with_advice(asked.config, advised))
    for name, each in given.items():
        result = bench.paced(each, machine_floor=machine_floor)
        yield {"load": f"{network.name}, {name}", "network": msgspec.to_builtins(network)} | row(result, each, plan)


def row(result: report.Report, asked: Asked, plan: dict[str, Any]) -> Row:
    """One line of the table. plan: what `neds-rt check` printed."""
    counters, true_ms = result["counters"], -asked.hosts.ahead_ns * 1e-6
    return sweep.row(result) | {
        "lateness_ms": asked.config.bins.lateness_ms,
        "recommended": plan["spikes"]["recommended"],
        "arrival_minus_stamp_ms": plan["spikes"]["arrival_minus_stamp_ms"],
        "clock_error_ms": {name: round(ms - true_ms, 4) for name, ms in offsets(plan).items()},
        "received": counters["spikes_received"],
        "late": counters["spikes_late"],
        "share_late": counters["spikes_late"] / max(1, counters["spikes_received"]),
        "clock_jumps": counters["clock_jumps"],
        "source_delay_ms": result["source_delay_ms"],
    }


def offsets(plan: dict[str, Any]) -> dict[str, float]:
    """Stream -> offset of its clock in ms, as `neds-rt check` measured it."""
    streams = {"spikes": plan["spikes"], "markers": plan["markers"], **plan["behaviours"]}
    return {name: one["clock_offset_ms"] for name, one in streams.items() if one is not None}


def checked(asked: Asked, folder: Path) -> dict[str, Any]:
    """What `neds-rt check` prints on the loop's host while the sender plays."""
    inside = folder / "check"
    inside.mkdir()
    case = cases.prepare(inside, bench.found_by(asked), asked.load, CHECK_S + drive.START_S, asked.checkpoint)
    hosts = asked.hosts
    words = "check", case.rig, "--seconds", CHECK_S, "--allow-replay", "--json"
    with (
        Child(inside, *drive.sending(case, drive.START_S), name="sender", program=[*hosts.sender, *drive.LOOP]),
        Child(inside, *words, name="check", program=[*hosts.loop, *drive.LOOP]) as child,
    ):
        return child.result(codes=(0, 3), within_s=CHECK_S + drive.START_S)


def with_advice(config: RigConfig, advised: dict[str, float]) -> RigConfig:
    """A rig with the allowance, budget and validity that `neds-rt check` recommends."""
    change = msgspec.structs.replace
    output = change(config.output, budget_ms=advised["budget_ms"], valid_ms=advised["valid_ms"])
    return change(config, bins=change(config.bins, lateness_ms=advised["lateness_ms"]), output=output)


def lines(result: report.Report) -> Iterator[str]:
    """The table."""
    head = ("lateness", "late", "p50", "p99", "max", "missed", "of", "clock off by")
    yield f"{'two hosts':32} " + " ".join(f"{word:>9}" for word in head)
    for each in result["tables"][TABLE]:
        times = [each["edge_to_pub_ms"][p] for p in ("p50", "p99", "max")]
        error = max(each["clock_error_ms"].values(), key=abs)
        cells = [f"{each['lateness_ms']:g}", f"{each['share_late']:.3%}", *(f"{ms or 0.0:.2f}" for ms in times)]
        cells += [each["deadline_misses"], each["scheduled"], f"{error:+.3f}"]
        yield f"{each['load']:32} " + " ".join(f"{cell!s:>9}" for cell in cells)
    for network in NETWORKS:
        yield f"{network.name}: {network.words()}"
    yield f"ms; late: spikes after their bin had closed; joined by {result['network_by']}; {result['seconds']:g} s each"
