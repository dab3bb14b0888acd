"""What a spike stream says of itself: the `neds_rt` block of its description."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pylsl

from neds_core.data.session import UnitTable
from neds_core.errors import StreamError

SCHEMA = "1"
LAYOUT = "events_unit"
SOURCES = ("live", "replay", "synthetic")
KEEP_ALIVE_MODULUS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Description:
    """The `neds_rt` block of a spike stream."""

    layout: str
    source: str  # live | replay | synthetic
    keep_alive: bool
    ordered: bool  # spikes arrive in the order of their stamps
    unit_map_sha: str
    rate_hz: float


def describe(info: pylsl.StreamInfo, units: UnitTable, source: str, rate_hz: float) -> None:
    """Write the block into a stream's description, unit table included."""
    block = info.desc().append_child("neds_rt")
    for key, value in {
        "schema": SCHEMA, "layout": LAYOUT, "source": source, "keep_alive": "1", "ordered": "1", "clock": "lsl",
        "stamp": "spike", "id_base": "0", "unit_map_sha256": units.sha256, "rate_hz": f"{rate_hz:.1f}",
    }.items():  # fmt: skip
        block.append_child_value(key, value)
    table = block.append_child("units")
    for row, (uid, region) in enumerate(zip(units.ids, units.region, strict=True)):
        unit = table.append_child("unit")
        unit.append_child_value("id", str(row))
        unit.append_child_value("source_id", str(uid))
        unit.append_child_value("region", str(region))


def read_description(info: pylsl.StreamInfo) -> Description:
    """The block of a stream that claims to carry spikes. Raises `StreamError` where there is none."""
    block = info.desc().child("neds_rt")
    if block.empty():
        raise StreamError(
            f"stream {info.name()!r} has no neds_rt description, so its units are unknown; "
            "declare layout and unit map in its desc (docs/lsl.md)"
        )
    layout = block.child_value("layout")
    if layout != LAYOUT or info.channel_count() != 1 or info.channel_format() != pylsl.cf_int32:
        raise StreamError(
            f"stream {info.name()!r} has layout {layout!r}, {info.channel_count()} channels; "
            f"send one int32 channel with layout {LAYOUT!r}"
        )
    if block.child_value("clock") != "lsl":
        raise StreamError(f"stream {info.name()!r} stamps with a clock of its own; stamp with LSL local_clock()")
    for key, wanted in {"schema": SCHEMA, "id_base": "0", "stamp": "spike"}.items():
        if block.child_value(key) != wanted:
            raise StreamError(
                f"stream {info.name()!r} declares {key} {block.child_value(key)!r}; send {wanted!r} (docs/lsl.md)"
            )
    if block.child_value("source") not in SOURCES:
        raise StreamError(
            f"stream {info.name()!r} declares source {block.child_value('source')!r}; say one of {', '.join(SOURCES)}"
        )
    return Description(
        layout,
        block.child_value("source"),
        block.child_value("keep_alive") == "1",
        block.child_value("ordered") == "1",
        block.child_value("unit_map_sha256"),
        _rate_hz(info.name(), block.child_value("rate_hz")),
    )


def _rate_hz(name: str, text: str) -> float:
    """The declared mean rate of a stream, 0 where it declares none."""
    try:
        rate = float(text or 0.0)
    except ValueError:
        rate = math.nan
    if not 0.0 <= rate < 1e8:
        raise StreamError(f"stream {name!r} declares rate_hz {text!r}; give its mean number of spikes a second")
    return rate
