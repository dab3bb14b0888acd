"""How code is compiled: once, kept on disk, and never run with parts of an older version."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba
from numba.core import config

from kernels import KernelError

settings: Any = config  # numba fills this module as it is imported
# not `fast`: that would also declare NaN and infinity impossible, and hide a poisoned value
FLAGS = {"contract", "reassoc", "nsz", "arcp", "afn"}
HERE = Path(__file__).parent


def _bases() -> list[Path]:
    """Folders that may hold compiled code, in order: Numba's setting, this file's folder, the user's cache.

    A user without a home has no cache, and "~" is never the name of a folder.
    """
    given = [settings.CACHE_DIR] if settings.CACHE_DIR else []
    bases = []
    for name in (*given, HERE / "__pycache__", Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "neds-rt"):
        with contextlib.suppress(RuntimeError):  # no home
            bases.append(Path(name).expanduser())
    return bases


def _cache_folder(bases: Sequence[Path]) -> str | None:
    """Where compiled code is kept, one folder for each state of these sources; None where no base can be written.

    Numba only checks whether the file of a function is older than its compiled form, but a step holds code of several
    files: after an update it could run on with old products in it. Nor is Numba left to choose where no base can be
    written: its fallback is one folder for all states.
    """
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(HERE.glob("*.py"))))
    for base in bases:
        folder = base / f"numba-{state.hexdigest()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()  # permissions alone do not say it: read-only mounts, quotas
        except OSError:
            continue
        return str(folder)
    _warn_of_no_cache("no folder for compiled code can be written")
    return None


def _warn_of_no_cache(why: str) -> None:
    said = f"{why}, so each start compiles anew: set NUMBA_CACHE_DIR to a folder that can be written"
    logging.getLogger(__name__).warning(said)


CACHE = _cache_folder(_bases())
_full = False  # said once


def jit(function: Callable[..., Any]) -> Any:
    """Compiled on first use and kept on disk; holds no lock. Raises `KernelError` where Numba is switched off."""
    if settings.DISABLE_JIT:
        raise KernelError(
            "Numba is switched off (NUMBA_DISABLE_JIT, or disable_jit in .numba_config.yaml), and a step runs as "
            "compiled code alone; switch it on"
        )
    before, settings.CACHE_DIR = settings.CACHE_DIR, CACHE or ""
    try:
        made: Any = numba.njit(cache=CACHE is not None, nogil=True, fastmath=FLAGS, error_model="numpy")(function)
    finally:
        settings.CACHE_DIR = before
    if CACHE is not None:
        _keep_going(made._cache)
    return made


def _keep_going(cache: Any) -> None:
    """A disk that is full when compiled code is to be kept ends nothing."""
    save = cache.save_overload

    def try_to_save(signature: Any, data: Any) -> None:
        global _full
        try:
            save(signature, data)
        except OSError as error:
            if not _full:
                _warn_of_no_cache(f"{CACHE} takes no more compiled code ({error.strerror})")
            _full = True

    cache.save_overload = try_to_save
