"""Real-time scheduling where the system grants it, and the plain truth where it does not."""

from __future__ import annotations

import os

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
