"""The example recordings, which a checkout of the repository has and an installed neds-rt has not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from neds_core.errors import DataError

EXAMPLES = Path(__file__).parents[1] / "examples"


def refuse_missing(paths: Iterable[Path]) -> None:
    """Raise `DataError` for the first that is no file, with the remedy."""
    for path in paths:
        if not path.is_file():
            raise DataError(f"the example recording {path} is missing; run it from a checkout of the repository")
