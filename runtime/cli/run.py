"""`neds-rt run`: decode live. Without a file it plays the shipped recording and decodes that."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtime.cli.evaluate import evidence
from runtime.cli.options import taking
from runtime.cli.output import emit, note
from runtime.cli.play import Behaviours, Phase, Split
from runtime.cli.processes import Player, Stop
from runtime.io.system import end
from runtime.start import command

if TYPE_CHECKING:
    from neds_core.checkpoint import Checkpoint
    from runtime.certificate.document import Held
    from runtime.config import RigConfig
    from runtime.core.run_log import RunLog
    from runtime.io.chain import Chain
    from runtime.io.control import Control


@dataclass(frozen=True)
class Options:
    """What `neds-rt run` can be told."""

    rig: Annotated[Path | None, typer.Argument(help="RIG.toml; none: decode the shipped recording")] = None
    seconds: Annotated[float | None, typer.Option(help="stop after this long")] = None
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False
    headless: Annotated[bool, typer.Option(help="no terminal view")] = False
    decoder: Annotated[str | None, typer.Option(help="neds, ridge, blend or recommended")] = None
    checkpoint: Annotated[Path | None, typer.Option(help="another checkpoint than the rig's")] = None
    require_certificate: Annotated[
        bool, typer.Option("--require-certificate", help="start only with a certificate of neds-rt certify that holds")
    ] = False
    certificate: Annotated[Path | None, typer.Option(help="the certificate to require, where it is another file")] = (
        None
    )
    allow_replay: Annotated[bool, typer.Option(help="accept streams of neds-rt play")] = False
    play: Annotated[bool, typer.Option(help="also play the rig's score.recording, in a child process")] = False
    split: Annotated[Split, typer.Option(help="with --play: part of the recording")] = Split.TEST
    phase: Annotated[Phase, typer.Option(help="with --play: random shifts segments against the grid")] = Phase.GRID
    behaviours: Annotated[Behaviours, typer.Option(help="with --play: content of the behaviour streams")] = (
        Behaviours.RECORDED
    )
    markers: Annotated[bool, typer.Option(help="decode inside segments only, cold from each start")] = True
    save_log: Annotated[
        Path | None, typer.Option(help="write the log of the run, its first score.log_s seconds, to this .npz")
    ] = None

    @property
    def plays(self) -> bool:
        """Whether this run starts its own player."""
        return self.rig is None or self.play


@taking(Options)
def run(given: Options) -> None:
    """Decode live from LSL to ZeroMQ, then print the summary."""
    import msgspec

    stop = Stop()
    config, held = _config(given)
    with ExitStack() as stack:
        player, traces = None, {}
        if given.plays:
            with stop.held():
                player, traces = _start_player(config, given)
                stack.callback(player.end)
        log, checkpoint = _decode(config, given, stack, stop, (player, traces), held)
        stop.loop_is_over()
        log.header = msgspec.structs.replace(log.header, certificate=held.told)
        try:
            _show(log, checkpoint, given.json)
        finally:  # the log is of a run that cannot be run again
            saved = given.save_log is None or _saved(log, given.save_log)
    if given.plays and (told := evidence([checkpoint], Path(config.score.recording), given.split)):
        note(told)
    if player is not None and log.outcome.stopped_by == "player_gone":
        note(player.said())
    if log.outcome.refusal:
        note(log.outcome.refusal)
    code = 2 if log.outcome.refusal or not saved else 0
    os._exit(code)  # all is closed and printed; liblsl destroys each inlet for 0.5 s


def _config(given: Options) -> tuple[RigConfig, Held]:
    """The rig's configuration with the options applied, and the certificate that was required.

    Raises `ConfigError` where they do not fit.
    """
    from runtime import config as rigs
    from runtime.cli.demo import demo
    from runtime.io import log_file

    rigs.check_seconds("--seconds", given.seconds)
    rig = given.rig if given.rig is not None else demo() / "rig.toml"
    config = _with_options(rigs.load(rig), given)
    config, held = _certified(config, rig, given)
    if given.save_log is not None:
        log_file.prepare(given.save_log)
    if given.plays:
        return _embedded(config, f"{config.rig}-{os.getpid()}", given), held
    return _in_replay_session(config) if given.allow_replay else config, held


def _certified(config: RigConfig, rig: Path, given: Options) -> tuple[RigConfig, Held]:
    """The configuration, with the certificate's path where one is required, and what is kept of it."""
    import msgspec

    from runtime.certificate import chain, document

    wanted = given.certificate or (Path(config.certificate) if config.certificate else None)
    if wanted is None and not given.require_certificate:
        return config, document.Held()
    path, live = wanted or document.beside(rig), not (given.plays or given.allow_replay)
    found = document.require(path, chain.of(config, rig.resolve().parent), live=live)
    told = found.told
    note(
        f"certificate {path} of {told['created']} holds: of {told['seconds']} s, in which at most {told['misses']} of "
        "the deadlines were missed (95 % confidence)"
    )
    return msgspec.structs.replace(config, certificate=str(path)), found


def _with_options(config: RigConfig, given: Options) -> RigConfig:
    import msgspec

    from neds_core.errors import ConfigError
    from runtime.core.engine import NAMES

    replace = msgspec.structs.replace
    if given.decoder is not None:
        if given.decoder not in NAMES:
            raise ConfigError(f"--decoder {given.decoder!r} is not known; choose one of {', '.join(NAMES)}")
        config = replace(config, engine=replace(config.engine, decoder=given.decoder))
    if given.checkpoint is not None:
        config = replace(config, checkpoint=str(given.checkpoint))
    return config if given.markers else replace(config, bins=replace(config.bins, use_markers=False))


def _in_replay_session(config: RigConfig) -> RigConfig:
    import msgspec

    from runtime.io.lsl_resolve import REPLAY_SESSION

    return msgspec.structs.replace(config, lsl=msgspec.structs.replace(config.lsl, session_id=REPLAY_SESSION))


def _embedded(config: RigConfig, prefix: str, given: Options) -> RigConfig:
    """Free ports, and streams and an LSL session of this process alone, so that runs never meet."""
    import msgspec

    from neds_core.errors import ConfigError

    if not config.score.recording:
        raise ConfigError("--play needs a recording; set score.recording in the rig's file")
    replace = msgspec.structs.replace
    absent = given.behaviours is Behaviours.ABSENT
    names = {} if absent else {name: f"{prefix}-{name}" for name in config.input.behaviours}
    return replace(
        config,
        input=replace(
            config.input, spikes=f"{prefix}-spikes", markers=f"{prefix}-markers", behaviours=names, wait_s=30.0
        ),
        output=replace(config.output, decode_port=0, latest_port=0),
        control=replace(config.control, port=None if config.control.port is None else 0),
        lsl=replace(config.lsl, session_id=prefix, resolve_scope="machine"),
    )  # fmt: skip


def _start_player(config: RigConfig, given: Options) -> tuple[Player, dict[str, str]]:
    """The player, and the streams of the behaviours that it plays by name."""
    from neds_core.data import session as sessions, session_file

    recording = session_file.load(Path(config.score.recording))  # refused here rather than by the child
    if others := sessions.left_out(recording):
        note(f"spikes of {recording.name} that are not played: {others}")
    session = config.lsl.session_id
    player = Player(
        config.score.recording, "--prefix", session, "--session-id", session,
        "--split", given.split.value, "--phase", given.phase.value, "--behaviours", given.behaviours.value,
        "--parent", os.getpid(),
    )  # fmt: skip
    absent = given.behaviours is Behaviours.ABSENT
    played = [] if absent else [spec.name for spec in recording.specs if spec.kind == "continuous"]
    return player, {name: f"{session}-{name}" for name in played}


def _scored_by(config: RigConfig, checkpoint: Checkpoint, traces: dict[str, str]) -> RigConfig:
    """Read what is played of the checkpoint's outputs, name -> stream, where the rig names no stream of behaviour."""
    import msgspec

    if config.input.behaviours:
        return config
    measured = {spec.name: traces[spec.name] for spec in checkpoint.specs if spec.name in traces}
    return msgspec.structs.replace(config, input=msgspec.structs.replace(config.input, behaviours=measured))


def _decode(
    config: RigConfig,
    given: Options,
    stack: ExitStack,
    stop: Stop,
    plays: tuple[Player | None, dict[str, str]],
    held: Held,
) -> tuple[RunLog, Checkpoint]:
    """Connect, warm up, decode until the end; what was opened closes with `stack`.

    plays: the player of this run, and its streams of behaviour.
    """
    from runtime.io.lsl_resolve import configure

    configure(config.lsl.session_id, config.lsl.resolve_scope, config.lsl.known_peers)
    from neds_core import checkpoint as checkpoints
    from neds_core.errors import StreamError
    from runtime.core.engine import RECOMMENDED
    from runtime.engines import create as engines
    from runtime.io import log_file, system
    from runtime.io.publish import Publisher
    from runtime.io.streams import find_streams
    from runtime.live.wiring import wire

    player, traces = plays

    def watch() -> None:
        stop.check()
        if player is not None:
            player.check()

    checkpoint = checkpoints.load(Path(config.checkpoint))
    held.refuse_other(checkpoint.sha)
    config = _scored_by(config, checkpoint, traces)
    if given.save_log is not None:
        longest_s = min(config.score.log_s, given.seconds or config.score.log_s)
        log_file.refuse_full(given.save_log, int(longest_s * 1e9 / checkpoint.header.bin_ns), len(checkpoint.units))
    system.open_files(config.input.count)
    publisher = stack.enter_context(Publisher(config.output, config.rig))
    note(f"decode and status on {publisher.address}, latest on {publisher.latest_address}")
    control = _control(config, stack)
    try:
        streams = find_streams(config, checkpoint.units, given.allow_replay or player is not None, watch)
    except StreamError:
        watch()  # a player that has ended says why better than what is missed
        raise
    if config.engine.decoder == RECOMMENDED:
        note(engines.said(checkpoint))
    runs = player.runs if player is not None else lambda: True
    wired = wire(config, checkpoint, streams, publisher, runs, control, held.scheduling)
    viewed = not (given.headless or given.json) and sys.stdout.isatty()
    if viewed:
        view = command("runtime.views.terminal", publisher.address, config.rig)
        stack.callback(end, subprocess.Popen(view, process_group=0))
    stop.ends(wired.stop)
    told = not (viewed and sys.stderr.isatty())  # the view shows what is wrong, and lines would tear it
    return wired.run(given.seconds, told=told), checkpoint


def _control(config: RigConfig, stack: ExitStack) -> tuple[Control, Chain] | None:
    """The control socket and the chain's file, None where the rig has none."""
    if config.control.port is None:
        return None
    from runtime.io.chain import Chain
    from runtime.io.control import Control

    chain = stack.enter_context(Chain(Path(config.control.log)))
    control = stack.enter_context(Control(config.control.port))
    note(f"control on {control.address}, exchanges are added to {chain.path}")
    return control, chain


def _show(log: RunLog, checkpoint: Checkpoint, as_json: bool) -> None:
    """The summary, as text or as JSON."""
    from runtime.scoring import report, summary

    found = summary.build(log, checkpoint)
    emit(found, None if as_json else lambda: report.lines(found), as_json)


def _saved(log: RunLog, path: Path) -> bool:
    """Write the log; where that fails, say so in one sentence."""
    from runtime.io import log_file

    try:
        log_file.save(log, path)
    except OSError as error:
        note(f"neds-rt: --save-log {path}: not written ({error.strerror or error}); the summary above is whole")
        return False
    return True
