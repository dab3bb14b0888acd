"""The report of `neds-rt train` and `evaluate`: where its page goes, and how it is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def page_for(report: Path | None, no_report: bool, checkpoint: Path) -> Path | None:
    """The page to write, by default CHECKPOINT.report.html; None = none. Raises `ConfigError` for one that may not."""
    from benchmarks import report as pages
    from neds_core.errors import ConfigError
    from neds_core.files import beside

    if report is not None and no_report:
        raise ConfigError("--report and --no-report exclude each other; give one of them")
    if no_report:
        return None
    path = report or beside(checkpoint, ".report.html")
    pages.refuse_page(path)
    return path


def write(draw: Callable[[], str], page: Path) -> str:
    """Write the page that `draw` makes; returns its path. Raises `ConfigError` with the remedy where it cannot be."""
    from neds_core.errors import ConfigError
    from neds_core.files import whole

    try:
        with whole(page) as partial:
            partial.write_text("")  # nothing is drawn for a folder that takes nothing
            partial.write_text(draw(), encoding="utf-8")
    except ConfigError as error:
        raise ConfigError(f"{error} with --report, or give --no-report") from None
    return str(page)
