"""A played recording: the counts of every bin survive the way out and back in, at any hour and from any seed."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pylsl
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from neds_core.data.session import Session
from neds_core.errors import StreamError
from neds_core.io.importing.load import load
from runtime.core.run_log import Trace
from runtime.core.timeline import GAP_BINS, INSIDE_NS, MARGIN_NS, gap_bins, inside_ns, margin_ns, spread, timeline
from runtime.core.values import Mark
from runtime.io import lsl_player
from runtime.io.lsl_clock import now_ns
from runtime.io.lsl_description import Declared, declared, read_description
from runtime.io.lsl_inlets import BehaviourInlet, MarkerInlet, SpikeInlet
from runtime.io.lsl_player import Player, Pushes
from runtime.io.lsl_resolve import resolve, resolve_number, resolve_text
from tests.neds_core.io.formats.xdf_files import Stream, write

BIN = 20_000_000
WAIT_S = 5.0

any_counts = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 6)), elements=st.integers(0, 9))


def binned(t_ns: np.ndarray, unit: np.ndarray, n_bins: int, n_units: int, bin_ns: int = BIN) -> np.ndarray:
    counts = np.zeros((n_bins, n_units), int)
    np.add.at(counts, (t_ns // bin_ns, unit), 1)
    return counts


@given(any_counts, st.integers(0, 2**32), st.integers(1, 100_000_000))
def test_spread_keeps_every_count_and_its_distance_from_the_edges(counts: np.ndarray, seed: int, bin_ns: int) -> None:
    """In bins of any width."""
    t_ns, unit = spread(counts, bin_ns, seed)

    np.testing.assert_array_equal(binned(t_ns, unit, *counts.shape, bin_ns), counts)
    assert (np.diff(t_ns) >= 0).all()
    margin = margin_ns(bin_ns)
    assert ((t_ns % bin_ns >= margin) & (t_ns % bin_ns < bin_ns - margin)).all()
    assert (t_ns.dtype, unit.dtype) == (np.int64, np.int32)


@pytest.mark.parametrize("bin_ns", [20_000_000, 45_000_000])
def test_played_bins_of_the_shipped_recordings_are_as_they_were(bin_ns: int) -> None:
    """Bit for bit: 2 ms off the edges, markers 1 ms inside, 25 bins apart."""
    counts = np.full((7, 3), 2, np.uint8)
    rng = np.random.default_rng(5)
    expected = np.repeat(np.arange(7), 6) * bin_ns + rng.integers(MARGIN_NS, bin_ns - MARGIN_NS, 42)

    np.testing.assert_array_equal(spread(counts, bin_ns, 5)[0], np.sort(expected))
    assert (margin_ns(bin_ns), inside_ns(bin_ns), gap_bins(bin_ns)) == (2_000_000, 1_000_000, 25)
    assert (MARGIN_NS, INSIDE_NS, GAP_BINS) == (2_000_000, 1_000_000, 25)


def test_spread_depends_on_its_seed_alone() -> None:
    counts = np.full((5, 3), 4, np.uint8)
    first, again, other = (spread(counts, BIN, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[0] != other[0]).any()


@given(any_counts, st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, BIN - 1))
def test_a_timeline_plays_each_segment_on_the_grid_plus_a_shift(
    session: Session, counts: np.ndarray, lengths: list[int], shift_ns: int
) -> None:
    """Segments follow each other with a gap; shifted back, their counts are the recording's."""
    stops = np.minimum(np.cumsum(lengths), len(counts))
    starts = np.r_[0, stops[:-1]]
    segments = np.stack([starts, stops], 1)[stops > starts]
    cut = replace(
        session, counts=counts, segments=segments, segment_ids=np.arange(len(segments)) + 7,
        values={name: v[: len(counts)] for name, v in session.values.items()},
    )  # fmt: skip

    at = 0
    for found, (start, stop) in zip(timeline(cut, shift_ns), segments, strict=True):
        assert (found.start_ns, found.first_bin, found.n_bins) == (at + shift_ns, start, stop - start)
        np.testing.assert_array_equal(
            binned(found.t_ns - found.start_ns, found.unit, found.n_bins, counts.shape[1]), counts[start:stop]
        )
        at += (stop - start + GAP_BINS) * BIN


def test_recorded_spike_times_are_played_as_they_are(unbroken: Session) -> None:
    assert unbroken.events is not None
    cut = replace(unbroken, segments=np.array([[10, 30], [50, 400]]), segment_ids=np.array([0, 1]))
    first, second = timeline(cut)
    t_ns, unit = unbroken.events
    inside = (t_ns >= 50 * BIN) & (t_ns < 400 * BIN)
    np.testing.assert_array_equal(second.t_ns - second.start_ns, t_ns[inside] - 50 * BIN)
    np.testing.assert_array_equal(second.unit, unit[inside])
    assert len(first.t_ns) == ((t_ns >= 10 * BIN) & (t_ns < 30 * BIN)).sum()


def test_labels_are_told_where_they_are_known(session: Session) -> None:
    plan = timeline(session)
    choice = session.values["choice"][session.segments[:, 0]]
    assert [s.labels.get("choice") for s in plan] == [("left", "right", None)[c] for c in choice]


@pytest.mark.parametrize("mode", ["recorded", "permuted", "noise", "absent"])
def test_what_the_behaviour_streams_carry(lsl_session: str, stream_name: str, short: Session, mode: str) -> None:
    player = Player(short, stream_name, mode)
    truth = short.values["wheel_speed"]
    if mode == "absent":
        assert player.traces == {}
    else:
        (trace,) = player.traces.values()
        assert (trace.shape, np.array_equal(trace, truth, equal_nan=True)) == (truth.shape, mode == "recorded")
        assert np.array_equal(np.sort(trace), np.sort(truth), equal_nan=True) == (mode != "noise")
    assert list(player.behaviours) == list(player.traces)


def test_behaviour_streams_say_what_they_carry(lsl_session: str, stream_name: str, short: Session) -> None:
    """As the recording does: unit, sign, filter and its delay."""
    spec = msgspec.structs.replace(short.specs[0], filter="boxcar 60 ms", filter_delay_ms=30.0, future_ms=5.0)
    player = Player(replace(short, specs=(spec, *short.specs[1:])), stream_name)
    info = pylsl.StreamInlet(resolve(f"{stream_name}-wheel_speed", WAIT_S)).info(WAIT_S)
    assert declared(info, 0) == Declared("rad/s", "unsigned", "boxcar 60 ms", 30.0, 5.0)
    assert declared(info, 1) == Declared()
    del player


def test_a_player_that_nobody_hears_gives_up(lsl_session: str, stream_name: str, short: Session) -> None:
    with pytest.raises(StreamError, match=r"nobody connected within 0\.1 s; start `neds-rt run` first or raise --wait"):
        Player(short, stream_name).wait(0.1)


def test_a_short_session_over_real_lsl(lsl_session: str, stream_name: str, short: Session) -> None:
    """Every spike arrives once, in the bin of its count; markers come ahead, behaviour in its own bin."""
    player = Player(short, stream_name)
    info = resolve(f"{stream_name}-spikes", WAIT_S)
    description = read_description(pylsl.StreamInlet(info).info(WAIT_S))
    assert (description.source, description.unit_map_sha) == ("replay", short.units.sha256)
    spikes: list[tuple[int, int]] = []
    ahead_ns: list[int] = []
    with (
        SpikeInlet(info, description) as inlet,
        MarkerInlet(resolve_text(f"{stream_name}-markers", WAIT_S)) as markers,
        BehaviourInlet("wheel_speed", resolve_number(f"{stream_name}-wheel_speed", WAIT_S, "wheel_speed")[0]) as wheel,
    ):
        player.wait(WAIT_S)
        sender = threading.Thread(target=player.play)
        sender.start()
        marks: list[Mark] = []
        measured = Trace()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            spikes += inlet.pull(0.02).tolist()
            new = markers.pull()
            ahead_ns += [mark.t_ns - now_ns() for mark in new]
            marks += new
            for t_ns, value in wheel.pull():
                measured.add(t_ns, value)
            if not sender.is_alive() and inlet.received == player.sent:
                break
        sender.join()
        for t_ns, value in wheel.pull():
            measured.add(t_ns, value)

    # by the markers alone, each segment's counts are back on the recording's grid
    starts = [mark for mark in marks if mark.event == "segment_start"]
    edges = [mark.t_ns - INSIDE_NS for mark in starts]
    for (start, stop), edge in zip(short.segments, edges, strict=True):
        assert abs(edge - round(edge / BIN) * BIN) <= 1000  # stamps are doubles of seconds
        t, unit = np.array([(t - edge, u) for t, u in spikes if 0 <= t - edge < (stop - start) * BIN]).T
        np.testing.assert_array_equal(binned(t, unit, stop - start, 12), short.counts[start:stop])
        ends = edge + (np.arange(stop - start) + 1) * BIN
        np.testing.assert_array_equal(
            measured.at(ends, BIN).astype(np.float32), short.values["wheel_speed"][start:stop]
        )
    assert inlet.received == player.sent == short.counts[: short.segments[-1, 1]].sum()
    assert (inlet.lost_upstream, inlet.description.keep_alive) == (0, True)
    assert (markers.bad, markers.ended) == (0, True)
    assert [(m.segment, m.first_bin) for m in starts] == [(s.number, s.first_bin) for s in timeline(short)]
    assert [m.labels for m in marks if m.event == "segment_end"] == [s.labels for s in timeline(short)]
    assert max(ahead_ns) > 0  # on a busy machine most are read late


def test_narrow_bins_over_real_lsl(lsl_session: str, stream_name: str, short: Session) -> None:
    """Every spike comes in its own bin, and the end only after the last of them."""
    bin_ns = 1_000_000
    narrow = replace(short, bin_ns=bin_ns)
    player = Player(narrow, stream_name)
    info = resolve(f"{stream_name}-spikes", WAIT_S)
    spikes: list[tuple[int, int]] = []
    with (
        SpikeInlet(info, read_description(pylsl.StreamInlet(info).info(WAIT_S))) as inlet,
        MarkerInlet(resolve_text(f"{stream_name}-markers", WAIT_S)) as markers,
    ):
        player.wait(WAIT_S)
        sender = threading.Thread(target=player.play)
        sender.start()
        marks: list[Mark] = []
        while sender.is_alive() or inlet.received < player.sent:
            spikes += inlet.pull(0.02).tolist()
            marks += markers.pull()
            assert not markers.ended or inlet.received >= 0.9 * narrow.counts[narrow.bins()].sum()
        sender.join()

    for mark, (start, stop) in zip(marks[::2], narrow.segments, strict=True):
        edge = mark.t_ns - inside_ns(bin_ns)
        t, unit = np.array([(t - edge, u) for t, u in spikes if 0 <= t - edge < (stop - start) * bin_ns]).T
        np.testing.assert_array_equal(binned(t, unit, stop - start, 12, bin_ns), narrow.counts[start:stop])


def test_what_a_recorder_writes_of_a_playback_is_imported(
    lsl_session: str, stream_name: str, short: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two trials over real LSL into an XDF file, with the clock offsets of the recorder: counts and behaviour."""
    monkeypatch.setattr(lsl_player, "LEAD_S", 0.1)
    short = replace(short, segments=short.segments[:2], segment_ids=short.segment_ids[:2])
    player = Player(short, stream_name)
    predicate = f"starts-with(name,'{stream_name}-')"
    found = sorted(pylsl.resolve_bypred(predicate, minimum=3, timeout=WAIT_S), key=lambda info: info.name())
    inlets = [pylsl.StreamInlet(info) for info in found]
    for inlet in inlets:
        inlet.open_stream(WAIT_S)
    player.play()
    streams, offset = [], [(pylsl.local_clock(), inlets[0].time_correction(WAIT_S))]
    for inlet in inlets:
        values, stamps = inlet.pull_chunk(timeout=0.0, max_samples=10_000)
        values = [row[0] for row in values] if isinstance(values[0][0], str) else np.array(values)
        streams.append(Stream(inlet.info(WAIT_S).as_xml(), np.array(stamps), values, offset))
    back = load(write(tmp_path / "rig.xdf", streams), outputs=["wheel_speed"])
    assert back.units.sha256 == short.units.sha256
    assert back.valid[: back.segments[-1, 1]].all()
    for (a, b), (c, d) in zip(back.segments, short.segments, strict=True):
        np.testing.assert_array_equal(back.counts[a:b], short.counts[c:d])
        np.testing.assert_array_equal(back.values["wheel_speed"][a:b], short.values["wheel_speed"][c:d])


def test_labels_come_only_at_the_end_of_a_segment(lsl_session: str, stream_name: str, short: Session) -> None:
    """A label that is told early is a label the decoder could have used."""
    short = replace(short, starts={"wheel_speed": np.array([0.25, np.nan, -3.0])})
    player = Player(short, stream_name)
    notes = [(t, msgspec.json.decode(text)) for t, text in player._notes(timeline(short), 0)]
    stands = [note.get("stands") for _, note in notes if note["event"] == "segment_start"]
    assert stands == [{"wheel_speed": 0.25}, None, {"wheel_speed": -3.0}]  # NaN: the recording does not know
    assert [note["event"] for _, note in notes] == ["segment_start", "segment_end"] * 3 + ["recording_end"]
    assert [t for t, _ in notes] == sorted(t for t, _ in notes)
    assert all("labels" not in note for _, note in notes if note["event"] != "segment_end")


def test_a_recording_that_is_repeated_never_ends_and_no_keep_alive_is_missed(
    lsl_session: str, stream_name: str, short: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its parent is gone: each round is sent whole, on the grid of bins, and nothing says that it is over."""
    monkeypatch.setattr(lsl_player, "LEAD_S", 0.1)
    one = replace(short, segments=short.segments[:1], segment_ids=short.segment_ids[:1])
    n, player = int(one.counts[: one.segments[0, 1]].sum()), Player(one, stream_name)
    monkeypatch.setattr(player, "_orphaned", lambda: player.sent >= 2 * n)
    inlet = pylsl.StreamInlet(resolve(f"{stream_name}-spikes", WAIT_S))
    inlet.open_stream(WAIT_S)
    with MarkerInlet(resolve_text(f"{stream_name}-markers", WAIT_S)) as markers:
        player.play(push_ns=7_000_000, repeat=True)
        events = [mark.event for mark in markers.pull()]
        assert not markers.ended
    units, stamps = inlet.pull_chunk(timeout=1.0, max_samples=10_000, as_numpy=True)
    alive, t = units[:, 0] < 0, np.rint(stamps * 1e9).astype(np.int64)
    edges = np.diff(np.rint(t[alive] / BIN).astype(int))
    assert set(edges.tolist()) == {1}
    first, again = np.split(t[~alive], 2)
    np.testing.assert_array_equal(units[~alive, 0][:n], units[~alive, 0][n:])
    np.testing.assert_allclose(again - first, round((again[0] - first[0]) / BIN) * BIN, atol=2000)
    assert events[:3] == ["segment_start", "segment_end", "segment_start"]


def test_chunks_keep_their_schedule_and_are_told(lsl_session: str, stream_name: str, short: Session) -> None:
    """Every 7 ms: each bin still gets its one keep-alive, in the first chunk at or after its edge."""
    one = replace(short, segments=short.segments[:1], segment_ids=short.segment_ids[:1])
    player = Player(one, stream_name)
    info = resolve(f"{stream_name}-spikes", WAIT_S)
    inlet = pylsl.StreamInlet(info)
    inlet.open_stream(WAIT_S)
    pushes = Pushes(1000)
    player.play(push_ns=7_000_000, pushes=pushes)

    due, woke, sent = pushes.kept().T
    assert (np.diff(due) == 7_000_000).all()
    assert (woke >= due - 100_000).all()  # a sleep may end a little early by another clock
    assert (sent >= woke).all()
    units, stamps = inlet.pull_chunk(timeout=1.0, max_samples=10_000, as_numpy=True)
    alive = np.rint(stamps[units[:, 0] < 0] * 1e9).astype(np.int64)
    edges = np.arange(alive[0], due[-1] + 1, BIN)
    np.testing.assert_allclose(alive, due[np.searchsorted(due, edges)], atol=1000)
    assert (units[:, 0] >= 0).sum() == player.sent == one.counts[: one.segments[0, 1]].sum()
