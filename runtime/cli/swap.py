"""`neds-rt swap`, `rollback` and `freeze`: another decoder for a run that is going on, or none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtime.cli.output import emit, note

if TYPE_CHECKING:
    from runtime.io.control import Answer

RIG = Annotated[Path, typer.Argument(help="RIG.toml of the run, with [control] port")]
ADDRESS = Annotated[str, typer.Option(help="the run's control address, where control.port is 0")]
WAIT = Annotated[float, typer.Option(help="s that the run may take")]
JSON = Annotated[bool, typer.Option("--json", help="one JSON object as the last line")]


def swap(
    rig: RIG,
    checkpoint: Annotated[Path, typer.Argument(help="CHECKPOINT.safetensors that is to decode")],
    now: Annotated[bool, typer.Option("--now", help="as soon as no segment is open; else as control.swap_at")] = False,
    force: Annotated[bool, typer.Option("--force", help="also where no gate has passed; that is recorded")] = False,
    address: ADDRESS = "",
    wait: WAIT = 60.0,
    json: JSON = False,
) -> None:
    """Exchange the decoder of a run without stopping it. Exit code 3: no gate has passed, and no --force."""
    from calibration.swap import swap as change

    at = "now" if now else ""
    _show(change(address_of(rig, address), checkpoint, at, force, _seconds(wait), note), json)


def rollback(rig: RIG, address: ADDRESS = "", wait: WAIT = 60.0, json: JSON = False) -> None:
    """Go back to the decoder before the newest, or drop one that waits to take over."""
    from calibration.swap import roll_back

    _show(roll_back(address_of(rig, address), _seconds(wait), note), json)


def freeze(
    rig: RIG,
    off: Annotated[bool, typer.Option("--off", help="take swaps again")] = False,
    address: ADDRESS = "",
    wait: WAIT = 60.0,
    json: JSON = False,
) -> None:
    """Have a run keep its decoder: swaps are refused until `--off`. A rollback and a fallback still work."""
    from calibration.swap import freeze as hold

    _show(hold(address_of(rig, address), not off, _seconds(wait)), json)


def address_of(rig: Path, given: str) -> str:
    """Where the run of a rig takes requests: `given`, or what the rig says."""
    from calibration import swap as swaps
    from runtime import config as rigs

    config = rigs.load(rig, rigs.FirstDay)
    return given or swaps.address_of(config)


def _seconds(wait: float) -> float:
    from runtime import config as rigs

    rigs.check_seconds("--wait", wait)
    return wait


def _show(answer: Answer, as_json: bool) -> None:
    emit(answer, None if as_json or not answer.ok else lambda: [answer.said], as_json)
    if not answer.ok:
        note(f"neds-rt: {answer.said}")
        raise typer.Exit(3 if answer.by_gate else 2)
