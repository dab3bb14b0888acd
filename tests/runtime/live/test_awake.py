"""Cores are kept awake around each edge by what is in nobody's way and ends with the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from runtime.io.spinner import AFTER_NS, BEFORE, window
from runtime.live import awake as module
from runtime.live.awake import awake, wanted

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="SCHED_IDLE and /proc are Linux's")
BIN = 20_000_000


@pytest.mark.parametrize(
    ("asked", "cores", "virtual", "limited", "right"),
    [
        ("auto", 2, True, False, True), ("auto", 4, True, False, True), ("auto", 5, True, False, False),
        ("auto", 2, False, False, False), ("auto", 2, True, True, False), ("always", 16, False, True, True),
        ("none", 2, True, False, False),
    ],
)  # fmt: skip
def test_few_cores_of_a_virtual_machine(asked: str, cores: int, virtual: bool, limited: bool, right: bool) -> None:
    assert wanted(asked, cores, virtual=virtual, limited=limited) == right


@given(
    now=st.integers(0, 10**15),
    bin_ns=st.integers(1_000_000, 100_000_000),
    close_ns=st.integers(0, 100_000_000),
)
def test_a_window_is_the_first_that_is_not_over(now: int, bin_ns: int, close_ns: int) -> None:
    """Each bin's closing lies in one, and of those that are not over the one before would be."""
    begin, end = window(now, bin_ns, close_ns)
    assert end > now >= end - bin_ns
    assert (end - AFTER_NS - close_ns) % bin_ns == 0
    assert begin == end - AFTER_NS - bin_ns // BEFORE


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _until(what: str, found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@LINUX
def test_each_core_has_one_that_yields_to_all_others() -> None:
    with awake("always", BIN, 0) as spinners:
        assert len(spinners) == len(os.sched_getaffinity(0))
        for one in spinners:
            _until("it never asked for SCHED_IDLE", lambda one=one: os.sched_getscheduler(one.pid) == os.SCHED_IDLE)
            _until("it is on several cores", lambda one=one: len(os.sched_getaffinity(one.pid)) == 1)
            _until("it never spun", lambda one=one: int(_stat(one.pid)[11]) + int(_stat(one.pid)[12]) > 5)
        assert set[int]().union(*(os.sched_getaffinity(one.pid) for one in spinners)) == os.sched_getaffinity(0)
    assert all(one.returncode == -signal.SIGKILL for one in spinners)


@LINUX
def test_none_is_started_where_it_is_not_wanted() -> None:
    with awake("none", BIN, 0) as spinners:
        assert spinners == []


@LINUX
def test_they_end_with_a_parent_that_was_killed() -> None:
    """Nobody is left who could end them."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(module.__file__).parents[2])!r})\n"
        "from runtime.live.awake import awake\n"
        f"with awake('always', {BIN}, 0) as found:\n"
        "    print(*[one.pid for one in found], flush=True)\n"
        "    sys.stdin.read()\n"
    )
    words = [sys.executable, "-I", "-c", program]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = list(map(int, parent.stdout.readline().split()))
        assert pids
        assert all(_stat(pid)[0] in "RSD" for pid in pids)
        parent.kill()
        _until("they outlive it", lambda: not any(_lives(pid) for pid in pids))


def _lives(pid: int) -> bool:
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False
