"""`neds-rt collect`: a session of a rig, kept block by block while it comes in."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from runtime.cli.options import taking
from runtime.cli.output import emit, note
from runtime.cli.processes import Stop

if TYPE_CHECKING:
    from runtime.config import RigConfig

PLAIN_S, LIVE_S = 10.0, 0.5  # between two plain lines, and two looks
MOST_SAID = 4  # of the newest notices, in the live view


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a command that collects can be told, whatever comes of the session then."""

    trials: Annotated[int | None, typer.Option(min=1, help="end after so many labelled trials")] = None
    minutes: Annotated[float | None, typer.Option(help="end after so many minutes of data (in trials, if any)")] = None
    base: Annotated[
        Path | None, typer.Option("--from", help="checkpoint or trunk whose outputs and bins are wanted")
    ] = None
    bin_ms: Annotated[float | None, typer.Option(help="bin width without --from, 20 if not given")] = None
    subject: Annotated[str, typer.Option(help="the animal's name, for the NWB file")] = ""
    species: Annotated[str, typer.Option(help="in Latin, such as Mus musculus, for the NWB file")] = ""
    sex: Annotated[str, typer.Option(help="M, F, O or U, for the NWB file")] = ""
    age: Annotated[str, typer.Option(help="as ISO 8601, such as P90D, for the NWB file")] = ""
    allow_replay: Annotated[bool, typer.Option(help="accept streams of neds-rt play")] = False
    headless: Annotated[bool, typer.Option(help="plain lines, also in a terminal")] = False
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False


@dataclass(frozen=True, kw_only=True)
class Options(Wanted):
    """What `neds-rt collect` can be told."""

    rig: Annotated[Path, typer.Argument(help="RIG.toml; its checkpoint may be missing")]
    out: Annotated[Path, typer.Option(help="folder of the collection; one that was begun is gone on with")]


@taking(Options)
def collect(given: Options) -> None:
    """Collect a session from LSL into a folder, as Session.npz and NWB. It ends by itself, or with Ctrl-C.

    What has come is on the disk every 2 s and after each trial. The same command goes on where it ended.
    """
    from calibration.collecting import words

    found = gather(given, given.rig, given.out, Stop())
    emit(found, None if given.json else lambda: words.summary(found), given.json)
    if found.unwritten:
        note(f"neds-rt: no session is written: {found.unwritten}")
    os._exit(2 if found.unwritten or found.failed else 0)  # liblsl destroys each inlet for 0.5 s


def gather(
    given: Wanted, rig: Path, folder: Path, stop: Stop, looked: Callable[[Any], None] = lambda kept: None
) -> Any:  # fmt: skip
    """Collect into a folder until enough has come or a signal does, and write the session of all that it holds.

    looked: given what the folder holds (`Kept`) before anything is connected.
    Returns the `Report` of `calibration.collecting.collect`. Raises a `NedsError` where nothing can be collected.
    """
    config = _config(given, rig)
    from calibration.collecting import collect as collecting, wanted, words
    from calibration.collecting.progress import Goal
    from neds_core.io.nwb import Subject
    from runtime.io import system
    from runtime.io.lsl_resolve import configure
    from runtime.io.streams import find_streams

    subject = Subject(given.subject, given.species, given.sex, given.age)
    subject.refuse()
    base = wanted.base_of(given.base, given.bin_ms)
    collection = collecting.begin(config, base, folder, Goal(given.trials, given.minutes))
    looked(collection.kept)
    progress = collection.progress
    if progress.enough:
        note(f"{folder} holds enough already: {len(progress.trials)} trials, {progress.minutes:.2f} minutes")
    else:
        configure(config.lsl.session_id, config.lsl.resolve_scope, config.lsl.known_peers)
        system.open_files(config.input.count)
        streams = find_streams(config, None, given.allow_replay, stop.check)
        over = threading.Event()
        stop.ends(over)
        live = sys.stdout.isatty() and sys.stderr.isatty() and not (given.headless or given.json)
        with Shown(lambda: words.lines(progress), progress.warnings, live) as shown:
            collecting.take(collection, streams, over, shown.say)
    stop.loop_is_over()
    note(f"writing the session of {folder}")
    return collecting.finish(collection, subject)


def _config(given: Wanted, rig: Path) -> RigConfig:
    """The rig with the options applied. Raises `ConfigError` where they do not fit."""
    import msgspec

    from neds_core.errors import ConfigError
    from runtime import config as rigs
    from runtime.io.lsl_resolve import REPLAY_SESSION

    config = rigs.load(rig, rigs.FirstDay)
    if given.minutes is not None:
        rigs.check_seconds("--minutes", 60.0 * given.minutes)
    if given.trials is not None and not (config.input.markers and config.bins.use_markers):
        raise ConfigError(
            "--trials: trials come from markers; name input.markers (with bins.use_markers on), or give --minutes"
        )
    if given.allow_replay:
        replace = msgspec.structs.replace
        config = replace(config, lsl=replace(config.lsl, session_id=REPLAY_SESSION))
    return config


class Shown:
    """Shows how far a collection has come, from a thread of its own: a live block in a terminal, else plain lines."""

    def __init__(self, lines: Callable[[], list[str]], warnings: Callable[[], list[str]], live: bool) -> None:
        self.lines, self.warnings = lines, warnings
        self._said: deque[str] = deque(maxlen=MOST_SAID if live else None)
        self._warned: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live if live else self._plain, name="shown", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *gone: object) -> None:
        self._over.set()
        self._thread.join(2.0)

    def say(self, line: str) -> None:
        """Have a line shown; returns at once."""
        self._said.append(line)

    def _plain(self) -> None:
        wait_s = 0.0
        while not self._over.wait(LIVE_S):
            self._tell()
            wait_s += LIVE_S
            if wait_s >= PLAIN_S:
                wait_s = 0.0
                note("; ".join(self.lines()))
        self._tell()

    def _tell(self) -> None:
        while self._said:
            note(self._said.popleft())
        for warning in self.warnings():
            kind = "".join(c for c in warning if not c.isdigit())  # the same with other numbers is no news
            if kind not in self._warned:
                self._warned.add(kind)
                note(warning)

    def _live(self) -> None:
        from rich.live import Live
        from rich.text import Text

        from runtime.core.words import safe

        with Live(auto_refresh=False) as view:
            over = False
            while not over:
                over = self._over.wait(LIVE_S)
                body = Text("\n".join(map(safe, self.lines())))
                for line in [*self.warnings(), *self._said]:
                    body.append(f"\n{safe(line)}", style="yellow")
                view.update(body, refresh=True)
