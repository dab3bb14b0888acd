"""A rig connects to the streams that fit its checkpoint, and to no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pylsl
import pytest

from neds_core.data.session import Session, UnitTable
from neds_core.errors import StreamError
from runtime.config import InputConfig, LslConfig, RigConfig
from runtime.io.lsl_clock import now_ns
from runtime.io.lsl_player import Player
from runtime.io.lsl_source import LslSource
from runtime.io.streams import find_streams

MakeOutlet = Callable[..., pylsl.StreamOutlet]


def rig(spikes: str, **fields: Any) -> RigConfig:
    """A rig on the link scope, so that a missing stream is not looked for elsewhere."""
    inputs = InputConfig(spikes=spikes, wait_s=3.0, **fields)
    return RigConfig("test", "unused", inputs, lsl=LslConfig(resolve_scope="link"))


def test_a_rig_finds_its_streams_and_spikes_come_last(lsl_session: str, stream_name: str, short: Session) -> None:
    player = Player(short, stream_name)
    names = {"markers": f"{stream_name}-markers", "behaviours": {"wheel_speed": f"{stream_name}-wheel_speed"}}

    found = find_streams(rig(f"{stream_name}-spikes", **names), short.units.sha256, allow_replay=True)

    assert found.markers is not None
    assert found.all() == [found.behaviours["wheel_speed"], found.markers, found.spikes]
    assert found.spikes.info.uid() == player.spikes.get_info().uid()
    assert found.spikes.description.source == "replay"
    assert LslSource(found, short.bin_ns).measured(now_ns()) == {"wheel_speed": None}


def test_a_replay_is_not_taken_for_an_animal(make_outlet: MakeOutlet, stream_name: str, session: Session) -> None:
    outlet = make_outlet(stream_name, session.units, source="replay")
    with pytest.raises(StreamError, match="is a replay; add --allow-replay to decode it"):
        find_streams(rig(outlet.get_info().name()), session.units.sha256, allow_replay=False)


def other_ids(units: UnitTable) -> UnitTable:
    return replace(units, ids=units.ids + 1)


def swapped(units: UnitTable) -> UnitTable:
    order = [1, 0, *range(2, len(units))]
    return UnitTable(units.ids[order], units.region[order], units.depth_um[order])


def one_less(units: UnitTable) -> UnitTable:
    return UnitTable(units.ids[:-1], units.region[:-1], units.depth_um[:-1])


@pytest.mark.parametrize("change", [other_ids, swapped, one_less])
def test_another_unit_map_is_refused(
    make_outlet: MakeOutlet,
    stream_name: str,
    session: Session,
    change: Callable[[UnitTable], UnitTable],
) -> None:
    units = change(session.units)
    outlet = make_outlet(stream_name, units)
    with pytest.raises(StreamError) as caught:
        find_streams(rig(outlet.get_info().name()), session.units.sha256, allow_replay=False)
    assert str(caught.value) == (
        f"stream {stream_name!r} has another unit map ({units.sha256[:12]}) than the checkpoint "
        f"({session.units.sha256[:12]}); calibrate a checkpoint for these units"
    )


def test_a_missing_marker_stream_and_a_twin_are_refused(
    make_outlet: MakeOutlet, stream_name: str, session: Session
) -> None:
    twins = [make_outlet(stream_name, session.units, source_id=source_id) for source_id in ("one", "two")]
    with pytest.raises(StreamError, match=f"2 streams are called '{stream_name}'"):
        find_streams(rig(stream_name), session.units.sha256, allow_replay=False)

    found = find_streams(rig(stream_name, spikes_source_id="two"), session.units.sha256, allow_replay=False)
    assert found.spikes.info.uid() == twins[1].get_info().uid()

    with pytest.raises(StreamError, match=r"'no-markers' was not found in 3 s"):
        find_streams(
            rig(stream_name, spikes_source_id="two", markers="no-markers"), session.units.sha256, allow_replay=False
        )
