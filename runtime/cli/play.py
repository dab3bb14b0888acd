"""`neds-rt play`: a recording as real LSL streams, in real time."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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


def play(
    recording: Annotated[Path, typer.Argument(help="a Session.npz")],
    split: Annotated[Split, typer.Option(help="part of the recording")] = Split.ALL,
    prefix: Annotated[
        str, typer.Option(help="streams are called PREFIX-spikes, PREFIX-markers, PREFIX-<behaviour>")
    ] = "neds-play",
    session_id: Annotated[str, typer.Option(help="LSL session the outlets live in")] = "neds-rt-replay",
    phase: Annotated[Phase, typer.Option(help="random shifts segments against the grid")] = Phase.GRID,
    behaviours: Annotated[Behaviours, typer.Option(help="content of the behaviour streams")] = Behaviours.RECORDED,
    wait: Annotated[float, typer.Option(help="seconds to wait for a consumer")] = 60.0,
    seed: Annotated[int, typer.Option(help="seed of the random phase")] = 0,
    parent: Annotated[int, typer.Option(hidden=True, help="id of the process to end with")] = 0,
) -> None:
    """Play a recording as real LSL outlets, starting 1 s after its consumers connect."""
    import numpy as np

    from neds_core.data import session as sessions, session_file
    from runtime.config import check_seconds
    from runtime.io import system as priority
    from runtime.io.lsl_player import Player
    from runtime.io.lsl_resolve import configure

    check_seconds("--wait", wait)
    session = session_file.load(recording)
    if split is not Split.ALL:
        session = getattr(sessions.split(session), split.value)
    configure(session_id, "machine")
    priority.raise_priority()  # it stands for an acquisition system, which has its own machine
    player = Player(session, prefix, behaviours.value, parent)
    print(f"{session.name}: {len(session.segments)} segments on {prefix}-spikes, waiting for a consumer", flush=True)
    player.wait(wait)
    print("a consumer has connected: the first segment starts in 1 s", flush=True)
    shift_ns = int(np.random.default_rng(seed).integers(0, session.bin_ns)) if phase is Phase.RANDOM else 0
    player.play(shift_ns)
    print(f"done, {player.sent} spikes sent", flush=True)
