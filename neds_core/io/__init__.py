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


def to_pynapple(session: Session | str | Path) -> dict[str, Any]:
    """A session, or that of a file (.npz, .nwb of neds-rt), as pynapple's objects: units, behaviours, valid, trials.

    What each holds: `neds_core.io.pynapple_objects.of`. The decoded values of a run are exported from its log
    (`neds-rt export RUN.npz --to pynapple`). Raises `DataError`, and `ConfigError` where pynapple is not installed.
    """
    from neds_core.io import pynapple_objects, recording

    return pynapple_objects.of(recording.load(Path(session)) if isinstance(session, str | Path) else session)
