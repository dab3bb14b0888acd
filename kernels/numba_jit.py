"""How the step is compiled: once, kept on disk, and never run with parts of an older version."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config

settings: Any = config  # numba fills this module as it is imported
# not `fast`: that would also declare NaN and infinity impossible, and hide a poisoned value
FLAGS = {"contract", "reassoc", "nsz", "arcp", "afn"}


def _cache_folder() -> str:
    """Where compiled steps are kept: one folder for each state of these sources.

    Numba only asks whether the file of a function is older than its compiled form, but a step holds
    code of several files: after an update it could run on with old products in it.
    """
    here = Path(__file__).parent
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(here.glob("numba_*.py"))))
    base = Path(settings.CACHE_DIR) if settings.CACHE_DIR else here / "__pycache__"
    return str(base / f"numba-{state.hexdigest()[:16]}")


CACHE = _cache_folder()


def jit(function: Callable[..., Any]) -> Any:
    """Compiled on first use and kept on disk; holds no lock."""
    before, settings.CACHE_DIR = settings.CACHE_DIR, CACHE
    try:
        return numba.njit(cache=True, nogil=True, fastmath=FLAGS, error_model="numpy")(function)
    finally:
        settings.CACHE_DIR = before
