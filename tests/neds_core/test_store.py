"""The store of memory-mapped sessions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neds_core import session as sessions, store
from neds_core.errors import DataError
from neds_core.session import Session

SESSIONS = 3


def test_a_stored_session_is_the_recording_mapped(session: Session, tmp_path: Path) -> None:
    """Same values, read from disk; written once, and again when the recording changes."""
    sessions.save(session, tmp_path / "a.npz")
    folder = store.prepare(tmp_path / "a.npz", tmp_path / "store")
    found = store.load(folder)

    assert isinstance(found.counts, np.memmap)
    assert all(isinstance(v, np.memmap) for v in found.values.values())
    assert not found.counts.flags.writeable
    for name in ("counts", "valid", "segments", "segment_ids"):
        np.testing.assert_array_equal(getattr(found, name), getattr(session, name))
    for name, values in session.values.items():
        np.testing.assert_array_equal(found.values[name], values)
    assert found.units.sha256 == session.units.sha256
    assert (found.name, found.specs, found.licence) == (session.name, session.specs, session.licence)
    assert store.prepare(tmp_path / "a.npz", tmp_path / "store") == folder
    sessions.save(replace(session, name="another name"), tmp_path / "a.npz")
    assert store.load(store.prepare(tmp_path / "a.npz", tmp_path / "store")).name == "another name"
    (folder / "counts.npy").write_bytes(b"")
    with pytest.raises(DataError, match="delete that folder"):
        store.load(folder)
    with pytest.raises(DataError, match="does not exist"):
        store.prepare(tmp_path / "b.npz", tmp_path / "store")
