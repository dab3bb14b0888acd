"""A process that keeps a core awake around each edge: `python -I -S spinner.py CORE BIN_NS CLOSE_NS PARENT`.

It spins at SCHED_IDLE: whatever else wants that core has it at once. It imports nothing of ours and is there at once.
"""

import contextlib
import os
import sys
import time
from pathlib import Path

BEFORE, AFTER_NS = 4, 3_000_000  # from a quarter of a bin before, in which the step is rehearsed, to 3 ms after


def window(now_ns: int, bin_ns: int, close_ns: int) -> tuple[int, int]:
    """When to spin next: from and to, ns; a window that has begun but is not over comes first.

    close_ns: from a bin's edge, a multiple of bin_ns, to when it closes.
    """
    edge_ns = ((now_ns - close_ns - AFTER_NS) // bin_ns + 1) * bin_ns + close_ns
    return edge_ns - bin_ns // BEFORE, edge_ns + AFTER_NS


def spin(core: int, bin_ns: int, close_ns: int, parent: int) -> None:
    """Until the parent is gone. Raises `OSError` where SCHED_IDLE is not granted: it would be in the way."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.sched_setaffinity(0, {core})
    with contextlib.suppress(OSError):  # SCHED_IDLE counts within a session alone where the kernel groups by session
        Path("/proc/self/autogroup").write_text("19")
    clock = time.monotonic_ns  # the LSL clock of Linux
    while os.getppid() == parent:
        from_ns, to_ns = window(clock(), bin_ns, close_ns)
        if (left_ns := from_ns - clock()) > 0:
            time.sleep(left_ns * 1e-9)
        while clock() < to_ns:
            pass


if __name__ == "__main__":
    spin(*map(int, sys.argv[1:]))
