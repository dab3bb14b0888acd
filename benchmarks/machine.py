"""Where a result was made: written into every committed JSON."""

from __future__ import annotations

from runtime.io import system

PACKAGES = ("torch", "triton", "numpy", "numba", "onnxruntime", "scikit-learn", "umap-learn")


def describe() -> dict[str, str | int | dict[str, str]]:
    """Processor, cores, system, and the versions a number depends on."""
    return system.facts(PACKAGES)
