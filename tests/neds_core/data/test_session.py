"""A recording survives its file, is cut in time order, and is refused in one sentence when it is wrong."""

from __future__ import annotations

import contextlib
import io
import json
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, strategies as st

from neds_core.data import session as sessions, session_file
from neds_core.data.session import Session, bin_events
from neds_core.errors import DataError


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
    ]  # fmt: skip
    assert a.moments.keys() == b.moments.keys()
    for x, y in arrays:
        np.testing.assert_array_equal(x, y, strict=True)


def test_a_recording_survives_its_file(session: Session, unbroken: Session, tmp_path: Path) -> None:
    """Of counts, and of spike times, whose counts are made again on reading; nothing else is written."""
    moved = replace(session, name="moved", moments={"first_movement": np.r_[np.nan, np.linspace(0.0, 700.0, 59)]})
    for one in (session, unbroken, moved):
        session_file.save(one, tmp_path / f"{one.name}.npz")

        read = session_file.load(tmp_path / f"{one.name}.npz")

        assert_same(one, read)
        assert read.units.sha256 == one.units.sha256
    assert sorted(p.name for p in tmp_path.iterdir()) == ["moved.npz", "planted.npz", "unbroken.npz"]


def test_a_full_disk_leaves_the_old_file(session: Session, tmp_path: Path) -> None:
    """A write that fails half-way keeps the old recording and leaves nothing beside it."""
    path = tmp_path / "session.npz"
    session_file.save(session, path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            session_file.save(replace(session, name="newer"), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unit_table_identity(session: Session) -> None:
    """Order, id, region and depth all belong to the table; a depth may be unknown."""
    units = session.units
    swapped = np.array([1, 0, *range(2, len(units))])
    others = [
        replace(units, ids=units.ids[swapped]),
        replace(units, region=units.region[swapped]),
        replace(units, depth_um=units.depth_um + 1),
        replace(units, ids=units.ids[1:], region=units.region[1:], depth_um=units.depth_um[1:]),
    ]

    assert len({units.sha256, *(other.sha256 for other in others)}) == 5
    assert replace(units, ids=units.ids.copy()).sha256 == units.sha256


@given(
    events=st.lists(st.tuples(st.integers(-30, 130), st.integers(-1, 3)), max_size=40),
    bin_ns=st.integers(1, 25),
    n_bins=st.integers(1, 6),
)
def test_a_spike_belongs_to_one_half_open_bin(events: list[tuple[int, int]], bin_ns: int, n_bins: int) -> None:
    """Bin b holds [b, b + 1) * bin_ns; what lies outside the grid or the table is left out."""
    events.sort()
    t_ns, unit = np.array([t for t, _ in events], np.int64), np.array([u for _, u in events], np.int32)

    counts = bin_events(t_ns, unit, bin_ns, n_bins, 3)

    expected = [
        [sum(b * bin_ns <= t < (b + 1) * bin_ns and u == unit_ for t, u in events) for unit_ in range(3)]
        for b in range(n_bins)
    ]
    assert counts.dtype == np.uint8
    assert counts.tolist() == expected


def test_counts_stop_at_255() -> None:
    """A burst does not wrap to a small count."""
    t_ns = np.zeros(300, np.int64)

    assert bin_events(t_ns, np.zeros(300, np.int32), 10, 1, 1).tolist() == [[255]]


@pytest.mark.parametrize("t_ns", [[0.0, np.nan, 2.0], [0.0, 1.0, np.inf], [5, 4], [0, 7, 6]])
def test_bad_spike_times_are_refused(t_ns: list[float]) -> None:
    """NaN, infinite or decreasing times are a fault of the source, not something to sort away."""
    with pytest.raises(DataError) as error:
        bin_events(np.array(t_ns), np.zeros(len(t_ns), np.int32), 10, 3, 1)
    assert "sort and clean" in sentence(error)


def test_the_clock_counts_from_each_segment(session: Session) -> None:
    """-1 outside of segments."""
    some = replace(session, segments=np.array([[3, 6], [6, 8]]), segment_ids=np.arange(2))

    assert some.clock()[:10].tolist() == [-1, -1, -1, 0, 1, 2, 0, 1, -1, -1]


def test_trials_are_split_in_time_order(session: Session) -> None:
    """70/10/20 of the trials; every trial in one part, and each part keeps the bins of the whole."""
    parts = sessions.split(session)

    assert [len(p.segments) for p in (parts.train, parts.validation, parts.test)] == [42, 6, 12]
    for name in ("segments", "segment_ids"):
        joined = np.concatenate([getattr(p, name) for p in (parts.train, parts.validation, parts.test)])
        np.testing.assert_array_equal(joined, getattr(session, name))
        np.testing.assert_array_equal(getattr(parts.development, name), getattr(session, name)[:48])
    assert parts.test.counts is session.counts


def test_interleaved_parts_join_in_time_order(session: Session) -> None:
    """Every segment with its own id and moments."""
    session = replace(session, moments={"first_movement": np.arange(60.0)})
    odd, even = sessions.select(session, slice(1, None, 2)), sessions.select(session, np.arange(0, 60, 2))

    joined = sessions.join(odd, even)

    np.testing.assert_array_equal(joined.moments["first_movement"], np.arange(60.0))
    np.testing.assert_array_equal(sessions.split(session).test.moments["first_movement"], np.arange(48.0, 60.0))

    np.testing.assert_array_equal(joined.segments, session.segments)
    np.testing.assert_array_equal(joined.segment_ids, session.segment_ids)


def test_a_continuous_recording_is_cut_inside(unbroken: Session) -> None:
    """At the same shares; training and validation join to one segment again."""
    parts = sessions.split(unbroken)

    cut = [p.segments.tolist() for p in (parts.train, parts.validation, parts.test)]
    assert cut == [[[0, 280]], [[280, 320]], [[320, 400]]]
    assert parts.development.segments.tolist() == [[0, 320]]
    assert parts.development.continuous


@given(n=st.integers(1, 200), trials=st.booleans())
def test_parts_are_disjoint_and_complete_or_refused(unbroken: Session, n: int, trials: bool) -> None:
    """Whatever the number of trials or bins: no part is ever empty in silence."""
    edges = np.arange(n + 1) * 2 if trials else np.array([0, n])
    segments = np.stack([edges[:-1], edges[1:]], 1)
    one = replace(unbroken, segments=segments, segment_ids=np.arange(len(segments)))
    try:
        parts = sessions.split(one)
    except DataError:
        assert n < 10
        return

    bins = [[b for a, z in p.segments for b in range(a, z)] for p in (parts.train, parts.validation, parts.test)]
    assert all(bins)
    assert [b for each in bins for b in each] == list(range(edges[-1]))
    assert [b for a, z in parts.development.segments for b in range(a, z)] == bins[0] + bins[1]


def test_an_unknown_behaviour_names_the_known(session: Session) -> None:
    """And a word that names no quantity says which ones there are."""
    with pytest.raises(DataError) as error:
        session.spec("lick_rate")
    assert "it has wheel_speed, choice" in sentence(error)
    with pytest.raises(DataError) as error:
        session.spec("wheel")
    assert "wheel_speed (unsigned) or wheel_velocity (signed)" in sentence(error)


def renamed(one: Session, old: str, new: str) -> Session:
    """The session with a behaviour of another name."""
    specs = tuple(s if s.name != old else type(s)(new, s.kind, classes=s.classes) for s in one.specs)
    return replace(one, specs=specs, values={new if k == old else k: v for k, v in one.values.items()})


def with_segments(*segments: tuple[int, int]) -> Callable[[Session], Session]:
    """An edit of a session's segments."""
    return lambda s: replace(s, segments=np.array(segments, np.int64), segment_ids=np.arange(len(segments)))


def with_wheel(values: Any) -> Callable[[Session], Session]:
    """An edit of a session's first trace."""
    return lambda s: replace(s, values=s.values | {"wheel_speed": values})


def with_choice(edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[Session], Session]:
    """An edit of a session's labels."""
    return lambda s: replace(s, values=s.values | {"choice": edit(s.values["choice"])})


FAULTS: dict[str, tuple[Callable[[Session], Session], str]] = {
    "no spikes": (lambda s: replace(s, counts=np.zeros_like(s.counts)), "is empty"),
    "no segments": (lambda s: replace(s, segments=np.zeros((0, 2), np.int64), segment_ids=np.arange(0)), "is empty"),
    "overlapping segments": (with_segments((0, 30), (29, 50)), "segments overlap"),
    "empty segment": (with_segments((0, 30), (30, 30)), "segments overlap or decrease"),
    "segment beyond the end": (with_segments((0, 1501)), "segments overlap or decrease"),
    "flat segments": (lambda s: replace(s, segments=s.segments[:, 0]), "segments is"),
    "too few units": (lambda s: replace(s, counts=s.counts[:, 1:]), "counts is"),
    "too few depths": (lambda s: replace(s, units=replace(s.units, depth_um=s.units.depth_um[1:])), "unit_depth_um is"),
    "validity of other bins": (lambda s: replace(s, valid=s.valid[1:]), "valid is"),
    "validity as numbers": (lambda s: replace(s, valid=s.valid.astype(np.int64)), "valid is"),
    "too short a trace": (with_wheel(np.zeros(3, np.float32)), "wheel_speed is"),
    "NaN everywhere": (with_wheel(np.full(1500, np.nan, np.float32)), "NaN everywhere"),
    "unknown label": (with_choice(lambda label: label + 1), "outside its 2 classes"),
    "labels as floats": (with_choice(lambda label: label * 1.0), "choice is"),
    "a contrast of no class": (
        lambda s: replace(s, specs=(msgspec.structs.replace(s.specs[1], contrasts={"x": (("left",), ("rigth",))}),)),
        "asks for 'rigth', none of its classes; convert again",
    ),
    "moments of other segments": (lambda s: replace(s, moments={"lick": np.zeros(3)}), "moment lick is"),
    "ambiguous name": (lambda s: renamed(s, "wheel_speed", "wheel"), "does not name a quantity; say wheel_speed"),
    "decreasing times": (
        lambda s: replace(s, events=(np.array([9, 4]), np.zeros(2, np.int32))), "spike times are NaN or decrease"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_recording_is_refused(session: Session, tmp_path: Path, fault: str) -> None:
    """In one sentence that names the file."""
    edit, message = FAULTS[fault]
    session_file.save(edit(session), tmp_path / "wrong.npz")

    with pytest.raises(DataError) as error:
        session_file.load(tmp_path / "wrong.npz")
    assert message in sentence(error)
    assert "wrong.npz" in sentence(error)


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
        ({"bin_ns": 0}, "header is damaged"),
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
