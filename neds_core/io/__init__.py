"""From published and labs' own file layouts to the native `Session` and checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neds_core.data.session import Session


def load(path: str | Path, **options: Any) -> Session:
    """A recording in a lab's own format as a `Session`, as `neds-rt import` makes it (docs/import.md).

    options: bin_ms, outputs, trials, quality, behaviour, ... (`neds_core.io.importing.options.Options`).
    Raises `DataError` or `ConfigError`: one sentence with the remedy.
    """
    from neds_core.io.importing import load as importing  # the readers and their libraries only where they are used

    return importing.load(path, **options)
