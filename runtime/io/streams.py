"""The streams of a rig: found, checked against the checkpoint, and handed over as inlets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pylsl
from pylsl.util import TimeoutError as LslTimeout

from neds_core.data.session import UnitTable
from neds_core.errors import StreamError
from runtime.config import RigConfig
from runtime.core.words import quoted
from runtime.io import unit_maps
from runtime.io.lsl_description import Description, read_description
from runtime.io.lsl_inlets import BehaviourInlet, Inlet, MarkerInlet, SpikeInlet
from runtime.io.lsl_resolve import (
    DESCRIBE_S,
    Watch,
    find,
    refuse_twins,
    resolve,
    resolve_number,
    resolve_text,
    stranger,
    unwatched,
    where_else,
)

RECHECK_S = 2.0  # how long a sender that came back is looked for before it counts as gone again


@dataclass(slots=True)
class Streams:
    """The inlets of one run.

    recheck: look at the spike stream again; False where it does not answer, `StreamError` where it is another one now.
    units: of the spike stream.
    """

    spikes: SpikeInlet
    markers: MarkerInlet | None
    behaviours: dict[str, BehaviourInlet]
    recheck: Callable[[], bool]
    units: UnitTable

    def stranger(self) -> str:
        """What to do where the sender of spikes has come back and is not connected again, '' = it has not."""
        info = self.spikes.info
        return stranger(info.name(), info.source_id(), info.uid())

    def all(self) -> list[Inlet]:
        """Every inlet, spikes last: a sender starts when they have a consumer."""
        return [*self.behaviours.values(), *([self.markers] if self.markers is not None else []), self.spikes]


def find_streams(
    config: RigConfig, units: UnitTable | None, allow_replay: bool, watch: Watch = unwatched
) -> Streams:  # fmt: skip
    """Resolve and check every stream of the rig; units: those that the checkpoint was trained on, None = whatever the
    stream says it has.

    watch: called between two looks, raises where going on has no use. Raises `StreamError` with the remedy.
    """
    want = config.input
    try:
        info = resolve(want.spikes, want.wait_s, want.spikes_source_id, watch)
    except StreamError as error:
        watch()
        said = str(error)
        if config.lsl.resolve_scope == "machine":
            if sys.stderr.isatty():
                print(f"{want.spikes!r} is not here; looking elsewhere takes some seconds", file=sys.stderr)
            said = where_else(said, want.spikes, config.lsl.session_id)
        raise StreamError(said) from None
    description = _accepted(info, units, allow_replay)
    units = units if units is not None else unit_maps.table(info.name(), description)
    markers = MarkerInlet(resolve_text(want.markers, want.wait_s, watch)) if want.markers else None
    found = {output: resolve_number(name, want.wait_s, output, watch) for output, name in want.behaviours.items()}
    behaviours = {output: BehaviourInlet(output, *place) for output, place in found.items()}
    others = [*([want.markers] if want.markers else []), *(other.name() for other, _ in found.values())]
    refuse_twins({**dict.fromkeys(others, ""), want.spikes: want.spikes_source_id}, want.spikes)

    def recheck() -> bool:
        try:
            again = find(want.spikes, RECHECK_S, info.source_id())
            return again is not None and bool(_fits(again, units, allow_replay))
        except RuntimeError:  # liblsl's: found, and gone before it has described itself
            return False

    return Streams(SpikeInlet(info, description), markers, behaviours, recheck, units)


def _accepted(info: pylsl.StreamInfo, units: UnitTable | None, allow_replay: bool) -> Description:
    """What the spike stream says of itself, if the checkpoint may decode it. Raises `StreamError`."""
    try:
        return _fits(info, units, allow_replay)
    except LslTimeout:
        raise StreamError(f"stream {quoted(info.name())} was found but does not answer; restart its sender") from None


def _fits(info: pylsl.StreamInfo, units: UnitTable | None, allow_replay: bool) -> Description:
    """As `_accepted`, for a sender that may be gone: liblsl's own errors come out."""
    name = quoted(info.name())
    description = read_description(pylsl.StreamInlet(info).info(DESCRIBE_S))
    if description.source != "live" and not allow_replay:
        raise StreamError(f"stream {name} is a {description.source}; add --allow-replay to decode it")
    if units is not None and description.unit_map_sha != units.sha256:
        what, remedy = unit_maps.difference(description.units, units)
        raise StreamError(
            f"stream {name} has another unit map ({description.unit_map_sha[:12]}) than the checkpoint "
            f"({units.sha256[:12]}): {what}; {remedy}"
        )
    return description
