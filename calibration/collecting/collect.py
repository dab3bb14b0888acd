"""Collect a session: an ordinary run that decodes nothing, kept block by block, until enough has come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import msgspec
from msgspec import Struct

from calibration.collecting import folder as folders, session as sessions, wanted
from calibration.collecting.folder import Kept
from calibration.collecting.progress import Goal, Progress
from calibration.collecting.wanted import Asked
from neds_core import files
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import DataError
from neds_core.io import nwb
from neds_core.io.nwb import Subject
from runtime.config import RigConfig
from runtime.core.engine import Decoder
from runtime.core.log_blocks import BlockLog
from runtime.core.run_log import Header, RunLog, describe
from runtime.core.state import State, StateTrack
from runtime.engines import nothing
from runtime.io import system
from runtime.io.block_file import Keeper
from runtime.io.clock import LiveClock
from runtime.io.lsl_clock import now_ns
from runtime.io.lsl_description import about, declared, unit_rows
from runtime.io.lsl_source import LslSource
from runtime.io.streams import Streams
from runtime.io.unit_maps import of_rows
from runtime.live.loop import Plan, run
from runtime.live.messages import Messages
from runtime.live.wiring import make_pipeline
from runtime.wire import Decode, Status

BLOCK_NS = 2_000_000_000  # of the longest block: at most this and what is being written is lost by a crash


class Report(Struct, frozen=True):
    """What came of a collection. session, nwb: paths, '' = not written, for the reason `unwritten`. quantities: units
    of the behaviours by name. failed: an error ended it, which `notes` has."""

    folder: str
    stopped_by: str
    trials: int
    labelled: int
    cut: int
    minutes: float
    runs: int
    classes: dict[str, dict[str, int]]
    units: int
    units_firing: int
    ranges: dict[str, tuple[float, float] | None]
    warnings: list[str]
    notes: list[str]
    session: str = ""
    nwb: str = ""
    unwritten: str = ""
    counters: dict[str, int] = {}
    quantities: dict[str, str] = {}
    stimulated: int = 0
    failed: bool = False


@dataclass(slots=True)
class Collection:
    """Where a collection stands: what its folder holds, and how far it has come."""

    config: RigConfig
    base: Asked
    kept: Kept
    progress: Progress
    notes: list[str] = field(default_factory=list)
    stopped_by: str = "enough"
    failed: bool = False  # it ended because of an error, which `notes` has

    @property
    def marked(self) -> bool:
        """Whether trials come from markers."""
        return uses_markers(self.config)


def uses_markers(config: RigConfig) -> bool:
    """Whether the rig has trials."""
    return bool(config.input.markers) and config.bins.use_markers


def begin(config: RigConfig, base: Asked, folder: Path, goal: Goal) -> Collection:
    """Read the folder, and take in what it holds. Raises `ConfigError` or `DataError`."""
    wanted.refuse(config, base.specs)
    kept = folders.read(folder)
    folders.refuse_rig(kept, config, base.specs, base.bin_ns)
    specs = kept.logs[-1].header.specs if kept.logs else base.specs
    progress = Progress(specs, tuple(config.input.behaviours), goal, marked=uses_markers(config))
    for log in kept.logs:
        progress.begin()
        progress.take(log)
    return Collection(config, base, kept, progress, list(kept.torn))


def take(
    collection: Collection, streams: Streams, stop: Event, say: Callable[[str], None],
    player_runs: Callable[[], bool] = lambda: True,
) -> None:  # fmt: skip
    """Collect from the streams of the rig until enough has come, `stop` is set, or the stream ends.

    say: takes a line for people, and never blocks. Raises `StreamError`, `DataError`, `ConfigError`.
    """
    config, progress = collection.config, collection.progress
    decoder = nothing.decoder(streams.units, collection.base.bin_ns)
    header, notes = _header(config, collection.base, decoder, streams)
    collection.notes += notes
    for note in notes:
        say(note)
    folders.refuse_other(collection.kept, header)
    progress.specs = header.specs
    progress.begin()
    files.make_folder(collection.kept.folder)
    path = collection.kept.next()
    say(f"collecting from {len(streams.units)} units into {path.parent}; Ctrl-C ends it, and all is kept")
    try:
        with Keeper(path, progress.take) as keeper:
            log = _run(collection, streams, decoder, header, keeper, stop, say, player_runs)
    except OSError as error:
        raise files.unwritten(path, error) from None
    if isinstance(keeper.error, OSError):
        collection.notes.append(f"{files.unwritten(path, keeper.error)}: what came after that is lost")
        collection.failed = True
    elif keeper.error is not None:
        raise keeper.error
    collection.stopped_by = "enough" if progress.enough else log.outcome.stopped_by
    if log.outcome.refusal:
        collection.notes.append(log.outcome.refusal)
        collection.failed = True


def _run(
    collection: Collection, streams: Streams, decoder: Decoder, header: Header, keeper: Keeper, stop: Event,
    say: Callable[[str], None], player_runs: Callable[[], bool],
) -> RunLog:  # fmt: skip
    config, progress, bin_ns = collection.config, collection.progress, decoder.bin_ns
    source, clock = LslSource(streams, bin_ns, player_runs), LiveClock()
    pipeline = make_pipeline(config, decoder, streams, clock.step_ns)
    kind = streams.spikes.description.source
    log = BlockLog(header, max(1, BLOCK_NS // bin_ns), decoder.n_units, 0, keeper.put)
    for name in config.input.behaviours:
        log.expect(name)
    pipeline.binner.kept = log.kept
    sink = Messages(config, pipeline, source, _Counted(progress), kind, say)
    budget_ns = int(config.output.budget_ms * 1e6)
    plan = Plan(budget_ns, stop=lambda: stop.is_set() or progress.enough or keeper.error is not None)
    track = StateTrack()
    track.enter(State.WARMUP)
    source.probe()
    with clock:
        scheduling = system.raise_priority()
        try:
            log.header = msgspec.structs.replace(header, scheduling=scheduling)
            with source:
                track.enter(State.READY)
                run(source, pipeline, sink, clock, log, plan, track)
        finally:
            system.lower_priority()
            log.source_delay_ms = streams.spikes.delays.kept().copy()
            progress.counters = log.outcome.counters or progress.counters
            log.hand_over()
    return log


class _Counted:
    """Publishes nothing; keeps the counters of the newest status."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def send(self, message: Decode) -> None: ...

    def tell(self, kind: str, message: object) -> None:
        if isinstance(message, Status):
            self.progress.counters = message.counters


def _header(config: RigConfig, base: Asked, decoder: Decoder, streams: Streams) -> tuple[Header, list[str]]:
    """What the log says of the run, and what was taken on trust."""
    infos = {name: inlet.described() for name, inlet in streams.behaviours.items()}
    said = {name: declared(info, streams.behaviours[name].channel) for name, info in infos.items()}
    specs, notes = wanted.specs(base.specs, said, config.input.behaviours)
    told = {name: about(info) | {k: str(v) for k, v in said[name]._asdict().items()} for name, info in infos.items()}
    told["spikes"] = about(streams.spikes.info)
    if streams.markers is not None:
        told["markers"] = about(streams.markers.info)
    header = describe(
        decoder, rig=config.rig, source=streams.spikes.description.source, budget_ms=config.output.budget_ms,
        checkpoint=base.path, config=msgspec.to_builtins(config), versions=system.versions(),
        units=tuple(tuple(row) for row in unit_rows(streams.units)), streams=told, utc_ns=time.time_ns() - now_ns(),
    )  # fmt: skip
    return msgspec.structs.replace(header, specs=specs), notes


def finish(collection: Collection, subject: Subject) -> Report:
    """Make the session of all runs of the folder, write it as .npz and .nwb, and report. What was collected stays."""
    kept, progress = folders.read(collection.kept.folder), collection.progress
    notes = [*collection.notes, *(each for each in kept.torn if each not in collection.notes)]
    written, unwritten = ("", ""), "nothing was collected; look at the sender of spikes"
    if kept.logs:
        try:
            made = sessions.make(
                kept.logs, of_rows(kept.logs[-1].header.units), kept.folder.resolve().name, marked=collection.marked
            )
            notes += made.notes
            written, unwritten = _save(made.session, kept, subject), ""
        except DataError as error:
            unwritten = str(error)
    firing, units = progress.units()
    ranges = {n: (t.low, t.high) if t.low <= t.high else None for n, t in progress.traces.items()}
    return Report(
        folder=str(kept.folder), stopped_by=collection.stopped_by, trials=len(progress.trials),
        labelled=progress.labelled, cut=progress.cut, minutes=progress.minutes, runs=len(kept.logs),
        classes={name: dict(n) for name, n in progress.classes().items()}, units=units, units_firing=firing,
        ranges=ranges, warnings=progress.warnings(), notes=notes, session=written[0], nwb=written[1],
        unwritten=unwritten, counters=dict(progress.counters), quantities={s.name: s.unit for s in progress.specs},
        stimulated=progress.stimulated,
        failed=collection.failed,
    )  # fmt: skip


def _save(session: Session, kept: Kept, subject: Subject) -> tuple[str, str]:
    """Write both files; returns their paths."""
    native, other = kept.folder / folders.SESSION, kept.folder / folders.NWB
    session_file.save(session, native)
    nwb.save(session, other, _origin(kept, session, subject))
    return str(native), str(other)


def _origin(kept: Kept, session: Session, subject: Subject) -> nwb.Origin:
    """Where the session is from, for the NWB file."""
    first, last = kept.logs[0], kept.logs[-1]
    start_ns = first.header.utc_ns + int(first.t_end_ns[0]) - session.bin_ns if first.n else first.header.utc_ns
    more = {
        "rig": last.header.rig, "source": last.header.source, "base": last.header.checkpoint,
        "unit_map_sha256": session.units.sha256, "streams": last.header.streams, "config": last.header.config,
        "runs": [
            {"started_utc_ns": log.header.utc_ns + int(log.t_end_ns[0]) - session.bin_ns, "bins": log.n,
             "stopped_by": log.outcome.stopped_by, "counters": log.outcome.counters}
            for log in kept.logs if log.n
        ],
    }  # fmt: skip
    return nwb.Origin(start_ns, subject, last.header.versions, more)
