"""Options that a source has no use for are refused, not passed over."""

from __future__ import annotations

from pathlib import Path

from neds_core.errors import ConfigError
from neds_core.io.importing.options import NONE, Options


def refuse_useless(path: Path, options: Options, times: str = "") -> None:
    """Raise `ConfigError` for a rate where the source knows its own, which `times` says, and for a table of trials."""
    if times and options.rate_hz is not None:
        raise ConfigError(f"--rate-hz {options.rate_hz:g}: {times}; leave the option out")
    if options.trials not in ("", NONE):
        raise ConfigError(
            f"--trials {options.trials}: {path.name} has no table of that name, and there is no such CSV or Parquet "
            "file; leave the option out, or correct the name"
        )
