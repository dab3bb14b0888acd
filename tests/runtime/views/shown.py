"""States of a run for a view: what it was sent, and what it draws of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from io import StringIO

import msgspec
from rich.cells import cell_len
from rich.console import Console

from runtime.views.model import Measured, Shown
from runtime.views.picture import render
from runtime.wire import Decode, Flag, Output, OutputInfo, Status

BIN_NS = 20_000_000
ADDRESS = "tcp://127.0.0.1:5571"


def decode(token: int, *, flags: int = 0, source: str = "live", n: int = 1, state: str = "") -> Decode:
    """The message of a bin with a class and n continuous outputs."""
    null = bool(flags & (Flag.GAP | Flag.HOLD | Flag.IDLE))
    outputs = {name: Output(value=1.234) for name in names(n)} | {"choice": Output(probs=[0.25, 0.75])}
    return Decode(
        schema=1, seq=token, token=token, t_end_ns=token * BIN_NS, t_pub_ns=token * BIN_NS + 5_000_000,
        boot_id="boot", source=source, inputs=["spikes"], decoder="neds", engine="numba stream",
        outputs=dict.fromkeys(outputs, Output()) if null else outputs,
        age_ms=11.1, infer_ms=2.2, edge_to_pub_ms=5.5, state=state or ("IDLE" if flags & Flag.IDLE else "RUNNING"),
        flags=flags, valid_until_ns=0, valid_for_ms=55.0, model_sha="0123456789", unit_map_sha="u",
    )  # fmt: skip


def names(n: int) -> list[str]:
    """Of n continuous outputs."""
    return ["wheel_speed", *(f"whisker_motion_energy_{i}" for i in range(1, n))][:n]


def status(source: str = "live", n: int = 1) -> Status:
    """A status with losses, a miss in the last minute, and counters of its own."""
    kinds = [*((name, "continuous", "rad/s", []) for name in names(n)), ("choice", "class", "", ["left", "right"])]
    outputs = [OutputInfo(name, kind, unit, "", "", 0.0, "measured", classes) for name, kind, unit, classes in kinds]
    return Status(
        schema=1, rig="rig", boot_id="boot", source=source, state="RUNNING", t_pub_ns=0, decoder="neds",
        engine="numba stream", model="mouse", model_sha="0123456789", model_created="2025-03-01T10:00:00+00:00",
        unit_map_sha="u", outputs=outputs, flag_names={}, counters={"spikes_late": 17, "tokens_closed": 400, "odd": 3},
        edge_to_pub_ms={"p50": 3.3, "p99": 7.7, "max": 18.8}, misses_last_minute=6, units_seen=104, units_expected=105,
        population_rate_hz=612.0, segment=9, last_marker="stim", measured={}, budget_ms=20.0,
    )  # fmt: skip


def after(
    n: int = 100, *, flags: int = 0, source: str = "live", rig: str = "rig", silent_ms: float = 5.0, outputs: int = 1
) -> Shown:
    """The state after n bins, the last of them with these flags."""
    state = Shown(ADDRESS, rig, now=datetime(2025, 3, 3, 12, tzinfo=UTC))
    for token in range(1, n + 1):
        state.now_ns = token * BIN_NS + 5_000_000
        state.take_decode(decode(token, flags=flags if token == n else 0, source=source, n=outputs))
        state.take_measured(Measured(state.now_ns, dict.fromkeys(names(outputs), 1.5)))
    state.status, state.status_at_ns = status(source, outputs), state.now_ns
    state.now_ns += int(silent_ms * 1e6)
    return state


def becomes(shown: Shown, state: str, *, flags: int = 0, bins: int = 1, reason: str = "", since_ns: int = 0) -> Shown:
    """The next bins are in this state, and the status that comes with the last of them says so too."""
    assert shown.decode is not None
    assert shown.status is not None
    first, n = shown.decode.token + 1, len(shown.decode.outputs) - 1
    for token in range(first, first + bins):
        shown.now_ns = token * BIN_NS + 5_000_000
        shown.take_decode(decode(token, flags=flags, state=state, n=n))
    shown.status = msgspec.structs.replace(
        shown.status, state=state, t_pub_ns=shown.now_ns, reason=reason, state_since_ns=since_ns
    )
    shown.status_at_ns = shown.now_ns
    return shown


def drawn(state: Shown, width: int = 100, height: int = 40) -> str:
    """What is on a console of this size."""
    console = Console(record=True, width=width, height=height, file=StringIO(), force_terminal=True)
    console.print(render(state, width, height))
    return console.export_text()


def one_line(text: str) -> str:
    """Without frame and line ends, so that a sentence reads through."""
    return " ".join(re.sub("[│╭╮╰╯]", " ", text).split())


def fits(text: str, width: int, height: int) -> bool:
    """Whether a drawn text is no larger than a console."""
    lines = text.splitlines()
    return len(lines) <= height and max(map(cell_len, lines), default=0) <= width
