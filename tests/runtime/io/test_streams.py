"""A rig connects to the streams that fit its checkpoint, and to no others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pylsl
import pytest

from neds_core.data.session import Session, UnitTable
from neds_core.errors import StreamError
from runtime.config import InputConfig, LslConfig, RigConfig
from runtime.io import lsl_source, streams
from runtime.io.lsl_clock import now_ns
from runtime.io.lsl_description import unit_rows
from runtime.io.lsl_player import Player
from runtime.io.lsl_resolve import RESOLVE_S, Watch, resolve_text
from runtime.io.lsl_source import LslSource
from runtime.io.streams import find_streams
from runtime.io.unit_maps import difference

MakeOutlet = Callable[..., pylsl.StreamOutlet]


def rig(spikes: str, **fields: Any) -> RigConfig:
    """A rig on the link scope, so that a missing stream is not looked for elsewhere."""
    inputs = InputConfig(spikes=spikes, **{"wait_s": 3.0, **fields})
    return RigConfig("test", "unused", inputs, lsl=LslConfig(resolve_scope="link"))


def test_a_rig_finds_its_streams_and_spikes_come_last(lsl_session: str, stream_name: str, short: Session) -> None:
    player = Player(short, stream_name)
    names = {"markers": f"{stream_name}-markers", "behaviours": {"wheel_speed": f"{stream_name}-wheel_speed"}}

    found = find_streams(rig(f"{stream_name}-spikes", **names), short.units, allow_replay=True)

    assert found.markers is not None
    assert found.all() == [found.behaviours["wheel_speed"], found.markers, found.spikes]
    assert found.spikes.info.uid() == player.spikes.get_info().uid()
    assert found.spikes.description.source == "replay"
    assert LslSource(found, short.bin_ns).measured(now_ns()) == {"wheel_speed": None}


def test_a_replay_is_not_taken_for_an_animal(make_outlet: MakeOutlet, stream_name: str, session: Session) -> None:
    outlet = make_outlet(stream_name, session.units, source="replay")
    with pytest.raises(StreamError, match="is a replay; add --allow-replay to decode it"):
        find_streams(rig(outlet.get_info().name()), session.units, allow_replay=False)


def other_ids(units: UnitTable) -> UnitTable:
    return replace(units, ids=units.ids + 1)


def swapped(units: UnitTable) -> UnitTable:
    order = [1, 0, *range(2, len(units))]
    return UnitTable(units.ids[order], units.region[order], units.depth_um[order])


def one_less(units: UnitTable) -> UnitTable:
    return UnitTable(units.ids[:-1], units.region[:-1], units.depth_um[:-1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            other_ids,
            "12 of its units are not the checkpoint's, 0 are, first row 0: unit '4' in 'ca1' instead of "
            "unit '3' in 'ca1'; train a checkpoint on these units",
        ),
        (
            swapped,
            "the same 12 units in another order, 2 rows differ, first row 0: unit '10' in 'vis' at 20.0 um instead of "
            "unit '3' in 'ca1'; send them in the checkpoint's order, or train on this order",
        ),
        (
            one_less,
            "11 units, the checkpoint has 12; 0 of its units are not the checkpoint's, 11 are, first row 11; "
            "train a checkpoint on these units",
        ),
    ],
)
def test_another_unit_map_is_refused(
    make_outlet: MakeOutlet, stream_name: str, session: Session, change: Callable[[UnitTable], UnitTable], says: str
) -> None:
    units = change(session.units)
    outlet = make_outlet(stream_name, units)
    with pytest.raises(StreamError) as caught:
        find_streams(rig(outlet.get_info().name()), session.units, allow_replay=False)
    assert str(caught.value) == (
        f"stream {stream_name!r} has another unit map ({units.sha256[:12]}) than the checkpoint "
        f"({session.units.sha256[:12]}): {says}"
    )


def test_a_unit_map_without_a_table_or_with_other_depths_is_named(session: Session) -> None:
    assert difference((), session.units)[0] == "it sends no unit table to compare"
    deeper = unit_rows(replace(session.units, depth_um=session.units.depth_um + 1))
    assert (
        "first row 1: unit '10' in 'vis' at 21.0 um instead of unit '10' in 'vis' at 20.0"
        in difference(deeper, session.units)[0]
    )
    bare = [unit._replace(depth_um="") for unit in deeper]
    assert "ids and regions are the same in the same order" in difference(bare, session.units)[0]


def test_behaviours_come_by_channel(make_outlet: MakeOutlet, stream_name: str, session: Session) -> None:
    """Two outputs of one stream, each with its own channel."""
    outlet = make_outlet(stream_name, session.units)
    info = pylsl.StreamInfo(f"{stream_name}-cursor", "Position", 2, 0.0, pylsl.cf_float32, f"{stream_name}-cursor")
    channels = info.desc().append_child("channels")
    for label in ("x", "y"):
        channels.append_child("channel").append_child_value("label", label)
    cursor = pylsl.StreamOutlet(info)
    names = {"wheel_speed": f"{stream_name}-cursor:y", "x": f"{stream_name}-cursor"}
    found = find_streams(rig(outlet.get_info().name(), behaviours=names), session.units, allow_replay=False)
    values: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
    with found.behaviours["wheel_speed"] as y, found.behaviours["x"] as x:
        deadline = time.monotonic() + 5.0
        cursor.push_sample([1.0, 2.0], 100.0)
        while not all(values.values()) and time.monotonic() < deadline:
            for inlet in (x, y):
                values[inlet.name] += inlet.pull()
    assert values == {"wheel_speed": [(100_000_000_000, 2.0)], "x": [(100_000_000_000, 1.0)]}


def test_every_stream_is_waited_for(
    make_outlet: MakeOutlet, stream_name: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """input.wait_s holds for markers too, which come here after one look for them has ended."""
    outlet, late, waits = make_outlet(stream_name, session.units), [], []

    def noted(name: str, wait_s: float, watch: Watch) -> pylsl.StreamInfo:
        waits.append(wait_s)
        return resolve_text(name, wait_s, watch)

    monkeypatch.setattr(streams, "resolve_text", noted)

    def begin() -> None:
        name = f"{stream_name}-markers"
        late.append(pylsl.StreamOutlet(pylsl.StreamInfo(name, "Markers", 1, 0.0, pylsl.cf_string, name)))

    timer = threading.Timer(RESOLVE_S + 0.3, begin)
    timer.start()
    config = rig(outlet.get_info().name(), markers=f"{stream_name}-markers", wait_s=30.0)
    found = find_streams(config, session.units, allow_replay=False)
    timer.join()
    assert waits == [30.0]
    assert found.markers is not None
    assert found.markers.info.uid() == late[0].get_info().uid()


def test_a_missing_marker_stream_and_a_twin_are_refused(
    make_outlet: MakeOutlet, stream_name: str, session: Session
) -> None:
    twins = [make_outlet(stream_name, session.units, source_id=source_id) for source_id in ("one", "two")]
    with pytest.raises(StreamError, match=f"2 streams are called '{stream_name}'.*_source_id to 'one' or 'two'$"):
        find_streams(rig(stream_name), session.units, allow_replay=False)

    found = find_streams(rig(stream_name, spikes_source_id="two"), session.units, allow_replay=False)
    assert found.spikes.info.uid() == twins[1].get_info().uid()

    lacks = rig(stream_name, spikes_source_id="two", markers="no-markers", wait_s=1.0)
    with pytest.raises(StreamError, match=r"'no-markers' was not found in 1 s"):
        find_streams(lacks, session.units, allow_replay=False)


def test_a_sender_that_returns_under_another_source_id_is_named(
    make_outlet: MakeOutlet, stream_name: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """liblsl waits for the old one for ever."""
    monkeypatch.setattr(lsl_source, "ELSEWHERE_NS", 1_000_000_000)
    outlet = make_outlet(stream_name, session.units, source_id="first")
    found = find_streams(rig(outlet.get_info().name()), session.units, allow_replay=False)
    events: list[tuple[str, str]] = []
    with LslSource(found, session.bin_ns) as source:
        deadline = time.monotonic() + 30.0
        while source.alive_ns < 0 and time.monotonic() < deadline:
            for _ in range(3):
                outlet.push_sample([-1])
                source.wait(0.03)
        del outlet
        with monkeypatch.context() as patch:
            patch.setattr(streams, "find", lambda *wanted: found.spikes.info)  # as where it has just answered
            patch.setattr(streams, "DESCRIBE_S", 0.2)
            assert not found.recheck()  # gone before it has described itself: no other sender
        again = make_outlet(stream_name, session.units, source_id="second")
        while not any(name == "sender_elsewhere" for name, _ in events) and time.monotonic() < deadline:
            source.wait(0.1)
            assert source.over(now_ns()) == ""
            events += source.events()
        assert again.get_info().source_id() == "second"
    said = dict(events)["sender_elsewhere"]
    assert said.startswith(
        f"stream {stream_name!r} came back from source_id 'second'; this run follows 'first': restart"
    )
    assert source.withheld == said
