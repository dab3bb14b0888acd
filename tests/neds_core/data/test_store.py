"""The store of memory-mapped sessions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neds_core.data import session_file, store
from neds_core.data.session import Session
from neds_core.errors import ConfigError, DataError

SESSIONS = 3


def test_a_stored_session_is_the_recording_mapped(session: Session, tmp_path: Path) -> None:
    """Same values, read from disk; written once, and again when the recording changes."""
    session = replace(session, moments={"first_movement": np.linspace(0.0, 90.0, len(session.segments))})
    session_file.save(session, tmp_path / "a.npz")
    folder = store.prepare(tmp_path / "a.npz", tmp_path / "store")
    found = store.load(folder)

    np.testing.assert_array_equal(found.moments["first_movement"], session.moments["first_movement"])
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
    session_file.save(replace(session, name="another name"), tmp_path / "a.npz")
    assert store.load(store.prepare(tmp_path / "a.npz", tmp_path / "store")).name == "another name"
    (folder / "counts.npy").write_bytes(b"")
    with pytest.raises(DataError, match="delete that folder"):
        store.load(folder)
    with pytest.raises(DataError, match="does not exist"):
        store.prepare(tmp_path / "b.npz", tmp_path / "store")


def test_two_trainings_store_a_recording_at_once(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines may have the same process id; the second finds the folder of the first in place, and uses it."""
    folder, into = tmp_path / "store" / "a", np.save
    begun: list[Path] = []

    def meanwhile(file: Path, array: np.ndarray, **more: bool) -> None:
        begun.append(file.parent)
        if len(begun) == 1:
            store.write(session, folder)
        into(file, array, **more)

    monkeypatch.setattr("os.getpid", lambda: 7)
    monkeypatch.setattr(np, "save", meanwhile)
    store.write(replace(session, name="late"), folder)

    assert len(set(begun)) == 2
    assert store.load(folder).name == session.name
    assert [p.name for p in folder.parent.iterdir()] == ["a"]


def test_two_trainings_end_at_once(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder appears in the moment before it is renamed to; any other failure is told."""
    folder, rename = tmp_path / "store" / "a", Path.rename

    def late(partial: Path, to: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        store.write(session, folder)
        return partial.rename(to)

    monkeypatch.setattr(Path, "rename", late)
    store.write(session, folder)
    assert store.load(folder).name == session.name

    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="file cannot be written"):
        store.write(session, tmp_path / "file")
    assert [p.name for p in folder.parent.iterdir()] == ["a"]
