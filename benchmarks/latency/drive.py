"""One paced measurement: a sender, the loop and a subscriber in processes of their own, and what they wrote."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.latency.case import Case
from benchmarks.latency.subscriber import COLUMNS
from neds_core.errors import StreamError
from runtime.core.run_log import RunLog
from runtime.io import log_file, system
from runtime.start import command

START_S, END_S = 120.0, 300.0
SAMPLE_S = 0.25
ADDRESS = re.compile(r"decode and status on (tcp://\S+),")
CONNECTED = "a consumer has connected"
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
    """

    log: RunLog
    summary: dict[str, Any]
    pushes: np.ndarray
    heard: dict[str, np.ndarray]
    samples: np.ndarray


During = Callable[[Processes], None]


def drive(case: Case, seconds: float, loop: list[str] = LOOP, during: During | None = None) -> Taken:
    """Run a case for so many seconds and read what came of it.

    loop: the command of `neds-rt`. during: called in a thread once the sender has its consumer.
    Raises `StreamError` where one of the processes fails.
    """
    folder, environment = case.folder, {"PYTHONUNBUFFERED": "1"}
    play = command(
        "runtime.cli", "play", case.recording, "--prefix", case.prefix, "--wait", START_S, "--parent", os.getpid(),
        "--push-ms", case.load.push_ms, "--pushes", folder / "pushes.npy", "--repeat",
    )  # fmt: skip
    decode = [
        *loop, "run", str(case.rig), "--allow-replay", "--headless", "--json", "--seconds", str(seconds),
        "--save-log", str(folder / "run.npz"),
    ]  # fmt: skip
    with _child("sender", play, folder, environment) as sender, _child("loop", decode, folder) as deciding:
        address = _until(deciding, ADDRESS)
        listen = command("benchmarks.latency.subscriber", address, folder / "heard.npy")
        with _child("subscriber", listen, folder) as subscriber:
            _until(sender, re.compile(f"({CONNECTED})"))
            pids = Processes(deciding.process.pid, sender.process.pid, subscriber.process.pid, address)
            beside = threading.Thread(target=during or _nothing, args=(pids,), name="during", daemon=True)
            beside.start()
            samples = _watch(deciding, seconds)
            beside.join(END_S)
            _ended(subscriber)
        system.end(sender.process, within_s=5.0)
    log = log_file.load(folder / "run.npz")
    summary = msgspec.json.decode(deciding.out.read_text(encoding="utf-8").splitlines()[-1])
    heard = dict(zip(COLUMNS, np.load(folder / "heard.npy").T, strict=True))
    return Taken(log, summary, np.load(folder / "pushes.npy"), heard, samples)


def _nothing(pids: Processes) -> None:
    return


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def said(self) -> str:
        """All that it has printed."""
        return self.out.read_text(errors="replace") + self.err.read_text(errors="replace")

    def failed(self) -> StreamError:
        """What to raise where it has ended too early or badly."""
        lines = self.err.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        how = system.ended_by(self.process.poll())
        return StreamError(f"the {self.name} of this measurement ended ({how}): {lines[-1].removeprefix('neds-rt: ')}")


@contextmanager
def _child(name: str, line: list[str], folder: Path, environment: dict[str, str] | None = None) -> Iterator[_Child]:
    """A process with its output in files, ended at the end."""
    out, err = folder / f"{name}.out", folder / f"{name}.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=os.environ | (environment or {})
        )
    try:
        yield _Child(name, process, out, err)
    finally:
        system.end(process, within_s=5.0)


def _until(child: _Child, pattern: re.Pattern[str]) -> str:
    """Wait until a child prints a pattern; returns its first group."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if found := pattern.search(child.said()):
            return found[1]
        if child.process.poll() is not None:
            raise child.failed()
        time.sleep(0.05)
    raise StreamError(f"the {child.name} of this measurement did not start within {START_S:g} s; look at the machine")


def _watch(loop: _Child, seconds: float) -> np.ndarray:
    """Look now and then at what the machine takes from the loop, until it has ended."""
    rows, deadline = [], time.monotonic() + seconds + END_S
    while loop.process.poll() is None:
        if time.monotonic() > deadline:
            raise StreamError(f"the loop of this measurement has not ended {END_S:g} s after its time; look at it")
        rows.append((time.monotonic_ns(), run_delay_ms(loop.process.pid), system.stolen_ms()))
        time.sleep(SAMPLE_S)
    if loop.process.returncode:
        raise loop.failed()
    return np.array(rows, float).reshape(-1, 3)


def run_delay_ms(pid: int) -> float:
    """How long the main thread of a process has waited for a core, NaN where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()
    except OSError:
        return float("nan")
    return int(fields[1]) * 1e-6 if len(fields) == 3 else float("nan")


def _ended(child: _Child) -> None:
    """Wait for a child that ends by itself, and ask it to otherwise."""
    try:
        child.process.wait(2.0)
    except subprocess.TimeoutExpired:
        system.end(child.process, within_s=10.0)
    if child.process.returncode:
        raise child.failed()
