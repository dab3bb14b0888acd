"""Sessions of Steinmetz et al. 2019 as they are published here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.mice import steinmetz
from neds_core.errors import DataError
from neds_core.io import bundles
from tests.benchmarks.mice import made, of_choice, write


def test_what_is_no_session_is_refused(tmp_path: Path) -> None:
    """An empty folder and a damaged bundle: one sentence."""
    (tmp_path / "none").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.npz").write_bytes(b"PK\3\4")

    with pytest.raises(DataError, match=r"holds no \.npz; run it from a checkout of the repository, or give FOLDER"):
        steinmetz.read_folder(tmp_path / "none")
    with pytest.raises(DataError, match=r"x\.npz is not a session"):
        steinmetz.read_folder(tmp_path / "bad")


def test_the_converter_says_what_the_animal_did(tmp_path: Path) -> None:
    """Direction where it went, side where contrasts differ, and both kinds of counts."""
    bundle = made(0, "a", of_choice)
    write(tmp_path / "sessions", [bundle])

    one = bundles.steinmetz2019(tmp_path / "sessions" / "session0.npz")

    for name in steinmetz.OUTPUTS:
        np.testing.assert_array_equal(one.values[name], bundle.session.values[name])
    np.testing.assert_array_equal(one.counts, bundle.session.counts)
