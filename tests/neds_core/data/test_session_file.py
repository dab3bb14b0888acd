"""A recording survives its file, and a file that is wrong is refused in one sentence."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import DataError
from neds_core.files import sha256


def sentence(error: pytest.ExceptionInfo[Exception]) -> str:
    """The message, which is one line."""
    text = str(error.value)
    assert "\n" not in text
    assert len(text) > 20
    return text


def assert_same(a: Session, b: Session) -> None:
    """Every field, dtypes included."""
    for name in ("name", "bin_ns", "specs", "licence", "citation"):
        assert getattr(a, name) == getattr(b, name)
    arrays = [
        (a.counts, b.counts), (a.valid, b.valid), (a.segments, b.segments), (a.segment_ids, b.segment_ids),
        (a.units.ids, b.units.ids), (a.units.region, b.units.region), (a.units.depth_um, b.units.depth_um),
        *[(a.values[s.name], b.values[s.name]) for s in a.specs], *zip(a.events or (), b.events or (), strict=True),
        *[(ms, b.moments[name]) for name, ms in a.moments.items()],
        *[(values, b.starts[name]) for name, values in a.starts.items()],
    ]  # fmt: skip
    assert a.moments.keys() == b.moments.keys()
    assert a.starts.keys() == b.starts.keys()
    for x, y in arrays:
        np.testing.assert_array_equal(x, y, strict=True)


def test_a_recording_survives_its_file(session: Session, unbroken: Session, tmp_path: Path) -> None:
    """Of counts, and of spike times, whose counts are made again on reading; nothing else is written."""
    moved = replace(
        session, name="moved", moments={"first_movement": np.r_[np.nan, np.linspace(0.0, 700.0, 59)]},
        starts={"wheel_speed": np.r_[np.nan, np.linspace(-1.0, 1.0, 59)]},
    )  # fmt: skip
    for one in (session, unbroken, moved):
        session_file.save(one, tmp_path / f"{one.name}.npz")

        read = session_file.load(tmp_path / f"{one.name}.npz")

        assert_same(one, read)
        assert read.units.sha256 == one.units.sha256
    assert sorted(p.name for p in tmp_path.iterdir()) == ["moved.npz", "planted.npz", "unbroken.npz"]


def test_a_hash_without_a_file_is_that_of_the_file(
    session: Session, unbroken: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of counts and of spike times. Nothing is written on the way, and what cannot be saved has none."""
    for one in (session, unbroken, replace(session, name="another")):
        session_file.save(one, tmp_path / "saved.npz")
        with monkeypatch.context() as closed:
            closed.setattr("pathlib.Path.open", lambda *_, **__: pytest.fail("a file"))
            found = session_file.sha256(one)

        assert found == sha256(tmp_path / "saved.npz")
        assert found == session_file.load(tmp_path / "saved.npz").file_sha

    with pytest.raises(DataError, match="recording 'planted'"):
        session_file.sha256(replace(session, valid=session.valid[:-1]))


@pytest.mark.parametrize("key", ["valid", "unit_region", "value/wheel_speed"])
def test_what_a_disk_changes_is_refused_and_the_old_file_stays(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    path, write = tmp_path / "session.npz", np.savez_compressed
    session_file.save(session, path)
    old = path.read_bytes()

    def lose(file: io.BufferedWriter, **arrays: np.ndarray) -> None:
        write(file, **arrays | {key: np.r_[arrays[key][1:], arrays[key][:1]]})  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(np, "savez_compressed", lose)
    changed = replace(session, valid=np.arange(len(session.valid)) > 0)
    with pytest.raises(DataError, match="does not hold what was written to it"):
        session_file.save(changed, path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["session.npz"]


def test_segments_out_of_order_are_refused(session: Session, tmp_path: Path) -> None:
    """In memory too: a bin is looked up among the starts."""
    path = tmp_path / "wrong.npz"
    session_file.save(session, path)
    with np.load(path) as bundle:
        arrays = dict(bundle) | {"segments": session.segments[::-1]}
    np.savez(path, **arrays)

    for name, make in (("wrong.npz", lambda: session_file.load(path)), ("planted", lambda: backwards(session))):
        with pytest.raises(DataError, match="overlap or decrease in time; sort them") as error:
            make()
        assert name in sentence(error)


def backwards(one: Session) -> Session:
    """The session with its last trial first."""
    return replace(one, segments=one.segments[::-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has format 99, not 1"),
        ({"bin_ns": 0}, "bin_ns is 0, not a width between"),
        ({"mood": 1}, "header is damaged"),
    ],
)
def test_a_foreign_header_is_refused(session: Session, tmp_path: Path, change: dict[str, int], message: str) -> None:
    """A later format, a grid without width, an unknown key."""
    path = tmp_path / "session.npz"
    session_file.save(session, path)
    with np.load(path) as bundle:
        arrays = dict(bundle)
    header = json.loads(arrays["header"].tobytes()) | change
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)

    with pytest.raises(DataError) as error:
        session_file.load(path)
    assert message in sentence(error)


def npy_bytes() -> bytes:
    """A single array, as numpy saves it."""
    file = io.BytesIO()
    np.save(file, np.zeros(4))
    return file.getvalue()


def foreign_npz() -> bytes:
    """Somebody else's bundle."""
    file = io.BytesIO()
    np.savez(file, counts=np.zeros((3, 2)))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable Session.npz"),
        (b"time,unit\n0.1,3\n", "not a readable Session.npz"),
        (npy_bytes(), "not a readable Session.npz"),
        (foreign_npz(), "lacks 'header', so it is not a Session.npz"),
    ],
    ids=["empty", "text", "npy", "foreign npz"],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Nothing, a table, a bare array, somebody else's bundle."""
    path = tmp_path / "other.npz"
    path.write_bytes(content)

    with pytest.raises(DataError) as error:
        session_file.load(path)
    assert message in sentence(error)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """So is a folder."""
    with pytest.raises(DataError, match="does not exist; check the path"):
        session_file.load(tmp_path / "none.npz")
    with pytest.raises(DataError, match="not a readable"):
        session_file.load(tmp_path)


@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(
    session: Session, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut short anywhere it is refused; with bytes flipped, it is refused or read, and no other error gets out."""
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    session_file.save(session, path)
    raw = bytearray(path.read_bytes())
    cut = data.draw(st.integers(0, len(raw) - 1))
    path.write_bytes(raw[:cut])
    with pytest.raises(DataError) as error:
        session_file.load(path)
    assert "not a readable" in sentence(error)

    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    with contextlib.suppress(DataError):
        session_file.load(path)
