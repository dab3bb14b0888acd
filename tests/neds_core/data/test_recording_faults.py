"""A recording that is wrong is refused where it is written and where it is read; one of other types is read in ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest

from neds_core.data import session_file
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import DataError


def sentence(error: pytest.ExceptionInfo[Exception]) -> str:
    """The message, which is one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


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


def with_units(**change: Any) -> Callable[[Session], Session]:
    """An edit of a session's unit table."""
    return lambda s: replace(s, units=replace(s.units, **change))


def with_events(t_ns: Any, unit: Any = None) -> Callable[[Session], Session]:
    """An edit of a session's spikes: times, of unit 0 where nothing else is said."""
    unit = np.zeros(len(t_ns), np.int32) if unit is None else unit
    return lambda s: replace(s, events=(t_ns, unit))


def with_spec(**change: Any) -> Callable[[Session], Session]:
    """An edit of what the session says of its first trace."""
    return lambda s: replace(s, specs=(msgspec.structs.replace(s.specs[0], **change), *s.specs[1:]))


def with_classes(*classes: str) -> Callable[[Session], Session]:
    """An edit of the session's classes."""
    return lambda s: replace(s, specs=(s.specs[0], msgspec.structs.replace(s.specs[1], classes=classes)))


def all_but_still(s: Session) -> np.ndarray:
    """A trace that differs by rounding alone."""
    return np.nextafter(np.full(s.n_bins, 0.087, np.float32), np.arange(s.n_bins, dtype=np.float32) % 2)


SCATTER = np.random.default_rng(0).uniform(0.0, 400.0, 60)  # ms of a moment in its trial


def spread_ns(n: int = 3000) -> np.ndarray:
    """Times all over the planted session's 30 s."""
    return np.sort(np.random.default_rng(0).integers(0, 1500 * 20_000_000, n))


def with_angle(*specs: tuple[str, str, Literal["", "cos", "sin"]], cos: float = 0.6) -> Callable[[Session], Session]:
    """An edit that adds an angle: name, group and `angle` of each side; cosine and sine 0.6 and 0.8, in turn."""
    turn = np.arange(1500) % 2 == 0
    values = {"cos": np.where(turn, cos, 0.8).astype(np.float32), "sin": np.where(turn, 0.8, 0.6).astype(np.float32)}
    made = tuple(BehaviourSpec(name, "continuous", group=group, angle=side) for name, group, side in specs)
    return lambda s: replace(
        s, specs=s.specs + made, values=s.values | {spec.name: values[spec.angle or "cos"] for spec in made}
    )


def test_an_angle_is_written_and_read(session: Session, tmp_path: Path) -> None:
    """Also where one side is not known."""
    one = with_angle(("hd_cos", "hd", "cos"), ("hd_sin", "hd", "sin"))(session)
    one.values["hd_cos"][3] = np.nan
    session_file.save(one, tmp_path / "one.npz")
    assert session_file.load(tmp_path / "one.npz").specs[-2:] == one.specs[-2:]


FAULTS: dict[str, tuple[Callable[[Session], Session], str]] = {
    "half an angle": (with_angle(("hd_cos", "hd", "cos")), "group 'hd' has 1 outputs with the angles ['cos']; give an"),
    "an angle with a coordinate": (
        with_angle(("hd_cos", "hd", "cos"), ("hd_sin", "hd", "sin"), ("hd_z", "hd", "")), "give an angle two continuous"
    ),
    "an angle without a group": (with_angle(("hd_cos", "", "cos"), ("hd_sin", "", "sin")), "group '' has"),
    "a cosine twice": (with_angle(("hd_cos", "hd", "cos"), ("hd_sin", "hd", "cos")), "['cos', 'cos']; give an angle"),
    "radians for a cosine": (
        with_angle(("hd_cos", "hd", "cos"), ("hd_sin", "hd", "sin"), cos=1.7),
        "hd_cos and hd_sin are 1.7 and 0.8 at bin 0, which no angle has; give np.cos and np.sin of the angle",
    ),
    "no spikes": (lambda s: replace(s, counts=np.zeros_like(s.counts)), "is empty"),
    "no segments": (lambda s: replace(s, segments=np.zeros((0, 2), np.int64), segment_ids=np.arange(0)), "is empty"),
    "no valid bin": (lambda s: replace(s, valid=np.zeros_like(s.valid)), "is empty"),
    "overlapping segments": (with_segments((0, 30), (29, 50)), "segments overlap"),
    "empty segment": (with_segments((0, 30), (30, 30)), "segment 1 is empty (bins 30 to 30); drop it"),
    "segment beyond the end": (
        with_segments((0, 1501)), "the last segment ends at bin 1501, beyond the 1500 of the recording; cut or drop it"
    ),
    "segment before the start": (with_segments((-3, 9)), "starts at bin -3, before the recording; cut or drop it"),
    "trials that start again": (
        lambda s: replace(s, segment_ids=np.r_[0:30, 0:30]), "segment_ids repeat; number the trials through"
    ),
    "flat segments": (lambda s: replace(s, segments=s.segments[:, 0]), "segments is"),
    "too few units": (lambda s: replace(s, counts=s.counts[:, 1:]), "counts is"),
    "too few depths": (lambda s: replace(s, units=replace(s.units, depth_um=s.units.depth_um[1:])), "unit_depth_um is"),
    "units twice": (with_units(ids=np.r_[np.arange(11), 4]), "unit_ids repeat (4 first); number the units of all"),
    "region of two lines": (with_units(region=np.full(12, "ca1\nca3")), "unit_region is 'ca1\\nca3', with a line end"),
    "infinite depth": (with_units(depth_um=np.full(12, np.inf)), "unit_depth_um is infinite"),
    "too large a depth": (with_units(depth_um=np.full(12, 1e300)), "unit_depth_um is infinite"),
    "validity of other bins": (lambda s: replace(s, valid=s.valid[1:]), "valid is"),
    "validity as numbers": (lambda s: replace(s, valid=s.valid.astype(np.int64)), "valid is"),
    "too short a trace": (with_wheel(np.zeros(3, np.float32)), "wheel_speed is"),
    "NaN everywhere": (with_wheel(np.full(1500, np.nan, np.float32)), "NaN everywhere"),
    "a constant": (with_wheel(np.full(1500, 0.087, np.float32)), "wheel_speed does not vary (0.087 throughout)"),
    "all but a constant": (lambda s: with_wheel(all_but_still(s))(s), "wheel_speed does not vary"),
    "an infinity": (lambda s: with_wheel(np.r_[np.inf, s.values["wheel_speed"][1:]])(s), "infinite at bin 0"),
    "too large a trace": (lambda s: with_wheel(s.values["wheel_speed"] * 1e13)(s), "give it in a larger unit"),
    "unknown label": (with_choice(lambda label: label + 1), "outside its 2 classes"),
    "labels as floats": (with_choice(lambda label: label * 1.0), "choice is"),
    "one class": (with_classes("left"), "give at least two, each another name"),
    "a class twice": (with_classes("left", "left"), "give at least two, each another name"),
    "a class of two lines": (with_classes("left", "ri\nght"), "'ri\\nght', with a line end"),
    "a contrast of no class": (
        lambda s: replace(s, specs=(s.specs[0], msgspec.structs.replace(
            s.specs[1], contrasts={"x": (("left",), ("rigth",))}))),
        "asks for 'rigth', none of its classes; convert again",
    ),
    "a contrast of nothing": (
        lambda s: replace(s, specs=(s.specs[0], msgspec.structs.replace(s.specs[1], contrasts={"x": (("left",), ())}))),
        "needs two sides that share no class",
    ),
    "starts of other segments": (lambda s: replace(s, starts={"wheel_speed": np.zeros(3)}), "start of wheel_speed is"),
    "starts of no trace": (lambda s: replace(s, starts={"choice": np.zeros(60)}), "start of 'choice': the recor"),
    "starts at infinity": (
        lambda s: replace(s, starts={"wheel_speed": np.r_[np.zeros(59), np.inf]}), "start of wheel_speed is beyond",
    ),
    "moments of other segments": (lambda s: replace(s, moments={"lick": np.zeros(3)}), "moment lick is"),
    "moments at infinity": (lambda s: replace(s, moments={"lick": np.full(60, np.inf)}), "moment lick is infinite"),
    "moments of the recording's clock": (
        lambda s: replace(s, moments={"lick": s.segments[:, 0] * 20.0 + 100.0}),
        "moment lick grows with the time of the recording (100 ms in segment 0, 29600 ms in segment 59); give ms from "
        "each segment's own start",
    ),
    **{
        f"moments of a clock in {unit}": (
            lambda s, scale=scale: replace(s, moments={"lick": (s.segments[:, 0] * 20.0 + SCATTER + 1.8e6) * scale}),
            "moment lick grows with the time of the recording",
        )
        for unit, scale in (("ms", 1.0), ("s", 1e-3), ("us", 1e3), ("samples", 30.0), ("bins", 0.05))
    },
    "a moment of another time": (
        lambda s: replace(s, moments={"lick": np.r_[np.full(59, 100.0), 1e300]}),
        "moment lick is 1e+300 ms in segment 59, longer than the recording; give ms from each segment's own start",
    ),
    "a moment in a folder": (lambda s: replace(s, moments={"../lick": np.zeros(60)}), "moment name '../lick'"),
    "ambiguous name": (lambda s: renamed(s, "wheel_speed", "wheel"), "does not name a quantity; say wheel_speed"),
    **{
        f"name {name!r}": (partial(renamed, old="wheel_speed", new=name), "behaviour name")
        for name in ("cursor.vel_x", "", "a/b", "a\\b", "x\ny", "x\0", " x", "spikes", "n" * 101, "choice", "\ud800")
    },
    "unit of two lines": (with_spec(unit="rad\n/s"), "unit of wheel_speed is 'rad\\n/s', with a line end"),
    "delay of nothing": (with_spec(filter_delay_ms=float("inf")), "filter_delay_ms of wheel_speed is inf"),
    "licence of two lines": (lambda s: replace(s, licence="CC\r\nBY"), "licence is 'CC\\r\\nBY', with a line end"),
    "name with a NUL": (lambda s: replace(s, name="mouse\0007"), "with a line end or control character; take it out"),
    "no name": (lambda s: replace(s, name=" "), "name is empty"),
    "bins of 20 ns": (lambda s: replace(s, bin_ns=20), "bin_ns is 20, not a width between"),
    "decreasing times": (with_events(np.array([9, 4])), "spike times are NaN or decrease"),
    "decreasing unsigned times": (with_events(np.array([9, 4], np.uint64)), "spike times are NaN or decrease"),
    "decreasing float times": (with_events(np.array([9.0, 4.0])), "spike times are NaN or decrease"),
    "times in seconds": (with_events(spread_ns() * 1e-9), "give whole nanoseconds"),
    "times in whole seconds": (with_events(spread_ns() // 10**9), "99% of the spikes lie in bins 0 to 0 of 1500"),
    "times in microseconds": (with_events(spread_ns() // 1000), "99% of the spikes lie in bins 0 to 1 of 1500"),
    "times in samples": (with_events(spread_ns() * 3 // 100_000), "99% of the spikes lie in bins 0 to 0 of 1500"),
    "times of another clock": (
        with_events(spread_ns() + 10**15), "3000 of 3000 spikes lie outside the recording (0 to 30 s)"
    ),
    "times in picoseconds": (with_events(spread_ns() * 1000), "spikes lie outside the recording (0 to 30 s); give"),
    "units from one": (with_events(spread_ns(12), np.arange(1, 13)), "event_unit is 1 to 12, but the table's rows are"),
    "units as floats": (with_events(spread_ns(12), np.arange(12.0)), "event_unit is float64"),
    "too few unit numbers": (with_events(spread_ns(12), np.arange(11)), "event_unit is int64 (11,), not int (12,)"),
}  # fmt: skip


def write_unchecked(one: Session, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another program might write it."""
    with monkeypatch.context() as patch:
        patch.setattr(session_file, "check", lambda *_: None)
        patch.setattr(session_file, "_compare", lambda *_: None)
        session_file.save(one, path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_recording_is_refused(
    session: Session, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence that names the file, where it is written and where it is read; nothing is left behind."""
    edit, message = FAULTS[fault]
    path, wrong = tmp_path / "wrong.npz", edit(session)

    with pytest.raises(DataError) as error:
        session_file.save(wrong, path)
    assert message in sentence(error)
    assert list(tmp_path.iterdir()) == []

    if fault == "name '\\ud800'":
        return  # no JSON and no name of a file can hold it
    write_unchecked(wrong, path, monkeypatch)
    with pytest.raises(DataError) as error:
        session_file.load(path)
    damaged = ("not a readable", "lacks", "its header is damaged")  # where no file can hold the fault
    assert message in sentence(error) or any(other in sentence(error) for other in damaged)
    assert "wrong.npz" in sentence(error)


MOMENTS = {
    "rewards after the window": np.full(60, 800.0) + SCATTER,
    "cues before the segment": np.full(60, -200.0),
    "long after": np.full(60, 4_000.0) + SCATTER,
    "slower and slower": np.linspace(100.0, 450.0, 60),
    "of a clock that drifts": 100.0 + np.arange(60.0) * 0.025,
    "in two segments": np.r_[5.0, np.full(58, np.nan), 400.0],
    "never": np.full(60, np.nan),
    "float32": SCATTER.astype(np.float32),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_moments_may_lie_outside_their_segments(session: Session, tmp_path: Path, moment: str) -> None:
    session_file.save(replace(session, moments={"m": MOMENTS[moment]}), tmp_path / "one.npz")
    np.testing.assert_array_equal(session_file.load(tmp_path / "one.npz").moments["m"], MOMENTS[moment])


def test_text_ids_in_a_file_are_refused(session: Session, tmp_path: Path) -> None:
    """Before anything is trained on them."""
    path = tmp_path / "wrong.npz"
    session_file.save(session, path)
    with np.load(path) as bundle:
        arrays = dict(bundle) | {"unit_ids": np.array([f"imec0_{u}" for u in range(12)])}
    np.savez(path, **arrays)

    with pytest.raises(DataError, match=r"wrong\.npz: unit_ids are text .'imec0_0' first., not whole numbers"):
        session_file.load(path)


def test_a_recording_of_other_types_is_read_in_ours(session: Session, tmp_path: Path) -> None:
    """Float64 depths and traces, 32-bit labels, wide counts, big-endian bytes: one hash, and the types of `Session`."""
    path, depth = tmp_path / "foreign.npz", np.where(np.arange(12) == 0, 1234.45, np.arange(12) * 0.1)
    units = replace(session.units, depth_um=depth)
    made = replace(
        session,
        units=units,
        counts=session.counts.astype(np.uint64),
        values={
            "wheel_speed": session.values["wheel_speed"].astype(np.float64),
            "choice": session.values["choice"].astype(np.int8),
        },
    )
    session_file.save(made, path)
    with np.load(path) as bundle:
        arrays = {k: v.astype(v.dtype.newbyteorder(">")) for k, v in bundle.items()}
    np.savez(path, **arrays)

    read = session_file.load(path)

    assert read.units.sha256 == units.sha256
    assert read.counts.dtype == np.uint16
    np.testing.assert_array_equal(read.counts, session.counts)
    for name in ("wheel_speed", "choice"):
        np.testing.assert_array_equal(read.values[name], session.values[name], strict=True)


def test_spikes_beyond_the_recording_are_left_out(session: Session, tmp_path: Path) -> None:
    """Where they are fewer than those inside."""
    t_ns = np.r_[-5, spread_ns(1000), 10**12 + np.arange(400)]
    made = with_events(t_ns, np.zeros(len(t_ns), np.int64))(session)
    session_file.save(made, tmp_path / "long.npz")

    read = session_file.load(tmp_path / "long.npz")

    assert read.counts.sum() == 1000
    assert read.events is not None
    assert len(read.events[0]) == 1401
