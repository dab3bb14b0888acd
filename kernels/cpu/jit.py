"""How the step is compiled: once, kept on disk, and never run with parts of an older version."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba
from numba.core import config

settings: Any = config  # numba fills this module as it is imported
# not `fast`: that would also declare NaN and infinity impossible, and hide a poisoned value
FLAGS = {"contract", "reassoc", "nsz", "arcp", "afn"}
HERE = Path(__file__).parent


def _bases() -> list[Path]:
    """Folders that may hold compiled steps, in order: Numba's setting, this file's folder, the user's cache."""
    bases = [Path(settings.CACHE_DIR)] if settings.CACHE_DIR else []
    bases.append(HERE / "__pycache__")
    with contextlib.suppress(RuntimeError):  # a user without a home
        bases.append(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "neds-rt")
    return bases


def _cache_folder(bases: Sequence[Path]) -> str | None:
    """Where compiled steps are kept, one folder for each state of these sources; None where no base can be written.

    Numba only checks whether the file of a function is older than its compiled form, but a step holds code of several
    files: after an update it could run on with old products in it. Nor is Numba left to choose where no base can be
    written: its fallback is one folder for all states.
    """
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(HERE.glob("*.py"))))
    for base in bases:
        folder = base / f"numba-{state.hexdigest()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return str(folder)
    logging.getLogger(__name__).warning(
        "no folder for compiled code can be written, so each start compiles anew: set NUMBA_CACHE_DIR to one that can"
    )
    return None


CACHE = _cache_folder(_bases())


def jit(function: Callable[..., Any]) -> Any:
    """Compiled on first use and kept on disk; holds no lock."""
    before, settings.CACHE_DIR = settings.CACHE_DIR, CACHE or ""
    try:
        return numba.njit(cache=CACHE is not None, nogil=True, fastmath=FLAGS, error_model="numpy")(function)
    finally:
        settings.CACHE_DIR = before
