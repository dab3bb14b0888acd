"""What this machine takes before any of our work: a timer's lateness, a sample over LSL, a message over ZeroMQ.

`measure` runs two processes: `send`, which is paced as a sender is, and `receive`, which waits as the loop does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import msgspec
import numpy as np
import pylsl
import zmq

from neds_core.errors import StreamError
from runtime.core.latency import percentiles
from runtime.io import system
from runtime.io.lsl_clock import now_ns
from runtime.io.lsl_resolve import configure, resolve
from runtime.start import command

TICK_NS = 10_000_000  # LSL and ZeroMQ in turn: each every 20 ms, as a rig sends
PARTS = ("timer", "lsl", "zmq")
START_S = 60.0
COPY_MB, COPIES = 64, 5


def measure(seconds: float) -> dict[str, Any]:
    """Percentiles in ms of each of `PARTS`, and the sums of their p50 and p99 (a guide: no percentiles of the sum).

    Raises `StreamError` where the two processes do not meet.
    """
    name = f"floor-{os.getpid()}-{time.monotonic_ns() % 10**6}"
    run = command("benchmarks.latency.floor", name, seconds)
    done = subprocess.run(
        run, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds + 2 * START_S, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise StreamError(f"the floor of this machine could not be measured: {said[-1] if said else 'no word'}")
    found = msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, list[float]])
    parts = {part: percentiles(np.array(found[part])) | {"n": len(found[part])} for part in PARTS}
    sums = {p: round(sum(parts[part][p] or 0.0 for part in PARTS), 4) for p in ("p50", "p99")}
    return {**parts, **sums}


def copy_gb_s() -> float:
    """Memory bandwidth of one core: bytes read and written a second by copying 64 MB, the best of five, in GB/s."""
    source = np.ones(COPY_MB * 2**20, np.uint8)
    target, best = np.empty_like(source), 0.0
    for _ in range(COPIES):
        begin = time.perf_counter()
        np.copyto(target, source)
        best = max(best, 2 * source.nbytes / (time.perf_counter() - begin))
    return round(best * 1e-9, 2)


def _receive(name: str, seconds: float) -> None:
    """Start the sender, take in what it sends, and print all three as JSON: lists of ms."""
    sender = subprocess.Popen(
        command("benchmarks.latency.floor", name, seconds, os.getpid()),
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    try:
        assert sender.stdout is not None
        address = sender.stdout.readline().decode().strip()
        configure(name, "machine")
        inlet = pylsl.StreamInlet(resolve(name, START_S), processing_flags=pylsl.proc_none)
        socket = zmq.Context().socket(zmq.SUB)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(address)
        inlet.open_stream(timeout=START_S)
        system.raise_priority()
        found: dict[str, list[float]] = {"lsl": [], "zmq": []}
        into = np.zeros((1024, 1), np.int32)
        for _ in range(int(seconds * 1e9 / (2 * TICK_NS))):
            _, stamps = inlet.pull_chunk(timeout=1.0, max_samples=1024, dest_obj=into, min_samples=1, as_numpy=True)
            found["lsl"] += [(now_ns() - float(stamp) * 1e9) * 1e-6 for stamp in stamps]
            if socket.poll(1000):
                sent = int.from_bytes(socket.recv(), "little")
                found["zmq"].append((now_ns() - sent) * 1e-6)
        line = sender.stdout.readline()
        print(msgspec.json.encode({**found, "timer": msgspec.json.decode(line)}).decode(), flush=True)
    finally:
        system.end(sender)
    os._exit(0)  # liblsl destroys an inlet for 0.5 s


def _send(name: str, seconds: float, parent: int) -> None:
    """Print the address, wait for the receiver, send in turn, and print by how much each timer was late, in ms."""
    configure(name, "machine")
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "Floor", 1, pylsl.IRREGULAR_RATE, pylsl.cf_int32, name))
    socket = zmq.Context().socket(zmq.PUB)
    print(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}", flush=True)
    deadline = time.monotonic() + START_S
    while not outlet.wait_for_consumers(0.5):
        if time.monotonic() > deadline or os.getppid() != parent:
            raise StreamError("nobody came to measure the floor")
    time.sleep(0.3)  # a subscription takes a moment to arrive
    system.raise_priority()
    late, due = [], now_ns()
    for k in range(2 * int(seconds * 1e9 / (2 * TICK_NS)) + 20):  # some more than are waited for
        due += TICK_NS
        left = (due - now_ns()) * 1e-9
        if left > 0:
            time.sleep(left)
        late.append((now_ns() - due) * 1e-6)
        if k % 2 == 0:
            outlet.push_sample([k], pylsl.local_clock())
        else:
            socket.send(now_ns().to_bytes(8, "little"))
    print(msgspec.json.encode(late).decode(), flush=True)
    time.sleep(2.0)
    os._exit(0)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        _send(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
    else:
        _receive(sys.argv[1], float(sys.argv[2]))
