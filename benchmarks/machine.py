"""Where a result was made: written into every committed JSON."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from runtime.certificate.surroundings import SETTINGS
from runtime.io import system

if sys.platform != "win32":
    import resource

PACKAGES = ("torch", "triton", "numpy", "numba", "onnxruntime", "scikit-learn", "umap-learn")
OF_A_RUN = ("pylsl", "pyzmq", "msgspec")
ROOT = Path(__file__).resolve().parents[1]


def describe() -> dict[str, str | int | dict[str, str]]:
    """Processor, cores, system, and the versions a number depends on."""
    return system.facts(PACKAGES)


def fingerprint() -> dict[str, Any]:
    """The same, and what a latency depends on: governor, clock source, limits, versions of LSL and ZeroMQ, code."""
    found = system.facts((*PACKAGES, *OF_A_RUN))
    return {
        **found,
        "governor": system.governor(),
        "isolated_cpus": system.said(Path(SETTINGS["isolated cores"])),
        "clock_source": system.said(Path(SETTINGS["clock source"])),
        "limits": _limits(),
        "git": _git(),
    }


def _limits() -> dict[str, str]:
    """What this process may ask for, in words: real-time priority, locked memory, open files."""
    if sys.platform == "win32":
        return {}
    wanted = {"rtprio": "RLIMIT_RTPRIO", "memlock": "RLIMIT_MEMLOCK", "nofile": "RLIMIT_NOFILE"}
    found = {name: getattr(resource, key, None) for name, key in wanted.items()}
    soft = {name: resource.getrlimit(key)[0] for name, key in found.items() if key is not None}
    return {name: "unlimited" if n == resource.RLIM_INFINITY else str(n) for name, n in soft.items()}


def _git() -> dict[str, str | bool]:
    """Commit of the checkout, and whether its files differ from it; '' where this is none."""

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit, changed = ask("rev-parse", "HEAD"), ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit or "", "changed": bool(changed)}
