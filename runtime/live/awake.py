"""Keeps the cores of a small virtual machine awake around each edge: one that sleeps may wake late, by milliseconds.

An idle core of a virtual machine goes back to its host, which lets others run on it and has it wait for them: up to
3 ms as measured (docs/latency.md). A process for each core therefore spins from before an edge until its message has
reached a subscriber (`runtime.io.spinner`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.io import spinner, system

FEW = 4  # cores: on more, which of them is needed is not known


def wanted(asked: str, cores: int, *, virtual: bool, limited: bool) -> bool:
    """Whether cores are to be kept awake. asked: `engine.awake`. cores: that may be used. limited: in their time."""
    return asked == "always" or (asked == "auto" and virtual and not limited and cores <= FEW)


@contextmanager
def awake(asked: str, bin_ns: int, close_ns: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Keep awake the cores that this process may use, where that is wanted; yields the processes that do.

    close_ns: from a bin's edge to when it closes.
    """
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "SCHED_IDLE") else []  # Linux
    needed = wanted(asked, len(allowed), virtual=system.virtual(), limited=system.cpu_limited())
    began, none = list[subprocess.Popen[bytes]](), subprocess.DEVNULL
    try:
        for core in allowed if needed else ():
            words = map(str, (core, bin_ns, close_ns, os.getpid()))
            command = [sys.executable, "-I", "-S", spinner.__file__, *words]
            began.append(subprocess.Popen(command, stdin=none, stdout=none, stderr=none, start_new_session=True))
        yield began
    finally:
        for one in began:
            one.kill()
            one.wait()
