"""What only a checkout of the repository has: the studies, which are not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from neds_core.errors import ConfigError


@contextmanager
def from_checkout() -> Iterator[None]:
    """Around the import of a study: says in one sentence where it can be run."""
    try:
        yield
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("benchmarks.studies"):
            raise
        raise ConfigError(
            "this study is not part of an installed neds-rt; run it from a checkout of the repository"
        ) from None
