"""Scheduling and locked memory: granted or not, what the summary says is so, and it ends."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from runtime.io import system

PROGRAM = """
import os
from runtime.io import system as priority

def locked_kb():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmLck"))

before = os.sched_getscheduler(0), locked_kb()
said = priority.raise_priority()
during = os.sched_getscheduler(0), locked_kb()
touched = bytearray(50_000_000)  # locking memory must not make an allocation fail
priority.lower_priority()
after = os.sched_getscheduler(0), locked_kb()
assert before == after == (os.SCHED_OTHER, 0), (before, after)
assert ("SCHED_FIFO 10" in said) == (during[0] == os.SCHED_FIFO), said
assert ("memory locked" in said) == (during[1] > 1000), (said, during)
print(said)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has /proc/self/status")
@pytest.mark.parametrize("limit", ["as it is", "a megabyte"])
def test_what_is_said_was_granted_and_ends(limit: str) -> None:
    """In a process of its own; under a small limit nothing is locked unless the system lets this user."""
    setup = "import resource; resource.setrlimit(resource.RLIMIT_MEMLOCK, (2**20, 2**20))\n"
    program = PROGRAM if limit == "as it is" else setup + PROGRAM

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    if os.geteuid() != 0:
        assert "memory not locked" in done.stdout or limit == "as it is"


def test_versions_are_of_what_is_installed() -> None:
    """A package that is absent has none."""
    found = system.facts(("numpy", "a-package-that-is-absent"))

    assert found["versions"] == {"python": platform.python_version(), "numpy": np.__version__}
    assert found["cpu"]
