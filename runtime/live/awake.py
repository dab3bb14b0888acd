"""Keeps the cores of a small virtual machine awake around each edge: one that sleeps may wake late, by milliseconds.

An idle core of a virtual machine goes back to its host, which lets others run on it and has it wait for them: up to
3 ms as measured (docs/latency.md). A process for each core therefore spins from before an edge until its message has
reached a subscriber. It does so at SCHED_IDLE: whatever else wants that core has it at once.

`python -I -S awake.py CORE BIN_NS CLOSE_NS PARENT` is that process. It imports nothing of ours: it is there at once.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
BEFORE, AFTER_NS = (
    4,
    3_000_000,
)  # it spins from a quarter of a bin before, in which the step is rehearsed, to 3 ms after
FEW = 4  # cores: on more, which of them is needed is not known


def wanted(asked: str, cores: int, cpuinfo: str) -> bool:
    """Whether cores are to be kept awake. asked: `engine.awake`. cores: that may be used. cpuinfo: /proc/cpuinfo."""
    virtual = any("hypervisor" in line.split() for line in cpuinfo.splitlines() if line.startswith("flags"))
    return asked == "always" or (asked == "auto" and virtual and cores <= FEW)


def window(now_ns: int, bin_ns: int, close_ns: int) -> tuple[int, int]:
    """When to spin next: from and to, ns; a window that has begun but is not over comes first.

    close_ns: from a bin's edge, a multiple of bin_ns, to when it closes.
    """
    before_ns = bin_ns // BEFORE
    edge_ns = ((now_ns - close_ns - AFTER_NS) // bin_ns + 1) * bin_ns + close_ns
    return edge_ns - before_ns, edge_ns + AFTER_NS


@contextmanager
def awake(asked: str, bin_ns: int, close_ns: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Keep awake the cores that this process may use, where that is wanted; yields the processes that do."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "SCHED_IDLE") else []  # Linux
    cpuinfo = CPUINFO.read_text() if CPUINFO.exists() else ""
    began = list[subprocess.Popen[bytes]]()
    none = subprocess.DEVNULL
    try:
        for core in allowed if wanted(asked, len(allowed), cpuinfo) else ():
            words = map(str, (core, bin_ns, close_ns, os.getpid()))
            command = [sys.executable, "-I", "-S", __file__, *words]
            began.append(subprocess.Popen(command, stdin=none, stdout=none, stderr=none, start_new_session=True))
        yield began
    finally:
        for one in began:
            one.kill()
            one.wait()


def spin(core: int, bin_ns: int, close_ns: int, parent: int) -> None:
    """Until the parent is gone. Raises `OSError` where SCHED_IDLE is not granted: it would be in the way."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.sched_setaffinity(0, {core})
    clock = time.monotonic_ns  # the LSL clock of Linux
    while os.getppid() == parent:
        from_ns, to_ns = window(clock(), bin_ns, close_ns)
        if (left_ns := from_ns - clock()) > 0:
            time.sleep(left_ns * 1e-9)
        while clock() < to_ns:
            pass


if __name__ == "__main__":
    spin(*map(int, sys.argv[1:]))
