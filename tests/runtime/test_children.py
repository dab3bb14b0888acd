"""A child of ours ends with what started it, however that ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from runtime.children import Child

SLEEPS = [sys.executable, "-c", "import os, time; print('pid', os.getpid(), flush=True); time.sleep(300)"]
PARENT = """
import sys, time
from pathlib import Path
from runtime.children import Child

with Child(Path(sys.argv[1]), name="sleeper", program=sys.argv[2:]) as child:
    print(child.until(r"pid (\\d+)", 30.0), flush=True)
    time.sleep(300)
"""
LIMIT_S = 30.0  # for a busy machine; the kernel takes no time


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a child that its parent is gone")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """By SIGKILL, as for want of memory: nothing in the parent can end it then."""
    with subprocess.Popen([sys.executable, "-c", PARENT, tmp_path, *SLEEPS], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    try:
        deadline = time.monotonic() + LIMIT_S
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the child outlives its parent"
            time.sleep(0.02)
    except psutil.NoSuchProcess:
        pass
    finally:
        if child.is_running():
            child.kill()


def test_a_child_is_the_process_that_was_asked_for(tmp_path: Path) -> None:
    """Not one around it: signals go to its id."""
    with Child(tmp_path, name="sleeper", program=SLEEPS) as child:
        assert int(child.until(r"pid (\d+)", LIMIT_S)) == child.process.pid
    assert not child.runs
