"""One rig under what may happen to it: hogs, no real-time scheduling, other streams, bursts, decoders, weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import report
from benchmarks.latency import bench, floor, hogs, sweep
from benchmarks.latency.bench import Asked, Say
from benchmarks.latency.load import Load
from neds_core import checkpoint as checkpoints

TABLE = "conditions"
RATE, BURST = 2000.0, 5000  # spikes a second of a made-up load, and in each burst on top of it
ONE_NETWORK = "neds.safetensors"  # beside a joint checkpoint


def run(asked: Asked, say: Say = lambda line: None, keep: sweep.Keep = sweep.nowhere) -> report.Report:
    """Measure every condition of a rig for `asked.seconds` each."""
    say("the floor of this machine")
    machine_floor = floor.measure(bench.FLOOR_S[0])
    rows: list[sweep.Row] = []
    found = sweep.finished({TABLE: rows}, asked.seconds, machine_floor)
    for name, each in conditions(asked):
        say(name)
        rows.append({"load": name} | sweep.row(bench.paced(each, machine_floor=machine_floor)))
        keep(found)
    return found


def conditions(asked: Asked) -> Iterator[tuple[str, Asked]]:
    """Name and measurement of each, the rig as it is first."""
    has = 1 + bool(asked.config.input.markers) + len(asked.config.input.behaviours)
    yield f"as it is, {has} streams", asked
    for kind in hogs.KINDS:
        yield f"{kind} hog", replace(asked, hogs=(kind,))
    yield "cores not kept awake", _with(asked, awake="none")
    yield "normal priority", replace(asked, normal_priority=True)
    yield "normal priority, cpu hog", replace(asked, normal_priority=True, hogs=("cpu",))
    for streams in range(2, min(has, 4)):
        yield f"{streams} streams", replace(asked, load=msgspec.structs.replace(asked.load, streams=streams))
    made_up = Load(rate=RATE, streams=2)
    yield f"made-up, {RATE:,.0f} spikes/s", replace(asked, load=made_up)
    burst = msgspec.structs.replace(made_up, burst=BURST)
    yield f"the same, bursts of {BURST:,}", replace(asked, load=burst)
    yield from _decoders(asked)


def _decoders(asked: Asked) -> Iterator[tuple[str, Asked]]:
    """What the checkpoint holds, each weight precision, and one network of several where it lies beside them."""
    path = Path(asked.config.checkpoint)
    found = asked.checkpoint or checkpoints.load(path)
    if found.first is None:
        return
    for name in ("ridge", "neds", "blend") if found.linear else ("neds",):
        yield f"decoder {name}", _with(asked, decoder=name)
    for weights in ("bfloat16", "int8"):
        yield f"decoder neds, {weights} weights", _with(asked, decoder="neds", weights=weights)
    alone = path.with_name(ONE_NETWORK)
    if alone.is_file() and alone != path:
        one = replace(asked, config=msgspec.structs.replace(asked.config, checkpoint=str(alone)))
        yield "one network", _with(one, decoder="neds")


def _with(asked: Asked, **engine: Any) -> Asked:
    config = asked.config
    changed = msgspec.structs.replace(config.engine, **engine)
    return replace(asked, config=msgspec.structs.replace(config, engine=changed))
