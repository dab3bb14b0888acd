"""What a run takes from its surroundings: settings of system and shell, the lab's LSL file, native libraries."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from neds_core.errors import ConfigError
from neds_core.files import sha256
from runtime.io import lsl_resolve, lsl_settings, publish, system

SETTINGS = {
    "transparent huge pages": "/sys/kernel/mm/transparent_hugepage/enabled",
    "isolated cores": "/sys/devices/system/cpu/isolated",
    "clock source": "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    "real-time share": "/proc/sys/kernel/sched_rt_runtime_us",  # us of each period that SCHED_FIFO may take
}
LIMITS = ("RTPRIO", "RTTIME", "MEMLOCK", "NOFILE", "AS")  # the hard ones: a run takes up to them
PREFIXES = ("NUMBA_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_")
VARIABLES = (
    "LD_PRELOAD", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "PYLSL_LIB", "PYTHONOPTIMIZE", "PYTHONMALLOC", "PYTHONDEVMODE",
    "PYTHONHASHSEED", "PYTHONTRACEMALLOC", "PYTHON_GIL", "PYTHON_JIT", "CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING",
)  # fmt: skip
NVIDIA = Path("/proc/driver/nvidia")
NONE, DIGITS = "none", 16  # digits of a file's SHA-256


def found(device: str) -> dict[str, str]:
    """Name -> value. device: cpu | cuda, for which the graphics card and its driver count too.

    Raises `ConfigError` where the lab's LSL file cannot be read.
    """
    said = {name: _chosen(system.said(Path(path))) for name, path in SETTINGS.items()}
    native = {"liblsl": lsl_resolve.library(), "libzmq": publish.library(), "lsl_api.cfg": lab_settings()}
    return {**said, **limits(), **native, **variables(), **(gpu() if device == "cuda" else {})}


def _chosen(text: str) -> str:
    """The one of several words that is in brackets, or all of it."""
    marked = re.search(r"\[(\S+)\]", text)
    return marked[1] if marked else text or NONE


def limits() -> dict[str, str]:
    """How much this user may raise its limits to."""
    if sys.platform == "win32":
        return {}
    import resource

    had = [name for name in LIMITS if hasattr(resource, f"RLIMIT_{name}")]
    hard = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1] for name in had}
    return {f"limit {k.lower()}": "none" if v == resource.RLIM_INFINITY else str(v) for k, v in hard.items()}


def lab_settings() -> str:
    """The beginning of the SHA-256 of the file whose settings liblsl takes, wherever it lies."""
    path = lsl_settings.lab_file()
    try:
        return NONE if path is None else sha256(path)[:DIGITS]
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); correct it, or name another in LSLAPICFG"
        ) from None


def variables() -> dict[str, str]:
    """Variables of the shell by which libraries and Python run otherwise."""
    return {k: v for k, v in sorted(os.environ.items()) if k in VARIABLES or k.startswith(PREFIXES)}


def gpu() -> dict[str, str]:
    """The graphics cards in the order of their buses, and the driver's version."""
    models = [
        re.search(r"Model:\s*(.+)", system.said(path)) for path in sorted((NVIDIA / "gpus").glob("*/information"))
    ]
    version = re.search(r"Module\s+(\S+)", system.said(NVIDIA / "version"))
    names = ", ".join(model[1].strip() for model in models if model)
    return {"gpu": names or system.NOT_SAID, "driver": version[1] if version else system.NOT_SAID}
