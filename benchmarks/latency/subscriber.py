"""A subscriber in a process of its own: when each estimate arrived, and what it said of its own times.

`python -m benchmarks.latency.subscriber ADDRESS OUT.npy` listens until the run's last message, or SIGTERM.
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zmq

from neds_core.files import whole
from runtime import wire
from runtime.client import unpack
from runtime.io import system
from runtime.wire import Decode, Flag

COLUMNS: tuple[str, ...] = ("recv_ns", "t_pub_ns", "t_end_ns", "token", "seq", "flags")
POLL_MS = 200


def listen(address: str, out: Path, more: Callable[[Decode], tuple[int, ...]] = lambda message: ()) -> None:
    """Stamp every estimate as it arrives (CLOCK_MONOTONIC, which is the LSL clock on Linux), and write them all.

    more: what else to keep of each, behind `COLUMNS`.
    """
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: over.append(number))
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 0)  # nothing is dropped here: what is missing was not sent
    socket.setsockopt(zmq.SUBSCRIBE, wire.topic("decode", "")[:-1])
    socket.connect(address)
    system.raise_priority()  # it stands for a client on a machine of its own
    gc.disable()
    rows: list[tuple[int, ...]] = []
    while not over:
        if not socket.poll(POLL_MS):
            continue
        payload = socket.recv_multipart()[-1]
        now = time.monotonic_ns()
        message = unpack(payload, Decode)
        if message is None:
            continue
        if message.flags & Flag.END:
            break
        row = now, message.t_pub_ns, message.t_end_ns, message.token, message.seq, message.flags
        rows.append((*row, *more(message)))
    table = np.array(rows, np.int64) if rows else np.zeros((0, len(COLUMNS)), np.int64)
    with whole(out) as partial, partial.open("wb") as file:
        np.save(file, table)
    context.destroy(linger=0)


if __name__ == "__main__":
    listen(sys.argv[1], Path(sys.argv[2]))
