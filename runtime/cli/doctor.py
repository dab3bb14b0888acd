"""`neds-rt doctor`: what this machine grants a run, a line each, with its remedy where something is lacking."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from runtime.cli.output import emit

NEEDED = ("torch", "numpy", "numba", "pylsl", "pyzmq", "msgspec", "safetensors", "hdrhistogram", "typer", "rich")
STREAMS = 4  # of a rig: spikes, markers and two behaviours
LSL_WAIT_S = 5.0
ROOM_GB = 1.0  # for compiled code, logs of runs and checkpoints
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CLOCK = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
GPU_DEVICE = Path("/dev/nvidia0")
LIMITS_CONF = "add '* - rtprio 95' and '* - memlock unlimited' to /etc/security/limits.conf and log in again"


@dataclass(frozen=True, slots=True)
class Line:
    """What was found of one thing. missing: no run works so; less: a run works, with a drawback that `remedy` ends."""

    name: str
    verdict: Literal["ok", "less", "missing"]
    found: str
    remedy: str = ""


def doctor(
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Say what this machine grants: packages, LSL, ports, limits, scheduling, memory, disk, GPU. Exit code 3 where
    something that a run needs is missing."""
    found = list(lines())
    missing = [line.name for line in found if line.verdict == "missing"]
    verdict = "NOT READY" if missing else "READY"
    result = {"verdict": verdict, "missing": missing, "lines": [asdict(line) for line in found]}
    emit(result, None if json else lambda: [*map(_text, found), verdict], json)
    if missing:
        raise typer.Exit(3)


def lines() -> Iterator[Line]:
    """Everything that is looked at, in the order in which a run needs it."""
    yield python()
    yield packages(NEEDED)
    yield owner()
    yield compiled()
    yield lsl()
    yield ports((5571, 5572, 5573))
    yield open_files()
    yield cores()
    yield scheduling()
    yield limits()
    yield large_pages(HUGE_PAGES)
    yield clock(CLOCK)
    yield disk(Path.cwd(), ROOM_GB)
    yield gpu()


def python() -> Line:
    """Python itself; an older one does not get here."""
    return Line("python", "ok", f"{platform.python_version()} at {sys.executable}")


def packages(names: Sequence[str]) -> Line:
    """Versions of the packages of others that a run imports."""
    from runtime.io.system import installed

    found = installed(names)
    words = ", ".join(f"{name} {version}" for name, version in found.items())
    if lacking := [name for name in names if name not in found]:
        remedy = f"{sys.executable} -m pip install {' '.join(lacking)}"
        return Line("packages", "missing", f"not installed: {', '.join(lacking)}; {words}", remedy)
    return Line("packages", "ok", words)


def owner() -> Line:
    """Where the top-level packages lie. Every command refuses to start where one of them is another distribution's."""
    import neds_core
    from runtime.cli.ownership import NAMES

    return Line("owner", "ok", f"{', '.join(NAMES)} are neds-rt's, in {Path(str(neds_core.__file__)).parents[1]}")


def compiled() -> Line:
    """Where compiled code is kept."""
    from kernels.cpu import jit

    if jit.settings.DISABLE_JIT:
        remedy = "take NUMBA_DISABLE_JIT out of the environment, and disable_jit out of .numba_config.yaml"
        return Line("compiled code", "missing", "Numba is switched off, and a step runs as compiled code alone", remedy)
    if jit.CACHE is None:
        remedy = "set NUMBA_CACHE_DIR to a folder that can be written"
        return Line("compiled code", "less", "no folder for it can be written, so each start compiles anew", remedy)
    return Line("compiled code", "ok", f"kept in {jit.CACHE}")


def lsl() -> Line:
    """Discovery and one sample, on this machine."""
    from runtime.io import lsl_loopback
    from runtime.io.lsl_resolve import configure, library

    configure("neds-rt-doctor", "machine")
    if fault := lsl_loopback.fault(LSL_WAIT_S):
        remedy = (
            "allow multicast on the loopback (ip link set lo multicast on) and UDP and TCP ports 16571 to 16604 in the "
            'firewall, or set lsl.known_peers = ["127.0.0.1"]'
        )
        return Line("LSL", "missing", fault, remedy)
    return Line("LSL", "ok", f"liblsl {library()}: a stream of this machine was found and read")


def ports(wanted: Sequence[int]) -> Line:
    """The default ports of messages and control; a run may take others."""
    taken = [port for port in wanted if not _is_free(port)]
    if not _is_free(0):
        remedy = "allow programs to listen on the loopback (ip link set lo up; the sandbox, the firewall)"
        return Line("ports", "missing", "no port of 127.0.0.1 can be listened on", remedy)
    if taken:
        words = ", ".join(map(str, taken))
        remedy = "end the run or program that has it, or set output.decode_port and latest_port (control.port) to 0"
        return Line("ports", "less", f"taken on 127.0.0.1: {words}", remedy)
    return Line("ports", "ok", f"free on 127.0.0.1: {', '.join(map(str, wanted))}")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        if sys.platform != "win32":
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ZeroMQ: a port that was just left is free
        try:
            one.bind(("127.0.0.1", port))
            one.listen(1)
        except OSError:
            return False
    return True


def open_files() -> Line:
    """Files and sockets that a process may open."""
    from neds_core.errors import ConfigError
    from runtime.io import system

    try:
        system.open_files(STREAMS)
    except ConfigError as error:
        return Line("open files", "missing", str(error).partition("; ")[0], "raise the limit: ulimit -n 1024")
    return Line("open files", "ok", f"enough for a rig of {STREAMS} streams and more")


def cores() -> Line:
    """Cores that this process may use, and how their clock is governed."""
    from runtime.io import system

    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    governor = system.governor()
    found = f"{n} of {os.cpu_count()}, {system.cpu()}, governor {governor}"
    if n < 2:
        return Line(
            "cores", "less", found, "give the run two cores or more, so that its inlets do not wait for the loop"
        )
    if governor not in ("performance", system.NOT_SAID):
        return Line(
            "cores", "less", found, "cpupower frequency-set -g performance: a core that must speed up first is late"
        )
    return Line("cores", "ok", found)


def scheduling() -> Line:
    """Real-time scheduling and locked memory, as a run asks for them."""
    from runtime.io import system

    found = system.granted()
    if "SCHED_FIFO" in found and "normal" not in found and "not locked" not in found:
        return Line("scheduling", "ok", found)
    remedy = LIMITS_CONF if sys.platform.startswith("linux") else "none on this system: expect longer tails"
    return Line("scheduling", "less", found, remedy)


def limits() -> Line:
    """How far this user may raise the two limits that real-time scheduling and locked memory need."""
    from runtime.certificate import surroundings

    had = surroundings.limits()
    found = {name: had.get(f"limit {name}", "not said") for name in ("rtprio", "memlock")}
    words = ", ".join(f"{name} {'unlimited' if value == 'none' else value}" for name, value in found.items())
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if is_root or not had:
        return Line("limits", "ok", f"{words}{' (root: they do not bind)' if is_root else ''}")
    if found["rtprio"] == "0" or found["memlock"] != "none":
        return Line("limits", "less", words, LIMITS_CONF)
    return Line("limits", "ok", words)


def large_pages(path: Path) -> Line:
    """Transparent huge pages, which the weights of a large model are laid in where they are allowed."""
    from runtime.io import system

    found = system.said(path)
    if "[never]" in found:
        return Line("large pages", "less", "off", f"for large models: echo madvise > {path} (as root)")
    return Line("large pages", "ok", "not said by this system" if found == system.NOT_SAID else found)


def clock(path: Path) -> Line:
    """What the kernel reads the time from: each look costs nanoseconds with tsc, microseconds with others."""
    from runtime.io import system

    found = system.said(path)
    if found in ("hpet", "acpi_pm"):
        return Line(
            "clock", "less", f"{found}: each look at the time is slow", "boot with clocksource=tsc, if the host has it"
        )
    return Line("clock", "ok", "not said by this system" if found == system.NOT_SAID else found)


def disk(folder: Path, least_gb: float) -> Line:
    """Room in the current folder, where logs and checkpoints go."""
    try:
        free_gb = shutil.disk_usage(folder).free * 1e-9
    except OSError as error:
        return Line("disk", "less", f"{folder} cannot be read ({error.strerror})", "go to another folder")
    found = f"{free_gb:.1f} GB free in {folder}"
    if not os.access(folder, os.W_OK):
        return Line(
            "disk", "less", f"{found}, which cannot be written", "go to a folder of yours before logs are saved"
        )
    if free_gb < least_gb:
        return Line("disk", "less", found, f"make room: logs, checkpoints and compiled code take up to {least_gb:g} GB")
    return Line("disk", "ok", found)


def gpu() -> Line:
    """The graphics card that torch can use. A rig needs none."""
    import torch

    if torch.cuda.is_available():
        return Line("GPU", "ok", f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}")
    if GPU_DEVICE.exists():
        remedy = 'install the driver that this torch needs, or keep engine.device = "cpu"'
        return Line("GPU", "less", f"there is one, and torch {torch.__version__} cannot use it", remedy)
    return Line("GPU", "ok", 'none; engine.device = "cpu" needs none')


def _text(line: Line) -> str:
    return f"{line.verdict:8}{line.name:15}{line.found}{f'; remedy: {line.remedy}' if line.remedy else ''}"
