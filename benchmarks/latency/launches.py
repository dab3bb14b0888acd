"""Several launches of one run as one result.

Which threads share a core differs from launch to launch, and so do latencies: within one launch nothing shows it.
"""

from __future__ import annotations

from typing import Any

from runtime.core.latency import Latency

SUMS = ("scheduled", "deadline_misses", "measured_s", "stolen_ms")
COUNTS = ("miss_causes", "miss_stages", "tokens", "counters")


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What `measured.of` gave of each launch, one at least, as if it were one run; `launches` tells them apart."""
    found = dict(parts[0])
    found |= {key: round(sum(part[key] for part in parts), 3) for key in SUMS}
    found |= {key: _summed([part[key] for part in parts]) for key in COUNTS}
    for name in found["latencies"]:
        latency = Latency.decoded(parts[0]["histograms"][name])
        for part in parts[1:]:
            latency.histogram.add(Latency.decoded(part["histograms"][name]).histogram)
        found[name] = {"n": sum(part[name]["n"] for part in parts)} | latency.summary_ms()
        found["histograms"] = found["histograms"] | {name: latency.encoded()}
    slowest = max(parts, key=lambda part: part["edge_to_pub_ms"]["p99"] or 0.0)
    delays, exact = ([part[key] for part in parts] for key in ("run_delay_ms", "streamed_vs_offline_max_abs"))
    return found | {
        "slowest_stage": slowest["slowest_stage"],
        "run_delay_ms": None if None in delays else round(sum(delays), 3),
        "streamed_vs_offline_max_abs": max((each for each in exact if each is not None), default=None),
        "misses": _misses(parts),
        "warm_up": _warm_up([part["warm_up"] for part in parts]),
        "blocks": _blocks([part["blocks"] for part in parts]),
        "launches": [
            {key: part[key] for key in ("edge_to_pub_ms", "deadline_misses", "stolen_ms", "run_delay_ms")}
            for part in parts
        ],
    }


def _summed(parts: list[dict[str, int]]) -> dict[str, int]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0) for part in parts) for name in names}


def _misses(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With their time in the joined run, whose launches follow one another without a gap."""
    found, before_s = [], 0.0
    for part in parts:
        found += [miss | {"t_s": round(before_s + miss["t_s"], 3)} for miss in part["misses"]]
        before_s += len(part["blocks"]["n"]) * part["blocks"]["seconds"]
    return found


def _warm_up(parts: list[dict[str, Any]]) -> dict[str, Any]:
    most = max(parts, key=lambda part: part["edge_to_pub_ms"]["max"] or 0.0)
    return most | {key: sum(part[key] for part in parts) for key in ("n", "deadline_misses")}


def _blocks(parts: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"launch": [k for k, part in enumerate(parts) for _ in part["n"]]}
    for name, first in parts[0].items():
        if name == "launch":
            continue
        if isinstance(first, dict):
            found[name] = {s: [v for part in parts for v in part[name][s]] for s in first}
        else:
            found[name] = [v for part in parts for v in part[name]] if isinstance(first, list) else first
    return found
