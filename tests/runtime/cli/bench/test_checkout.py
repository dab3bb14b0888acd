"""What `neds-rt bench` says of a study where studies are not installed."""

from __future__ import annotations

import sys

import pytest

from neds_core.errors import ConfigError
from runtime.cli import commands as cli
from runtime.cli.bench.checkout import from_checkout


@pytest.mark.parametrize(
    "words",
    ["ablation", "degraded x y", "regions x", "target x y", "transfer --made-up", "choice"],
    ids=lambda words: words.split()[0],
)
def test_a_study_that_is_not_installed_says_where_it_runs(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the remedy."""
    monkeypatch.setitem(sys.modules, "benchmarks.studies", None)

    with pytest.raises(ConfigError, match="run it from a checkout of the repository"):
        cli.app(["bench", *words.split()], standalone_mode=False)


def test_another_missing_module_is_not_taken_for_a_study() -> None:
    """It is a bug, or a package that an extra installs."""
    with pytest.raises(ModuleNotFoundError, match="absent_package"), from_checkout():
        import absent_package  # noqa: F401  # pyright: ignore[reportMissingImports]
