"""`neds-rt bench latency`: the machine's floor, one run, and the report of both."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import report
from benchmarks.latency import case as cases, drive, floor, launches, measured
from benchmarks.latency.load import Load
from neds_core.checkpoint import Checkpoint
from runtime.config import RigConfig
from runtime.start import command

FLOOR_S = (2.0, 10.0)  # the least and the most that its measurement takes
AS_RECORDED = Load()
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured. config: a rig's, with absolute paths. seconds: in all launches, after warm_up_s in each.

    floor_s: 0 = as long as fits. checkpoint: one that is not on disk, None = the configuration's. loop: the command of
    neds-rt. during: called in a thread while the loop runs. hogs: what takes the machine beside it (`hogs.KINDS`).
    normal_priority: of the loop, as where nothing is granted. hosts: where sender and loop run.
    """

    config: RigConfig
    load: Load = AS_RECORDED
    seconds: float = 60.0
    warm_up_s: float = 5.0
    launches: int = 1
    floor_s: float = 0.0
    checkpoint: Checkpoint | None = None
    loop: tuple[str, ...] = tuple(drive.LOOP)
    during: drive.During | None = None
    hogs: tuple[str, ...] = ()
    normal_priority: bool = False
    hosts: drive.Hosts = drive.HERE


def paced(asked: Asked, say: Say = lambda line: None, machine_floor: dict[str, Any] | None = None) -> report.Report:
    """Measure at the pace of the bins, as on a rig. machine_floor: one that was just measured, None = measure it."""
    if machine_floor is None:
        floor_s = asked.floor_s or min(FLOOR_S[1], max(FLOOR_S[0], asked.seconds / 10))
        say(f"the floor of this machine: timer, LSL and ZeroMQ for {floor_s:g} s")
        machine_floor = floor.measure(floor_s)
    result, parts = report.begun("latency") | {"mode": "paced"}, []
    for _ in range(asked.launches):
        where, part = _launch(asked, say)
        result |= where
        parts.append(part)
    result |= launches.joined(parts)
    result |= {"floor_ms": machine_floor, "memory_copy_gb_s": floor.copy_gb_s()}
    return result | {"not_ours_ms": measured.not_ours(result)}


def found_by(asked: Asked) -> RigConfig:
    """The configuration of a rig whose loop looks for its sender where that is."""
    if not asked.hosts.peers:
        return asked.config
    lsl = msgspec.structs.replace(asked.config.lsl, known_peers=asked.hosts.peers)
    return msgspec.structs.replace(asked.config, lsl=lsl)


def _launch(asked: Asked, say: Say) -> tuple[dict[str, Any], dict[str, Any]]:
    """One launch of all processes: what was measured, and the numbers."""
    whole_s = asked.seconds / asked.launches + asked.warm_up_s
    with tempfile.TemporaryDirectory(prefix="neds-rt-bench-") as folder:
        case = cases.prepare(Path(folder), found_by(asked), asked.load, whole_s, asked.checkpoint)
        say(f"sender, loop and subscriber for {whole_s:g} s")
        loop = [*command("benchmarks.latency.ungranted"), *asked.loop] if asked.normal_priority else asked.loop
        taken = drive.drive(case, whole_s, loop, asked.during, asked.hogs, asked.hosts)
    where = _of_case(asked, case, taken)
    if taken.hogs:
        where |= {"hogs": list(asked.hogs), "hogs_did": taken.hogs}
    return where, measured.of(taken, asked.warm_up_s)


def _of_case(asked: Asked, case: cases.Case, taken: drive.Taken) -> dict[str, Any]:
    header = taken.log.header
    return {
        "seconds": asked.seconds,
        "warm_up_s": asked.warm_up_s,
        "load": msgspec.to_builtins(case.load) | {"recording": "" if case.load.rate else case.recording.name},
        "units": case.n_units,
        "bin_ms": case.bin_ns * 1e-6,
        "budget_ms": header.budget_ms,
        "decoder": header.decoder,
        "engine": header.engine,
        "model": header.model,
        "scheduling": header.scheduling,
        "checkpoint_sha256": case.checkpoint_sha,
        "config_sha256": case.config_sha,
        "stopped_by": taken.log.outcome.stopped_by,
    }
