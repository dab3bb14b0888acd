"""Where a result was made: written into every committed JSON."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "triton", "numpy", "numba", "onnxruntime", "scikit-learn", "umap-learn")


def cpu() -> str:
    """The processor's own name, or the architecture where the system does not say."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def describe() -> dict[str, str | int | dict[str, str]]:
    """Processor, cores, system, and the versions a number depends on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"cpu": cpu(), "cores": os.cpu_count() or 0, "system": platform.platform(), "versions": versions}
