"""The report of `neds-rt train` and `evaluate`: where its page goes, and how it is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def page_for(report: Path | None, no_report: bool, checkpoint: Path) -> Path | None:
    """The page to write, by default CHECKPOINT.report.html; None = none.

    Raises `ConfigError` for a `report` that may not be; of the default page a note says so, and there is none.
    """
    from benchmarks import report as pages
    from neds_core.errors import ConfigError
    from neds_core.files import beside
    from runtime.cli.output import note

    if report is not None and no_report:
        raise ConfigError("--report and --no-report exclude each other; give one of them")
    if no_report:
        return None
    path = report or beside(checkpoint, ".report.html")
    try:
        pages.refuse_page(path)
    except ConfigError as error:
        if report is not None:
            raise
        note(f"no report is written: {error}")
        return None
    return path


def write(draw: Callable[[], str], page: Path, *, asked: bool) -> str | None:
    """Write the page that `draw` makes; returns its path.

    Where it cannot be written: `ConfigError` with the remedy if it was asked for, else a note, and None.
    """
    from neds_core.errors import ConfigError
    from neds_core.files import whole
    from runtime.cli.output import note

    try:
        with whole(page) as partial:
            partial.write_text("")  # nothing is drawn for a folder that takes nothing
            partial.write_text(draw(), encoding="utf-8")
    except ConfigError as error:
        told = f"{error} with --report, or give --no-report"
        if asked:
            raise ConfigError(told) from None
        note(f"no report is written: {told}")
        return None
    return str(page)
