"""Recordings of LabRecorder come back as they were sent, and others are refused for a stated reason."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pylsl
import pytest
import pyxdf

from neds_core.data.session import Session
from neds_core.errors import ConfigError, DataError
from neds_core.io.formats import xdf
from neds_core.io.importing.load import load
from neds_core.io.importing.options import Options
from runtime.core.timeline import spread
from tests.neds_core.io.formats.xdf_files import Stream, info, playback, write

DATA = Path(__file__).parents[4].parent / "shared" / "data" / "xdf-format"
ZERO_NS = 3_601_000_000_000  # an hour after the computer's start, on the edge of a bin


@pytest.fixture(scope="module")
def timed(session: Session) -> Session:
    """The planted session with spike times and where the wheel stood when each trial began."""
    events = spread(session.counts, session.bin_ns, 1)
    return replace(session, events=events, starts={"wheel_speed": np.arange(60) / 7.0})


@pytest.fixture(scope="module")
def streams(timed: Session) -> list[Stream]:
    return playback(timed, ZERO_NS)


@pytest.fixture(scope="module")
def path(streams: list[Stream], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("xdf") / "day1.xdf", streams)


def test_a_playback_is_imported_without_options(timed: Session, path: Path) -> None:
    """Counts and behaviour of every bin of every trial, labels and the unit table, in bins of the rig."""
    found = load(path)
    assert found.units.sha256 == timed.units.sha256
    assert len(found.segments) == len(timed.segments)
    assert found.spec("wheel_speed") == msgspec.structs.replace(timed.spec("wheel_speed"), filter="none stated")
    wheel, choice = found.values["wheel_speed"], found.spec("choice").classes
    for (a, b), (c, d) in zip(found.segments, timed.segments, strict=True):
        assert b - a == d - c
        np.testing.assert_array_equal(found.counts[a:b], timed.counts[c:d])
        np.testing.assert_array_equal(wheel[a:b], timed.values["wheel_speed"][c:d])
        labels = found.values["choice"][a:b], timed.values["choice"][c:d]
        got, sent = (
            {"" if k < 0 else names[k] for k in k_s}
            for names, k_s in zip((choice, ("left", "right")), labels, strict=True)
        )
        assert got == sent
    assert found.valid[: found.segments[-1, 1]].all()


def test_spikes_equal_those_of_the_library_alone(path: Path) -> None:
    read, _ = pyxdf.load_xdf(path, dejitter_timestamps=False)
    values, stamps = read[0]["time_series"][:, 0], read[0]["time_stamps"]
    found = xdf.read(path, Options())
    np.testing.assert_array_equal(found.t_s, stamps[values >= 0])
    np.testing.assert_array_equal(found.unit, values[values >= 0])
    assert found.notes == ()
    assert found.trials is not None
    np.testing.assert_allclose(found.trials.columns["stands_wheel_speed"], np.arange(60) / 7.0)
    np.testing.assert_array_equal(found.trials.columns["segment"], np.arange(60) + 100)
    assert found.observed_s.shape == (1, 2)


def test_stamps_move_by_the_clock_offsets(streams: list[Stream], tmp_path: Path) -> None:
    """A sender whose clock is 12 s behind: its spikes lie where the recorder's clock has them."""
    begin = streams[0].stamps[0]
    late = [replace(s, stamps=s.stamps - 12.0, offsets=[(begin - 12 + 5 * k, 12.0) for k in range(9)]) for s in streams]
    moved, plain = (xdf.read(write(tmp_path / f"{k}.xdf", each), Options()) for k, each in enumerate((late, streams)))
    np.testing.assert_allclose(moved.t_s, plain.t_s, atol=1e-6, rtol=0)  # a robust line through equal offsets
    np.testing.assert_array_equal(moved.unit, plain.unit)


def test_lost_spikes_and_a_silent_sender_are_told(streams: list[Stream], tmp_path: Path) -> None:
    """A keep-alive counts what was sent; a second without any sample was not recorded."""
    spikes, values = streams[0], np.asarray(streams[0].values)[:, 0]
    lost = np.flatnonzero(values >= 0)[100:107]
    away = (spikes.stamps > spikes.stamps[5000]) & (spikes.stamps < spikes.stamps[5000] + 1.0)
    missing = int((values[away] >= 0).sum())
    keep = ~away
    keep[lost] = False
    cut = replace(spikes, stamps=spikes.stamps[keep], values=values[keep][:, None])
    found = xdf.read(write(tmp_path / "cut.xdf", [cut, *streams[1:]]), Options())
    assert f"{7 + missing} spikes that the sender counted are not in the file" in found.notes
    assert found.observed_s.shape == (2, 2)
    assert 0.98 < found.observed_s[1, 0] - found.observed_s[0, 1] < 1.05
    assert len(found.t_s) == int((values >= 0).sum()) - 7 - missing


def test_a_noise_cluster_is_no_keep_alive(streams: list[Stream], tmp_path: Path) -> None:
    spikes, values = streams[0], np.array(streams[0].values)
    values[values < 0] = -1
    values[np.flatnonzero(values[:, 0] >= 0)[:3]] = 12  # of 12 units
    found = xdf.read(write(tmp_path / "noise.xdf", [replace(spikes, values=values), *streams[1:]]), Options())
    n = int((values < 0).sum())
    assert found.notes == (
        f"{n} negative samples are no keep-alives, though the stream declares them",
        f"{n + 3} samples are of no unit of the table and are left out",
    )


def test_a_recording_that_was_cut_off_is_read_to_its_last_whole_chunk(path: Path, tmp_path: Path) -> None:
    """The recorder died: no footers, and the last chunk ends in the middle."""
    whole = path.read_bytes()
    (tmp_path / "cut.xdf").write_bytes(whole[: whole.rindex(b"rig-wheel_speed") + 3000])
    found = xdf.read(tmp_path / "cut.xdf", Options())
    assert found.notes[0].startswith("the recording was cut off: the last ")
    assert len(found.t_s) == len(xdf.read(path, Options()).t_s)


def test_a_packed_file_is_read_as_it_is_unpacked(path: Path, tmp_path: Path) -> None:
    packed, cut = tmp_path / "day1.xdfz", tmp_path / "cut.xdfz"
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    cut.write_bytes(packed.read_bytes()[:-5000])
    found, plain = load(packed), load(path)
    np.testing.assert_array_equal(found.counts, plain.counts)
    np.testing.assert_array_equal(found.values["wheel_speed"], plain.values["wheel_speed"])
    with pytest.raises(DataError, match=r"is no whole gzip file .*; copy it again"):
        load(cut)


def _other(old: str, new: str) -> Callable[[list[Stream]], list[Stream]]:
    def change(streams: list[Stream]) -> list[Stream]:
        assert old in streams[0].xml
        return [replace(streams[0], xml=streams[0].xml.replace(old, new, 1)), *streams[1:]]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda streams: streams[1:], "no spike stream that says its units"),
        (lambda streams: [*streams, streams[0]], "2 spike streams .*--name spikes=STREAM"),
        (lambda streams: [*streams, streams[1]], "2 streams of markers .*--name markers=STREAM"),
        (lambda streams: [*streams, streams[2]], "behaviour 'rig-wheel_speed_wheel_speed' in 2 streams"),
        (_other("<source_id>3</source_id>", "<source_id>4</source_id>"), "another unit_map_sha256"),
        (_other("<source_id>3</source_id>", "<source_id>a</source_id>"), "another unit_map_sha256"),
        (_other("<clock>lsl</clock>", "<clock>own</clock>"), "declares clock 'own'"),
        (_other("<channel_format>int32", "<channel_format>float32"), "no stream of one int32 channel"),
        (lambda streams: [replace(streams[0], stamps=streams[0].stamps[:0], values=[]), *streams[1:]], "no spikes"),
        (
            lambda streams: [replace(streams[0], stamps=np.r_[np.nan, streams[0].stamps[1:]]), *streams[1:]],
            "stamps that are no numbers",
        ),
    ],
)  # fmt: skip
def test_it_is_refused(
    streams: list[Stream], change: Callable[[list[Stream]], list[Stream]], said: str, tmp_path: Path
) -> None:
    few = [replace(s, stamps=s.stamps[:200], values=s.values[:200]) for s in streams]
    with pytest.raises(DataError, match=said):
        xdf.read(write(tmp_path / "a.xdf", change(few)), Options())


def test_options_that_have_no_place_are_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="stamps of XDF are seconds"):
        xdf.read(path, Options(rate_hz=30000.0))
    with pytest.raises(ConfigError, match=r"--trials blocks: day1\.xdf has no table of that name"):
        xdf.read(path, Options(trials="blocks"))
    with pytest.raises(DataError, match="no unit has the quality 'good'"):
        xdf.read(path, Options(quality="good"))


def test_damage_is_refused(path: Path, tmp_path: Path) -> None:
    """Samples that the footer counts and the file lacks; a length that cannot be; no XDF at all."""
    whole = path.read_bytes()
    (tmp_path / "a.xdf").write_bytes(re.sub(rb"<sample_count>\d", b"<sample_count>9", whole))
    with pytest.raises(DataError, match=r"of the 9\d+ samples of its footer"):
        xdf.read(tmp_path / "a.xdf", Options())
    (tmp_path / "b.xdf").write_bytes(whole[:4] + b"\x07" + whole[5:])
    with pytest.raises(DataError, match="damaged at byte 4"):
        xdf.read(tmp_path / "b.xdf", Options())
    (tmp_path / "c.xdf").write_bytes(b"PK34 and more")
    with pytest.raises(DataError, match="does not begin as XDF does"):
        xdf.read(tmp_path / "c.xdf", Options())


def test_signals_are_left_out(streams: list[Stream], tmp_path: Path) -> None:
    """30 kHz is no behaviour; it is neither kept in memory nor proposed."""
    raw = Stream(info("probe", pylsl.cf_int16, 4, 30000.0).as_xml(), np.arange(99) / 3e4, np.zeros((99, 4)))
    found = xdf.read(write(tmp_path / "a.xdf", [raw, *streams]), Options())
    assert [trace.name for trace in found.traces] == ["wheel_speed"]
    assert "'probe' (4 channels at 30000" in found.notes[0]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the example files of the format are not at {DATA}")
@pytest.mark.parametrize("name", ["minimal", "clock_resets", "empty_streams"])
def test_files_without_spikes_are_refused_and_their_streams_named(name: str) -> None:
    with pytest.raises(DataError, match=r"no spike stream that says its units \(streams: '.*docs/lsl.md"):
        xdf.read(DATA / f"{name}.xdf", Options())
