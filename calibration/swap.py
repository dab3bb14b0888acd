"""Have a run that is going on decode with another checkpoint, or with the one before again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from neds_core.errors import CheckpointError, ConfigError
from neds_core.files import sha256
from runtime.config import RigConfig
from runtime.io.control import Answer, Freeze, Rollback, State, Swap, ask

LOOK_S = 0.2  # between two looks at whether it has been taken over


def address_of(config: RigConfig) -> str:
    """Where the run of a rig takes requests. Raises `ConfigError` where the rig does not say."""
    port = config.control.port
    if not port:
        what = "is not set, so its runs take no requests; set it" if port is None else "is 0: give the printed address"
        raise ConfigError(f"control.port {what} (control.port in rig.toml, --address tcp://127.0.0.1:PORT)")
    return f"tcp://127.0.0.1:{port}"


def swap(
    address: str,
    checkpoint: Path,
    at: Literal["", "iti", "now"] = "",
    force: bool = False,
    wait_s: float = 60.0,
    waits: Callable[[str], None] = lambda said: None,
    expect: str = "",
) -> Answer:
    """Decode with a checkpoint. at: '' = as the rig says; force: also where its gate has not passed; expect: SHA-256 of
    what must be decoding, '' = any.

    Returns when it has taken over, or is refused (`ok` is False). wait_s: how long that may take; waits: told that it
    is under way. Raises `StreamError` where no run answers, `CheckpointError` where there is no such file.
    """
    path = checkpoint.resolve()
    try:
        own = sha256(path)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({error.strerror}); check the path") from None
    return _taken(address, ask(address, Swap(str(path), own, at, force, expect), wait_s), wait_s, waits)


def roll_back(address: str, wait_s: float = 60.0, waits: Callable[[str], None] = lambda said: None) -> Answer:
    """Decode with the checkpoint before the newest again; one that waits to take over is dropped. See `swap`."""
    return _taken(address, ask(address, Rollback(), wait_s), wait_s, waits)


def freeze(address: str, on: bool = True, wait_s: float = 60.0) -> Answer:
    """Have a run refuse swaps, or take them again. Raises `StreamError` where no run answers."""
    return ask(address, Freeze(on), wait_s)


def _taken(address: str, answer: Answer, wait_s: float, waits: Callable[[str], None]) -> Answer:
    """The answer once the loop has taken over what it promises; not ok where that does not come about."""
    begun = answer.running
    if not answer.ok or begun is None or begun.waiting is None:
        return answer
    waits(answer.said)
    wanted, deadline = begun.waiting, time.monotonic() + wait_s
    while time.monotonic() < deadline:
        found = ask(address, State(), wait_s)
        running = found.running
        if running is not None and running.exchanges > begun.exchanges:
            same = running.model_sha == wanted.model_sha and running.why == wanted.why
            said = f"{running.model} ({running.model_sha[:12]}) decodes from bin {running.since} on ({running.why})"
            return Answer(same, said, running=running)
        if running is None or running.waiting is None:
            by = f"; {running.model} ({running.model_sha[:12]}) decodes" if running is not None else ""
            return Answer(False, f"{wanted.model} was dropped before it took over{by}", running=running)
        time.sleep(LOOK_S)
    return Answer(
        False, f"{wanted.model} still waits after {wait_s:g} s and takes over later; `neds-rt rollback` drops it",
        running=begun,
    )  # fmt: skip
