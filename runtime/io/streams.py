"""The streams of a rig: found, checked against the checkpoint, and handed over as inlets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pylsl
from pylsl.util import TimeoutError as LslTimeout

from neds_core.errors import StreamError
from runtime.config import RigConfig
from runtime.io.lsl_description import Description, read_description
from runtime.io.lsl_inlets import BehaviourInlet, Inlet, MarkerInlet, SpikeInlet
from runtime.io.lsl_resolve import refuse_twins, resolve, resolve_number, resolve_text, where_else

RECHECK_S = 2.0  # how long a sender that came back is looked for before it counts as gone again


@dataclass(slots=True)
class Streams:
    """The inlets of one run.

    recheck: look at the spike stream again; False where it is not found, `StreamError` where it is another one now.
    """

    spikes: SpikeInlet
    markers: MarkerInlet | None
    behaviours: dict[str, BehaviourInlet]
    recheck: Callable[[], bool]

    def all(self) -> list[Inlet]:
        """Every inlet, spikes last: a sender starts when they have a consumer."""
        return [*self.behaviours.values(), *([self.markers] if self.markers is not None else []), self.spikes]


def find_streams(
    config: RigConfig, unit_map_sha: str, allow_replay: bool, watch: Callable[[], None] = lambda: None
) -> Streams:
    """Resolve and check every stream of the rig; unit_map_sha: of the units that the checkpoint was trained on.

    watch: called between two looks, raises where going on has no use. Raises `StreamError` with the remedy.
    """
    want = config.input
    try:
        info = resolve(want.spikes, want.wait_s, want.spikes_source_id, watch)
    except StreamError as error:
        watch()
        hint = ""
        if config.lsl.resolve_scope == "machine":
            if sys.stderr.isatty():
                print(f"{want.spikes!r} is not here; looking elsewhere takes some seconds", file=sys.stderr)
            hint = where_else(want.spikes, config.lsl.session_id)
        raise StreamError(f"{error}{'; ' if hint else ''}{hint}") from None
    description = _accepted(info, unit_map_sha, allow_replay)
    wait_s = min(want.wait_s, 5.0)
    markers = MarkerInlet(resolve_text(want.markers, wait_s)) if want.markers else None
    behaviours = {n: BehaviourInlet(n, resolve_number(s, wait_s)) for n, s in want.behaviours.items()}
    others = [*([want.markers] if want.markers else []), *want.behaviours.values()]
    refuse_twins({want.spikes: want.spikes_source_id, **dict.fromkeys(others, "")})

    def recheck() -> bool:
        try:
            again = resolve(want.spikes, RECHECK_S, info.source_id())
        except StreamError:
            return False
        _accepted(again, unit_map_sha, allow_replay)
        return True

    return Streams(SpikeInlet(info, description), markers, behaviours, recheck)


def _accepted(info: pylsl.StreamInfo, unit_map_sha: str, allow_replay: bool) -> Description:
    """What the spike stream says of itself, if the checkpoint may decode it. Raises `StreamError`."""
    name = info.name()
    try:
        description = read_description(pylsl.StreamInlet(info).info(5.0))
    except LslTimeout:
        raise StreamError(f"stream {name!r} was found but does not answer; restart its sender") from None
    if description.source != "live" and not allow_replay:
        raise StreamError(f"stream {name!r} is a {description.source}; add --allow-replay to decode it")
    if description.unit_map_sha != unit_map_sha:
        raise StreamError(
            f"stream {name!r} has another unit map ({description.unit_map_sha[:12]}) than the checkpoint "
            f"({unit_map_sha[:12]}); calibrate a checkpoint for these units"
        )
    return description
