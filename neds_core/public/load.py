"""`neds_core.load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neds_core import io
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import ConfigError
from neds_core.public.given import refuse_other


def load(path: str | Path, **options: Any) -> Session:
    """A recording as a `Session`: a `Session.npz`, or a file or folder in a lab's own format (docs/import.md).

    options: those of `neds-rt import`, such as bin_ms=20, outputs=["position_x"], trials="epochs", quality="good"
    (`neds_core.io.importing.options.Options`); none with a `Session.npz`, which has been imported. Libraries that
    read a format are imported here and not before; where one is missing, the error has the command that installs it.
    Raises `DataError` or `ConfigError`: one sentence with the remedy.
    """
    refuse_other("load", path, Path, "the path of a recording")
    if Path(path).suffix.lower() != ".npz":
        return io.load(path, **options)
    if options:
        raise ConfigError(
            f"load: {', '.join(options)} is for formats that are imported, and {path} is a Session.npz; leave it out, "
            "or load what it was imported from"
        )
    return session_file.load(Path(path))
