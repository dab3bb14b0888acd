"""What the system grants and takes: real-time scheduling, locked memory, a core, page faults, CPU steal."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from neds_core.errors import ConfigError

if sys.platform != "win32":
    import resource

FIFO_PRIORITY, BESIDE_PRIORITY = 10, 5
FILES, FILES_A_STREAM = 64, 16  # open at once: ours and ZeroMQ's, and liblsl's for each inlet
PACKAGES = ("neds-rt", "torch", "numpy", "numba", "pylsl", "pyzmq")  # what a measurement depends on
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
CPUINFO = Path("/proc/cpuinfo")
NOT_SAID = "not said"  # the system has no such file
CURRENT, FUTURE, ON_FAULT = 1, 2, 4  # of mlockall(2): pages that have been touched, and those that will be


def open_files(streams: int) -> None:
    """Make sure that a run of so many LSL streams can open its sockets: liblsl waits or fails without a word.

    Takes what the system grants; raises `ConfigError` where that is too little.
    """
    if sys.platform == "win32":
        return
    needed = FILES + FILES_A_STREAM * streams
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    granted = hard
    if hard == resource.RLIM_INFINITY or hard >= needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        except (OSError, ValueError):  # a sandbox
            granted = soft
        else:
            return
    raise ConfigError(f"this process may open {granted} files and needs {needed}; raise the limit (ulimit -n 1024)")


def raise_priority() -> str:
    """Ask for SCHED_FIFO for this thread and those it starts, and for memory that stays; returns what was granted."""
    return f"{_schedule()}, memory {'locked' if _lock_memory() else 'not locked'}"


def granted() -> str:
    """What `raise_priority` is granted here; nothing stays raised, and nothing that was inherited is given up.

    Asked by a thread that ends with it: who inherited SCHED_FIFO (`CPUSchedulingPolicy=` of systemd, `chrt` before root
    was dropped) may give it up but is not granted it again. Memory must not be locked yet.
    """
    found: list[str] = []
    asks = threading.Thread(target=lambda: found.append(raise_priority()), name="granted")
    asks.start()
    asks.join()
    _unlock_memory()
    return found[0]


def _lock_memory() -> bool:
    """Keep the pages of this process where they are: one that the system takes back costs a step a wait for the disk.

    Not under a limit (`ulimit -l`): there it would make a later allocation fail.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
        return (unlimited or os.geteuid() == 0) and ctypes.CDLL(None).mlockall(CURRENT | FUTURE | ON_FAULT) == 0
    except (OSError, ValueError, AttributeError):  # a sandbox, a C library without it
        return False


def _unlock_memory() -> None:
    with contextlib.suppress(OSError, AttributeError):
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).munlockall()


def _schedule() -> str:
    if not hasattr(os, "sched_setscheduler"):
        return "normal (this system has no SCHED_FIFO)"
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
    except PermissionError:
        with contextlib.suppress(OSError):
            if os.sched_getscheduler(0) == os.SCHED_FIFO:
                return f"SCHED_FIFO {os.sched_getparam(0).sched_priority}, inherited"
        return "normal (SCHED_FIFO was not granted; see rtprio in limits.conf)"
    except OSError as error:  # sandboxes, emulators and some kernels
        return f"normal (this system has no SCHED_FIFO: {error.strerror})"
    return f"SCHED_FIFO {FIFO_PRIORITY}"


def beside_the_loop() -> None:
    """Ask for SCHED_FIFO below the loop's for this thread: it must not wait for other programs while it holds Python's
    lock, because then the loop waits as well. On two busy cores that was up to 20 ms for each checkpoint loaded."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(BESIDE_PRIORITY))


def lower_priority() -> None:
    """Back to normal scheduling for this thread, and memory may go: what follows is not urgent."""
    _unlock_memory()
    with contextlib.suppress(OSError):  # where it cannot be had, it cannot be given back
        if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) == os.SCHED_FIFO:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def pinned() -> Iterator[str]:
    """This thread, and those it starts, on one core until the end: what is timed must not wander. Yields which core.

    For measurements. A live run is left to the scheduler: on the pinned core it would wait for whatever else lands
    there, and so would the threads of its inlets.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield "not pinned: this system cannot"
        return
    try:
        allowed = os.sched_getaffinity(0)
        core = max(allowed)
        os.sched_setaffinity(0, {core})
    except (OSError, ValueError) as error:
        yield f"not pinned: this system cannot ({error})"
        return
    try:
        yield f"core {core}"
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, allowed)


def virtual(cpuinfo: Path = CPUINFO) -> bool:
    """Whether this is a virtual machine; False where the processor does not say (x86 does)."""
    return any("hypervisor" in line.split() for line in _text(cpuinfo).splitlines() if line.startswith("flags"))


def cpu_limited(mine: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> bool:
    """Whether a control group of this process, version 1 or 2, has a share of the cores' time only: a container's."""
    for line in _text(mine).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root, name = (groups / controllers, "cpu.cfs_quota_us") if controllers else (groups, "cpu.max")
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if not folder.is_relative_to(root):
                break
            quota = _text(folder / name).split()
            if quota and quota[0] not in ("max", "-1"):
                return True
    return False


def page_faults() -> int:
    """Major page faults of this process so far; 0 where the system does not count them."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt if sys.platform != "win32" else 0


def stolen_ms() -> float:
    """CPU time so far, over all cores, that a hypervisor gave to others; 0 where the system does not count it."""
    fields = _text(Path("/proc/stat")).split(maxsplit=9)
    return 1e3 * int(fields[8]) / os.sysconf("SC_CLK_TCK") if len(fields) > 8 and fields[8].isdecimal() else 0.0


def versions() -> dict[str, str]:
    """Versions and machine that a measurement depends on."""
    here = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    return here | dict.fromkeys(PACKAGES, "not installed") | installed(PACKAGES)


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cpu() -> str:
    """The processor's own name, or the architecture where the system does not say."""
    lines = _text(CPUINFO).splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def governor() -> str:
    """How the clock of the first core is governed, `NOT_SAID` where the system does not say."""
    return said(GOVERNOR)


def said(path: Path) -> str:
    """What a file of the system says, `NOT_SAID` where it is not there."""
    try:
        return path.read_text().strip()
    except OSError:
        return NOT_SAID


def _text(path: Path) -> str:
    """What a file of the system holds, nothing where it is not there or hidden."""
    try:
        return path.read_text()
    except OSError:
        return ""


def facts(packages: Iterable[str]) -> dict[str, str | int | dict[str, str]]:
    """What a number that was measured here depends on: processor, cores, system, and versions."""
    found = {"python": platform.python_version()} | installed(packages)
    return {"cpu": cpu(), "cores": os.cpu_count() or 0, "system": platform.platform(), "versions": found}


def end(child: subprocess.Popen[bytes], within_s: float = 1.0) -> None:
    """End a child that we started: ask, and insist if it takes longer than within_s."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(within_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def ended_by(code: int | None) -> str:
    """What the return code of a child says, in words."""
    return f"exit code {code}" if code is None or code >= 0 else f"signal {-code}"
