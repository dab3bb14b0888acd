"""One paced measurement: a sender, the loop and a subscriber in processes of their own, and what they wrote."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency import hogs
from benchmarks.latency.case import Case
from benchmarks.latency.subscriber import COLUMNS
from runtime.children import Child
from runtime.core.run_log import RunLog
from runtime.io import log_file, system
from runtime.start import command

START_S, END_S = 120.0, 300.0
SAMPLE_S = 0.25
ADDRESS, CONNECTED = r"decode and status on (tcp://\S+),", "(a consumer has connected)"
LOOP = command("runtime.cli")


@dataclass(frozen=True, slots=True)
class Processes:
    """Process ids while the loop runs, and where it publishes."""

    loop: int
    sender: int
    subscriber: int
    address: str = ""  # of the loop's messages


@dataclass(frozen=True, slots=True)
class Taken:
    """What one run left. pushes (n, 3) int64 ns: when a chunk was due, when the sender woke, when it was out.

    heard: columns of the subscriber (`benchmarks.latency.subscriber.COLUMNS`). samples (n, 3): time in ns, then ms
    that the loop's thread has waited for a core (NaN = not readable) and that a hypervisor has taken, since the start.
    hogs: kind -> what that hog did (`benchmarks.latency.hogs`).
    """

    log: RunLog
    summary: dict[str, Any]
    pushes: np.ndarray
    heard: dict[str, np.ndarray]
    samples: np.ndarray
    hogs: dict[str, dict[str, float]] = field(default_factory=dict)


During = Callable[[Processes], None]


@dataclass(frozen=True, slots=True)
class Hosts:
    """The words before the command of the sender, and before those of the loop and the subscriber: where they run.

    ahead_ns: the sender's clock before the loop's. peers: addresses at which the loop looks for the sender.
    """

    sender: tuple[str, ...] = ()
    loop: tuple[str, ...] = ()
    ahead_ns: int = 0
    peers: tuple[str, ...] = ()


HERE = Hosts()


def drive(
    case: Case, seconds: float, loop: Sequence[str] = LOOP, during: During | None = None, kinds: Sequence[str] = (),
    hosts: Hosts = HERE,
) -> Taken:  # fmt: skip
    """Run a case for so many seconds and read what came of it.

    loop: the command of `neds-rt`. during: called in a thread once the sender has its consumer. kinds: of the hogs.
    Raises `StreamError` where one of the processes fails.
    """
    folder = case.folder
    play = *sending(case, START_S), "--push-ms", case.load.push_ms, "--pushes", folder / "pushes.npy"
    decode = (
        "run", case.rig, "--allow-replay", "--headless", "--json", "--seconds", seconds,
        "--save-log", folder / "run.npz",
    )  # fmt: skip
    subscribe, send = [*hosts.loop, *command("benchmarks.latency.subscriber")], [*hosts.sender, *LOOP]
    with (
        Child(folder, *play, name="sender", program=send) as sender,
        Child(folder, *decode, name="loop", program=[*hosts.loop, *loop]) as deciding,
    ):
        address = deciding.until(ADDRESS, START_S)
        with Child(folder, address, folder / "heard.npy", name="subscriber", program=subscribe) as subscriber:
            sender.until(CONNECTED, START_S, watch=deciding.check)
            pids = Processes(deciding.process.pid, sender.process.pid, subscriber.process.pid, address)
            beside = threading.Thread(target=during or _nothing, args=(pids,), name="during", daemon=True)
            beside.start()
            watch = _Watch(deciding.process.pid)
            with hogs.beside(kinds, folder) as done:
                summary = deciding.result(watch, within_s=seconds + END_S)
            beside.join(END_S)
            _ended(subscriber)
    log = log_file.load(folder / "run.npz")
    heard = dict(zip(COLUMNS, np.load(folder / "heard.npy").T, strict=True))
    pushes = np.load(folder / "pushes.npy") - hosts.ahead_ns
    return Taken(log, summary, pushes, heard, np.array(watch.rows).reshape(-1, 3), done)


def sending(case: Case, wait_s: float = 0.0) -> tuple[object, ...]:
    """The words of `neds-rt` for the sender of a case. wait_s: how long it waits for its consumer, 0 = it begins."""
    wait = ("--wait", wait_s) if wait_s else ()
    return "play", case.recording, "--prefix", case.prefix, *wait, "--parent", os.getpid(), "--repeat"


def _nothing(pids: Processes) -> None:
    return


class _Watch:
    """Looks now and then at what the machine takes from the loop: rows as `Taken.samples`."""

    def __init__(self, loop: int) -> None:
        self.rows: list[tuple[float, float, float]] = []
        self._loop, self._next_s = loop, 0.0

    def __call__(self) -> None:
        if (now := time.monotonic()) >= self._next_s:
            self.rows.append((now * 1e9, run_delay_ms(self._loop), system.stolen_ms()))
            self._next_s = now + SAMPLE_S


def run_delay_ms(pid: int) -> float:
    """How long the main thread of a process has waited for a core, NaN where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()
    except OSError:
        return float("nan")
    return int(fields[1]) * 1e-6 if len(fields) == 3 else float("nan")


def _ended(child: Child) -> None:
    """Wait for a child that ends by itself, and ask it to otherwise."""
    try:
        child.process.wait(2.0)
    except subprocess.TimeoutExpired:
        system.end(child.process, within_s=10.0)
    if child.process.returncode:
        child.check()
