"""What tests of several studies need."""

from __future__ import annotations

import pytest

from benchmarks.accuracy.mice.steinmetz import Bundle
from tests.benchmarks.studies.tiny import three_mice


@pytest.fixture(scope="session")
def mice() -> list[Bundle]:
    """Three mice with a session each."""
    return three_mice()
