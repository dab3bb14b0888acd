"""The model and its science: sessions, masks, transformer, the linear decoder, training, checkpoints.

The calls of a notebook (docs/python.md): `load`, `fit`, `decode`, `score`, and `Session`. Each is imported when it is
first used, so that `import neds_core` loads nothing else.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as a type checker reads it, without an import: a user's typing.py may lie before Python's own
if TYPE_CHECKING:
    from typing import Any

    from neds_core.data.session import Session
    from neds_core.public.decode import decode
    from neds_core.public.fit import fit
    from neds_core.public.load import load
    from neds_core.public.score import score

NEDS_RT = True
__all__ = ["Session", "decode", "fit", "load", "score"]
_HOMES = {
    "Session": "neds_core.data.session",
    "decode": "neds_core.public.decode",
    "fit": "neds_core.public.fit",
    "load": "neds_core.public.load",
    "score": "neds_core.public.score",
}

if not TYPE_CHECKING:  # a type checker takes the imports above, and knows no other names

    def __getattr__(name: str) -> Any:
        """One of `__all__`. Raises `AttributeError` for another name."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """What completion offers."""
    return sorted({*globals(), *__all__})
