"""`neds-rt run`: decode live. Without a file it plays the shipped recording and decodes that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtime.cli.play import Behaviours, Phase, Split

if TYPE_CHECKING:
    from runtime.config import RigConfig
    from runtime.live.loop import LiveRun, Result

STOP_S = 1.0


@dataclass(frozen=True, slots=True)
class Playback:
    """What the child process plays."""

    split: Split
    phase: Phase
    behaviours: Behaviours


class Stop:
    """SIGINT and SIGTERM: end the loop at once; during start-up, end the process."""

    def __init__(self) -> None:
        self.live: LiveRun | None = None
        self.holding = self.pending = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A stretch that a signal may not cut in two: it takes effect at the end."""
        self.holding = True
        try:
            yield
        finally:
            self.holding = False
        if self.pending:
            raise KeyboardInterrupt

    def __call__(self, number: int, frame: object) -> None:
        if self.holding:
            self.pending = True
            return
        if self.live is None or self.live.stop.is_set():
            raise KeyboardInterrupt
        self.live.stop.set()


def run(
    rig: Annotated[Path | None, typer.Argument(help="RIG.toml; none: decode the shipped recording")] = None,
    seconds: Annotated[float | None, typer.Option(help="stop after this long")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
    headless: Annotated[bool, typer.Option(help="no terminal view")] = False,
    decoder: Annotated[str | None, typer.Option(help="neds, ridge or blend")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="another checkpoint than the rig's")] = None,
    allow_replay: Annotated[bool, typer.Option(help="accept streams of neds-rt play")] = False,
    play: Annotated[bool, typer.Option(help="also play the rig's score.recording, in a child process")] = False,
    split: Annotated[Split, typer.Option(help="with --play: part of the recording")] = Split.TEST,
    phase: Annotated[Phase, typer.Option(help="with --play: random shifts segments against the grid")] = Phase.GRID,
    behaviours: Annotated[
        Behaviours, typer.Option(help="with --play: content of the behaviour streams")
    ] = Behaviours.RECORDED,
    markers: Annotated[bool, typer.Option(help="decode inside segments only, cold from each start")] = True,
    save_log: Annotated[Path | None, typer.Option(help="write tokens and values to this .npz")] = None,
) -> None:
    """Decode live from LSL to ZeroMQ, then print the summary."""
    stop = Stop()
    from neds_core.errors import ConfigError
    from runtime import config as rigs
    from runtime.cli.demo import demo

    playback = Playback(split, phase, behaviours) if rig is None or play else None
    rigs.check_seconds("--seconds", seconds)
    config = rigs.load(rig if rig is not None else demo() / "rig.toml")
    config = _with_options(config, decoder, checkpoint, markers)
    if save_log is not None and not save_log.parent.is_dir():
        raise ConfigError(f"--save-log {save_log}: its folder does not exist; make it first")
    if playback is not None:
        config = _embedded(config, f"{config.rig}-{os.getpid()}", playback)
    elif allow_replay:
        config = _in_replay_session(config)
    with ExitStack() as stack:
        player = None
        if playback is not None:
            with stop.held():
                player = _start_player(config, playback)
                stack.callback(_end, player)
        result = _decode(config, stack, stop, player, allow_replay, seconds, headless or json)
        stop.live = None  # from here on a signal ends the process: there is no loop left to stop
        from runtime.scoring import summary

        if save_log is not None:
            result.log.save(save_log)
        found = summary.build(result)
    _show(found, json)
    if result.refusal:
        print(result.refusal, file=sys.stderr)
    sys.stderr.flush()
    os._exit(2 if result.refusal else 0)  # all is closed and printed; liblsl takes half a second to destroy each inlet


def _with_options(config: RigConfig, decoder: str | None, checkpoint: Path | None, markers: bool) -> RigConfig:
    import msgspec

    from neds_core.errors import ConfigError

    replace = msgspec.structs.replace
    if decoder is not None:
        if decoder not in ("neds", "ridge", "blend"):
            raise ConfigError(f"--decoder {decoder!r} is not known; choose neds, ridge or blend")
        config = replace(config, engine=replace(config.engine, decoder=decoder))
    if checkpoint is not None:
        config = replace(config, checkpoint=str(checkpoint))
    return config if markers else replace(config, bins=replace(config.bins, use_markers=False))


def _in_replay_session(config: RigConfig) -> RigConfig:
    import msgspec

    from runtime.io.lsl_resolve import REPLAY_SESSION

    return msgspec.structs.replace(config, lsl=msgspec.structs.replace(config.lsl, session_id=REPLAY_SESSION))


def _embedded(config: RigConfig, prefix: str, playback: Playback) -> RigConfig:
    """Free ports, and streams and an LSL session of this process alone, so that runs never meet."""
    import msgspec

    from neds_core.errors import ConfigError

    if not config.score.recording:
        raise ConfigError("--play needs a recording; set score.recording in the rig's file")
    replace = msgspec.structs.replace
    absent = playback.behaviours is Behaviours.ABSENT
    names = {} if absent else {name: f"{prefix}-{name}" for name in config.input.behaviours}
    return replace(
        config,
        input=replace(
            config.input, spikes=f"{prefix}-spikes", markers=f"{prefix}-markers", behaviours=names, wait_s=30.0
        ),
        output=replace(config.output, decode_port=0, latest_port=0),
        lsl=replace(config.lsl, session_id=prefix, resolve_scope="machine"),
    )  # fmt: skip


def _start_player(config: RigConfig, playback: Playback) -> subprocess.Popen[bytes]:
    from neds_core.data import session as sessions

    sessions.load(Path(config.score.recording))  # refused here, in one sentence, rather than by the child
    session = config.lsl.session_id
    command = [
        sys.executable, "-m", "runtime.cli", "play", config.score.recording,
        "--prefix", session, "--session-id", session,
        "--split", playback.split.value, "--phase", playback.phase.value, "--behaviours", playback.behaviours.value,
        "--parent", str(os.getpid()),
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child that we started: ask, then insist."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _decode(
    config: RigConfig,
    stack: ExitStack,
    stop: Stop,
    player: subprocess.Popen[bytes] | None,
    allow_replay: bool,
    seconds: float | None,
    headless: bool,
) -> Result:
    """Connect, warm up, decode until the end; what was opened closes with `stack`."""
    from runtime.io.lsl_resolve import configure

    configure(config.lsl.session_id, config.lsl.resolve_scope, config.lsl.known_peers)
    from neds_core import checkpoint as checkpoints
    from runtime.io.publish import Publisher
    from runtime.io.streams import find_streams
    from runtime.live.loop import LiveRun

    checkpoint = checkpoints.load(Path(config.checkpoint))
    publisher = stack.enter_context(Publisher(config.output, config.rig))
    print(
        f"decode and status on {publisher.address}, latest on {publisher.latest_address}", file=sys.stderr, flush=True
    )
    streams = find_streams(config, checkpoint, allow_replay or player is not None)
    live = LiveRun(config, checkpoint, streams, publisher, lambda: player is None or player.poll() is None)
    stop.live = live
    if not headless and sys.stdout.isatty():
        view = subprocess.Popen(
            [sys.executable, "-m", "runtime.views.terminal", publisher.address, config.rig], process_group=0
        )
        stack.callback(_end, view)
    return live.run(seconds)


def _show(summary: dict[str, object], as_json: bool) -> None:
    import msgspec

    from runtime.scoring.report import lines

    if as_json:
        print(msgspec.json.encode(summary).decode(), flush=True)
    else:
        print("\n".join(lines(summary)), flush=True)
