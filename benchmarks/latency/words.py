"""A latency report as lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.latency.budget import miss_share
from benchmarks.latency.floor import PARTS

COLUMNS = ("p50", "p90", "p99", "p99.9", "max")
SAID = {
    "edge_to_pub_ms": "bin edge to published",
    "edge_to_pub_decoded_ms": "  that carried values",
    "closed_by_stream_ms": "  closed by the stream",
    "closed_by_allowance_ms": "  closed by the allowance",
    "edge_to_sub_ms": "bin edge to a subscriber",
    "busy_ms": "busy: the pass before",
    "wait_ms": "wait for the bin to close",
    "sender_ms": "  until the sender had it out",
    "arrive_ms": "  from there to the waking",
    "push_ms": "  the sender's work a chunk",
    "take_ms": "take: bin and prepare",
    "infer_ms": "infer: engine step",
    "send_ms": "send",
    "after_ms": "after the send",
    "sub_ms": "send to a subscriber",
    "age_ms": "age of the newest spike",
    "interval_jitter_ms": "jitter of the interval",
    "source_delay_ms": "stamp to arrival",
    "step_ms": "one bin, back to back",
}


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The table, then what was missed and why, and what the machine took."""
    yield _cells("ms", "n", *COLUMNS, "not ours p50 / p99" if result.get("not_ours_ms") else "")
    for name in sorted(result["latencies"], key=list(SAID).index):
        row, share = result[name], result.get("not_ours_ms", {}).get(name)
        if row["n"]:
            ours = f"{share['p50']:.2f} / {share['p99']:.2f}" if share else ""
            yield _cells(SAID[name], row["n"], *(_ms(row[p]) for p in COLUMNS), ours)
    if "deadline_misses" in result:
        yield from _missed(result)
        yield from _machine(result)
    if "bins_per_s" in result:
        yield f"{result['bins_per_s']:g} bins a second, one after the other: {_times(result)} real time"
    what = f"{result['units']} units, bins of {result['bin_ms']:g} ms; {_load(result)}"
    yield f"{result['decoder']} ({result['engine']}), {what}"
    for kind, did in result.get("hogs_did", {}).items():
        yield f"{kind} hog beside it: {', '.join(f'{name} {n:g}' for name, n in did.items())}"
    m = result["machine"]
    changed = ", changed files" if m["git"]["changed"] else ""
    yield f"{m['cpu']}, {m['cores']} cores, {m['system']}; governor {m['governor']}; {m['git']['commit'][:12]}{changed}"


def _cells(name: str, *cells: object) -> str:
    n, *times, ours = cells
    return f"{name:30} {n!s:>8} {' '.join(f'{c!s:>9}' for c in times)}  {ours!s:>18}".rstrip()


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _missed(result: dict[str, Any]) -> Iterator[str]:
    missed, n = result["deadline_misses"], result["scheduled"]
    bound = "" if missed or not n else f" (at most {3 / n:.1e} at 95 % confidence)"
    yield f"deadline {result['budget_ms']:g} ms: {missed} of {n} missed, {miss_share(result):.2g}{bound}"
    if missed:
        for what, found in (("cause", result["miss_causes"]), ("stage", result["miss_stages"])):
            yield f"  by {what}: {', '.join(f'{name} {k}' for name, k in found.items() if k)}"
    yield f"slowest 1 % of the bins: most of their time in {result['slowest_stage'] or 'nothing'}"
    if len(found := result["launches"]) > 1:
        yield f"p50 / max of each launch: {', '.join(_both(each['edge_to_pub_ms']) for each in found)}"
    tokens, warm = result["tokens"], result["warm_up"]
    idle, ended = f"{tokens['idle']} between segments", result["stopped_by"].replace("_", " ")
    closed = f"{tokens['closed']} closed in {result['measured_s']:g} s"
    yield f"bins: {closed}, {idle}, {tokens['invalid']} invalid; ended by {ended}"
    yield (
        f"warm-up of {warm['seconds']:g} s, not counted above: {warm['n']} bins, {warm['deadline_misses']} missed, "
        f"max {_ms(warm['edge_to_pub_ms']['max'])} ms"
    )


def _both(row: dict[str, float | None]) -> str:
    return f"{_ms(row['p50'])} / {_ms(row['max'])}"


def _machine(result: dict[str, Any]) -> Iterator[str]:
    floor = result["floor_ms"]
    parts = ", ".join(f"{part} {_ms(floor[part]['p50'])} / {_ms(floor[part]['p99'])}" for part in PARTS)
    yield f"floor of this machine, p50 / p99: {parts}; sum {floor['p50']:.3f} / {floor['p99']:.3f} ms"
    delay = result["run_delay_ms"]
    waited = "for an unknown time" if delay is None else f"{delay:.0f} ms"
    yield f"CPU steal {result['stolen_ms']:.0f} ms; the loop waited {waited} for a core; {result['scheduling']}"
    yield f"memory: {result['memory_copy_gb_s']} GB/s copied by one core"
    if (exact := result["streamed_vs_offline_max_abs"]) is not None:
        yield f"largest difference from the offline forward pass: {exact:.1e}"


def _times(result: dict[str, Any]) -> str:
    return f"{result['bins_per_s'] * result['bin_ms'] * 1e-3:.0f} times"


def _load(result: dict[str, Any]) -> str:
    load = result["load"]
    what = f"{load['rate']:g} spikes/s" if load["rate"] else f"{load['recording']} played"
    burst = f", bursts of {load['burst']}" if load["burst"] else ""
    push = f"every {load['push_ms']:g} ms" if load["push_ms"] else "four times a bin"
    return f"{what}{burst}, sent {push}"
