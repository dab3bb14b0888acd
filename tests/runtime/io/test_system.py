"""Scheduling and locked memory: granted or not, what the summary says is so, and it ends."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from neds_core.errors import ConfigError
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


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EACCES, errno.ESRCH, errno.EIO])
@pytest.mark.parametrize(
    "refused", ["sched_setscheduler", "sched_getscheduler", "sched_getaffinity", "sched_setaffinity", "mlockall"]
)
def test_whatever_a_system_refuses_is_said_and_ends_nothing(
    code: int, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sandboxes, emulators and some kernels answer ENOSYS or EINVAL where others say EPERM."""

    def no(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    def denied(*_: object) -> None:
        raise PermissionError(errno.EPERM, "as a user without rights")

    monkeypatch.setattr(os, "sched_setscheduler", denied)  # this process stays as it is
    monkeypatch.setattr(system.resource, "getrlimit", no)  # nor is its memory locked
    if refused != "mlockall":
        monkeypatch.setattr(os, refused, no)

    said = system.raise_priority()
    system.lower_priority()
    with system.pinned() as core:
        pass

    assert said.startswith("normal (")
    assert said.endswith("), memory not locked")
    assert core.startswith("not pinned: this system cannot" if "affinity" in refused else "core ")


INHERITED = """
import os, resource
from runtime.io import system

resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
os.setresuid(65534, 65534, 65534)  # root is dropped, the policy stays
said = system.granted()
assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == (os.SCHED_FIFO, PRIORITY), said
assert said == system.raise_priority()  # as the loop is told later
print(said)
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_FIFO"), reason="this system has no SCHED_FIFO")
@pytest.mark.parametrize("priority", [7, system.FIFO_PRIORITY])
def test_asking_what_is_granted_gives_up_nothing_that_was_inherited(priority: int) -> None:
    """As under systemd with CPUSchedulingPolicy=fifo and User=: what is given up there is not granted again."""
    code = INHERITED.replace("PRIORITY", str(priority))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    if "sched_setscheduler" in done.stderr and "PermissionError" in done.stderr:
        pytest.skip("SCHED_FIFO is not granted here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"SCHED_FIFO {priority}")


def test_asking_what_is_granted_leaves_this_thread_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without rights as well: the thread that asks is another one."""
    asked: list[int] = []

    def by(*_: object) -> str:
        asked.append(threading.get_ident())
        return "normal"

    monkeypatch.setattr(system, "_schedule", by)
    assert system.granted().startswith("normal, memory ")
    assert asked
    assert threading.get_ident() not in asked


def test_a_thread_beside_the_loop_is_as_urgent_as_is_granted_and_less_than_the_loop() -> None:
    """Of itself alone."""
    found: list[tuple[int, int]] = []

    def ask() -> None:
        system.beside_the_loop()
        found.append((os.sched_getscheduler(0), os.sched_getparam(0).sched_priority))

    before = os.sched_getscheduler(0)
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found[0] in ((before, os.sched_getparam(0).sched_priority), (os.SCHED_FIFO, 5))
    assert os.sched_getscheduler(0) == before
    assert system.BESIDE_PRIORITY < system.FIFO_PRIORITY


def test_a_system_without_proc_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "hidden")

    monkeypatch.setattr(system.Path, "read_text", hidden)
    assert system.stolen_ms() == 0.0
    assert system.cpu() == platform.machine()


def test_versions_are_of_what_is_installed() -> None:
    """A package that is absent has none."""
    found = system.facts(("numpy", "a-package-that-is-absent"))

    assert found["versions"] == {"python": platform.python_version(), "numpy": np.__version__}
    assert found["cpu"]


def test_too_few_open_files_are_raised_or_refused() -> None:
    """In a process of its own: a hard limit never comes back."""
    code = (
        "import resource, sys\n"
        "from neds_core.errors import ConfigError\n"
        "from runtime.io import system\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (32, 200))\n"
        "system.open_files(2)\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
        "try:\n    system.open_files(20)\nexcept ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [
        "96", "this process may open 200 files and needs 384; raise the limit (ulimit -n 1024)"
    ]  # fmt: skip


def test_a_limit_of_open_files_that_cannot_be_raised_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(system.resource, "getrlimit", lambda _: (80, 1024))
    monkeypatch.setattr(system.resource, "setrlimit", no)
    system.open_files(1)
    with pytest.raises(ConfigError, match=r"may open 80 files and needs 96; raise the limit \(ulimit -n 1024\)"):
        system.open_files(2)


@pytest.mark.parametrize(
    ("cpuinfo", "right"),
    [
        ("flags\t\t: fpu tsc hypervisor lahf_lm\n", True),
        ("model name : hypervisor\nflags\t\t: fpu tsc lahf_lm\n", False),
        ("", False),
    ],
)
def test_a_virtual_machine_is_one_whose_processor_says_so(tmp_path: Path, cpuinfo: str, right: bool) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert system.virtual(tmp_path / "cpuinfo") == right


@pytest.mark.parametrize(
    ("line", "file", "quota", "right"),
    [
        ("0::/", "cpu.max", "200000 100000", True),
        ("0::/a/b", "a/cpu.max", "50000 100000", True),
        ("0::/a/b", "a/b/cpu.max", "max 100000", False),
        ("0::/a", "other/cpu.max", "50000 100000", False),
        ("3:cpu,cpuacct:/a", "cpu,cpuacct/a/cpu.cfs_quota_us", "50000", True),
        ("3:cpu,cpuacct:/a", "cpu,cpuacct/a/cpu.cfs_quota_us", "-1", False),
        ("3:memory:/a", "memory/a/cpu.cfs_quota_us", "50000", False),
        ("", "cpu.max", "50000 100000", False),
    ],
)
def test_a_control_group_may_limit_the_time_of_its_cores(
    tmp_path: Path, line: str, file: str, quota: str, right: bool
) -> None:
    (tmp_path / "mine").write_text(f"1:name=systemd:/\n{line}\n" if line else "")
    place = tmp_path / "groups" / file
    place.parent.mkdir(parents=True)
    place.write_text(quota + "\n")
    assert system.cpu_limited(tmp_path / "mine", tmp_path / "groups") == right
