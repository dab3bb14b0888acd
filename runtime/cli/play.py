"""`neds-rt play`: a recording as real LSL streams, in real time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.options import taking

MOST_PUSHES = 1 << 20  # of which the times are kept: 87 minutes at 5 ms


class Split(StrEnum):
    """Which chronological part is played."""

    ALL = "all"
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Phase(StrEnum):
    """Where segments start against the grid of bins."""

    GRID = "grid"
    RANDOM = "random"


class Behaviours(StrEnum):
    """What the behaviour streams carry; the spikes are the same in all."""

    RECORDED = "recorded"
    NOISE = "noise"
    PERMUTED = "permuted"
    ABSENT = "absent"


@dataclass(frozen=True)
class Options:
    """What `neds-rt play` can be told."""

    recording: Annotated[Path, typer.Argument(help="a Session.npz, or an NWB file of neds-rt")]
    split: Annotated[Split, typer.Option(help="part of the recording")] = Split.ALL
    prefix: Annotated[
        str, typer.Option(help="streams are called PREFIX-spikes, PREFIX-markers, PREFIX-<behaviour>")
    ] = "neds-play"
    session_id: Annotated[str, typer.Option(help="LSL session of the outlets")] = "neds-rt-replay"
    phase: Annotated[Phase, typer.Option(help="random shifts segments against the grid")] = Phase.GRID
    behaviours: Annotated[Behaviours, typer.Option(help="content of the behaviour streams")] = Behaviours.RECORDED
    wait: Annotated[float, typer.Option(help="seconds to wait for a consumer")] = 60.0
    seed: Annotated[int, typer.Option(help="seed of the random phase")] = 0
    push_ms: Annotated[
        float, typer.Option(min=0.0, max=1000.0, help="ms between two chunks of spikes, 0: a quarter of a bin")
    ] = 0.0
    pushes: Annotated[Path | None, typer.Option(help="write when each chunk was due and sent to this .npy")] = None
    repeat: Annotated[bool, typer.Option("--repeat", help="from the beginning again, until it is stopped")] = False
    parent: Annotated[int, typer.Option(hidden=True, help="id of the process to end with")] = 0


@taking(Options)
def play(given: Options) -> None:
    """Play a recording as real LSL outlets, starting 1 s after its consumers connect.

    Its ports are open to every network of this machine while it plays: liblsl cannot listen on the loopback alone.
    """
    import numpy as np

    from neds_core.data import session as sessions
    from neds_core.files import whole
    from neds_core.io import recording
    from runtime.config import check_seconds
    from runtime.io import system
    from runtime.io.lsl_player import Player, Pushes
    from runtime.io.lsl_resolve import configure

    check_seconds("--wait", given.wait)
    session = recording.load(given.recording)
    if others := sessions.left_out(session):
        print(f"spikes of {session.name} that are not sent: {others}", flush=True)
    if given.split is not Split.ALL:
        session = getattr(sessions.split(session), given.split.value)
    configure(given.session_id, "machine")
    system.raise_priority()  # it stands for an acquisition system, which has its own machine
    player = Player(session, given.prefix, given.behaviours.value, given.parent)
    print(
        f"{session.name}: {len(session.segments)} segments on {given.prefix}-spikes, waiting for a consumer; "
        "its ports are open to every network of this machine",
        flush=True,
    )
    player.wait(given.wait)
    print("a consumer has connected: the first segment starts in 1 s", flush=True)
    random = given.phase is Phase.RANDOM
    shift_ns = int(np.random.default_rng(given.seed).integers(0, session.bin_ns)) if random else 0
    pushes = None if given.pushes is None else Pushes(MOST_PUSHES)
    try:
        player.play(shift_ns, round(given.push_ms * 1e6), pushes, repeat=given.repeat)
    finally:
        if pushes is not None and given.pushes is not None:
            with whole(given.pushes) as partial, partial.open("wb") as file:
                np.save(file, pushes.kept())
    print(f"done, {player.sent} spikes sent", flush=True)
