"""Real-time scheduling and a core of one's own where the system grants them, and the plain truth where it does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

FIFO_PRIORITY = 10


def raise_priority() -> str:
    """Ask for SCHED_FIFO for this thread and those it starts; returns what was granted, for the summary."""
    if not hasattr(os, "sched_setscheduler"):
        return "normal (this system has no SCHED_FIFO)"
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
    except PermissionError:
        return "normal (SCHED_FIFO was not granted; see rtprio in limits.conf)"
    return f"SCHED_FIFO {FIFO_PRIORITY}"


def lower_priority() -> None:
    """Back to normal scheduling for this thread: what follows is not urgent."""
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) == os.SCHED_FIFO:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def pinned() -> Iterator[str]:
    """This thread, and those it starts, on one core until the end: what is timed must not wander. Yields which core.

    For measurements. A live run is left to the scheduler: on the pinned core it would wait for whatever else lands
    there, and so would the threads of its inlets.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield "not pinned: this system cannot"
        return
    allowed = os.sched_getaffinity(0)
    core = max(allowed)
    os.sched_setaffinity(0, {core})
    try:
        yield f"core {core}"
    finally:
        os.sched_setaffinity(0, allowed)
