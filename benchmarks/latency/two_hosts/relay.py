"""A network in user space, for kernels without netem: every packet is late by so much, and some are lost.

`python -m benchmarks.latency.two_hosts.relay PID PID DELAY_MS JITTER_MS LOSS` opens a device in the networks of two
processes and passes packets between them, in their order, until SIGTERM.
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

from benchmarks.latency.two_hosts.host import enter_network
from runtime.io import system

DEVICE = "rt0"
TUNSETIFF, PLAIN_PACKETS = 0x400454CA, 0x1001  # of linux/if_tun.h: IFF_TUN | IFF_NO_PI
LARGEST = 65536
OPEN = "open"


def opened(pid: int) -> int:
    """The device in the network of a process."""
    enter_network(pid)
    found = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(found, TUNSETIFF, struct.pack("16sH", DEVICE.encode(), PLAIN_PACKETS))
    return found


class Way:
    """One direction: packets that wait for their time."""

    def __init__(self, out: int, delay_s: float, jitter_s: float, loss: float, seed: int) -> None:
        self.out, self.delay_s, self.jitter_s, self.loss = out, delay_s, jitter_s, loss
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._random, self._last_s = random.Random(seed), 0.0

    def take(self, packet: bytes, now_s: float) -> None:
        """A packet that came now: lost, or due after the delay, never before the one in front of it."""
        if self._random.random() < self.loss:
            return
        late_s = self._random.uniform(self.delay_s - self.jitter_s, self.delay_s + self.jitter_s)
        self._last_s = max(self._last_s, now_s + late_s)
        self._waiting.append((self._last_s, packet))

    def due_s(self) -> float:
        """When the next one is due."""
        return self._waiting[0][0] if self._waiting else float("inf")

    def pop(self, now_s: float) -> bytes | None:
        """The next packet that is due, None where none is."""
        return self._waiting.popleft()[1] if self._waiting and self.due_s() <= now_s else None


def relay(ways: dict[int, Way]) -> None:
    """Pass packets, device -> where what comes from it goes, until the process ends."""
    while True:
        due_s = min(way.due_s() for way in ways.values())
        for device in select.select(list(ways), [], [], min(1.0, max(0.0, due_s - time.monotonic())))[0]:
            ways[device].take(os.read(device, LARGEST), time.monotonic())
        for way in ways.values():
            while (packet := way.pop(time.monotonic())) is not None:
                try:
                    os.write(way.out, packet)
                except OSError:  # the device is down: lost, as on a cable that is pulled
                    continue


def main(pids: tuple[int, int], delay_ms: float, jitter_ms: float, loss: float) -> None:
    """Open both devices, say so, and pass packets."""
    a, b = (opened(pid) for pid in pids)
    system.raise_priority()
    print(OPEN, flush=True)
    given = delay_ms * 1e-3, jitter_ms * 1e-3, loss
    relay({a: Way(b, *given, seed=0), b: Way(a, *given, seed=1)})


if __name__ == "__main__":
    main((int(sys.argv[1]), int(sys.argv[2])), *map(float, sys.argv[3:6]))
