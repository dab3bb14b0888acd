"""What a spike stream says of itself: the `neds_rt` block of its description."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import pylsl
from pylsl.info import XMLElement

from neds_core.data.session import UnitTable
from neds_core.errors import StreamError
from runtime.core.words import quoted
from runtime.io import unit_stream
from runtime.io.lsl_resolve import FORMATS
from runtime.io.unit_stream import LAYOUT, SCHEMA

SOURCES = ("live", "replay", "synthetic")


class Unit(NamedTuple):
    """A row of a unit table, as text."""

    source_id: str
    region: str
    depth_um: str = ""  # one decimal, "nan" = not known, "" = not sent


@dataclass(frozen=True, slots=True)
class Description:
    """The `neds_rt` block of a spike stream."""

    layout: str
    source: str  # live | replay | synthetic
    keep_alive: bool
    ordered: bool  # spikes arrive in the order of their stamps
    unit_map_sha: str
    rate_hz: float
    units: tuple[Unit, ...] = ()  # empty where the stream sends no table


def describe(info: pylsl.StreamInfo, units: UnitTable, source: str, rate_hz: float) -> None:
    """Write the block into a stream's description, unit table included."""
    unit_stream.describe(info, unit_rows(units), source, rate_hz)


class Declared(NamedTuple):
    """What a channel of measured behaviour says of itself; '' and None = nothing."""

    unit: str = ""
    sign: str = ""
    filter: str = ""
    filter_delay_ms: float | None = None
    future_ms: float | None = None


def describe_channel(info: pylsl.StreamInfo, label: str, said: Declared) -> None:
    """Add the next channel's label and what it says to a stream's description."""
    channels = info.desc().child("channels")
    channels = info.desc().append_child("channels") if channels.empty() else channels
    channel = channels.append_child("channel")
    channel.append_child_value("label", label)
    for key, value in said._asdict().items():
        if value not in ("", None):
            channel.append_child_value(key, str(value))


def declared(info: pylsl.StreamInfo, channel: int) -> Declared:
    """What a channel of a stream says of itself, counted from 0. Raises `StreamError` for ms that are no number."""
    at = info.desc().child("channels").child("channel")
    for _ in range(channel):
        at = at.next_sibling("channel")
    texts = {} if at.empty() else {key: at.child_value(key).strip() for key in Declared._fields}
    delay, future = (_ms(info.name(), key, texts.pop(key, "")) for key in ("filter_delay_ms", "future_ms"))
    return Declared(**texts, filter_delay_ms=delay, future_ms=future)


def _ms(stream: str, key: str, text: str) -> float | None:
    try:
        found = float(text) if text else None
    except ValueError:
        found = math.nan
    least = 0.0 if key == "future_ms" else -math.inf
    if found is not None and not (math.isfinite(found) and found >= least):
        raise StreamError(f"stream {quoted(stream)} declares {key} {quoted(text)}; give a number of milliseconds")
    return found


def about(info: pylsl.StreamInfo) -> dict[str, str]:
    """Who sends a stream, and what kind it is: for the record."""
    return {
        "name": info.name(), "type": info.type(), "host": info.hostname(), "source_id": info.source_id(),
        "format": FORMATS[info.channel_format()], "channels": str(info.channel_count()),
        "nominal_rate_hz": f"{info.nominal_srate():g}",
    }  # fmt: skip


def unit_rows(units: UnitTable) -> tuple[Unit, ...]:
    """A unit table as a stream tells it."""
    rows = zip(units.ids, units.region, units.depth_um, strict=True)
    return tuple(Unit(str(uid), str(region), f"{depth:.1f}") for uid, region, depth in rows)


def read_description(info: pylsl.StreamInfo) -> Description:
    """The block of a stream that claims to carry spikes. Raises `StreamError` where there is none."""
    block = info.desc().child("neds_rt")
    if block.empty():
        raise StreamError(
            f"stream {quoted(info.name())} has no neds_rt description, so its units are unknown; "
            "declare layout and unit map in its desc (docs/lsl.md)"
        )
    name, layout, sent = quoted(info.name()), block.child_value("layout"), FORMATS[info.channel_format()]
    if layout != LAYOUT:
        raise StreamError(f"stream {name} has layout {quoted(layout)}; send one int32 channel with layout {LAYOUT!r}")
    if sent != "int32":
        raise StreamError(f"stream {name} sends {sent}; send int32")
    if info.channel_count() != 1:
        raise StreamError(f"stream {name} has {info.channel_count()} channels; send one int32 channel")
    if block.child_value("clock") != "lsl":
        raise StreamError(f"stream {name} stamps with a clock of its own; stamp with LSL local_clock()")
    for key, wanted in {"schema": SCHEMA, "id_base": "0", "stamp": "spike"}.items():
        if block.child_value(key) != wanted:
            raise StreamError(
                f"stream {name} declares {key} {quoted(block.child_value(key))}; send {wanted!r} (docs/lsl.md)"
            )
    if block.child_value("source") not in SOURCES:
        raise StreamError(
            f"stream {name} declares source {quoted(block.child_value('source'))}; say one of {', '.join(SOURCES)}"
        )
    return Description(
        layout,
        block.child_value("source"),
        block.child_value("keep_alive") == "1",
        block.child_value("ordered") == "1",
        block.child_value("unit_map_sha256"),
        _rate_hz(name, block.child_value("rate_hz")),
        _units(block.child("units")),
    )


def _units(table: XMLElement) -> tuple[Unit, ...]:
    """The rows of a stream's unit table."""
    rows, unit = [], table.child("unit")
    while not unit.empty():
        rows.append(Unit(*(unit.child_value(key) for key in Unit._fields)))
        unit = unit.next_sibling("unit")
    return tuple(rows)


def _rate_hz(name: str, text: str) -> float:
    """The declared mean rate of a stream, 0 where it declares none."""
    try:
        rate = float(text or 0.0)
    except ValueError:
        rate = math.nan
    if not 0.0 <= rate < 1e8:
        raise StreamError(f"stream {name} declares rate_hz {quoted(text)}; give its mean number of spikes a second")
    return rate
