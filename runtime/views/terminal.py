"""The live terminal view: a subscriber in a process of its own. `python -m runtime.views.terminal ADDRESS RIG`.

What it shows is at most `STALE_MS` old, or it says STALE and shows no numbers.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
from collections import deque
from datetime import UTC, datetime
from typing import NamedTuple

import zmq
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from runtime.client import WITHHELD, Subscriber, unpack
from runtime.console import open_console
from runtime.views.glyphs import TRACE_NS, Trace, big
from runtime.views.model import Measured, Shown
from runtime.wire import Decode, Flag, Output, Status, topic

STALE_MS, STATUS_STALE_MS = 200, 2500
DRAW_NS = 100_000_000
NONE = "—"
MODES = {"DEMO": "magenta", "REPLAY": "yellow", "LIVE": "green", "SYNTHETIC": "cyan", "OTHER": "white", "WAIT": "white"}
STALE = "red"
ALARMS = {"FAULT": STALE, "LOST": STALE, "STALLED": STALE, "DEGRADED": "yellow"}
ALARM_WORDS = {
    "FAULT": "the input is not what the decoder was trained on; values are withheld",
    "LOST": "the spike stream has sent nothing for 15 s; look at its sender",
    "STALLED": "the spike stream sends nothing; values are withheld",
    "DEGRADED": "part of the input is unusable",
}
LOSSES = (
    "late",
    "lost",
    "dropped",
    "quarantined",
    "out",
    "superseded",
    "invalid",
    "bad",
    "misses",
    "jumps",
    "resent",
)


def number(value: float | None, digits: int = 1) -> str:
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def facts(**pairs: object) -> Text:
    """`name value` pairs on one line, the values bright."""
    line = Text(no_wrap=True, overflow="ellipsis")
    for name, value in pairs.items():
        line.append(f"{name.replace('_', ' ')} ", "dim").append(f"{' '.join(str(value).split())}   ")
    return line


def age(created: str, now: datetime) -> str:
    """Age of a time stamp in ISO 8601 in its largest whole unit."""
    try:
        then = datetime.fromisoformat(created)
    except ValueError:
        return "of unknown age"
    seconds = (now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} old"
    return "new"


def head(state: Shown, decode: Decode | None, status: Status | None, words: dict[str, str]) -> Table:
    """The mode in large letters beside what runs."""
    known, live, model = state.decode or state.status, decode or status, state.status
    segment = status.segment if status else None
    lines = [
        facts(
            state=live.state if live else NONE,
            segment=NONE if segment is None else segment,
            marker=(status.last_marker if status else "") or NONE,
            flags=" ".join(flag.name or "" for flag in Flag if decode and decode.flags & flag) or NONE,
        ),
        facts(
            decoder=known.decoder if known else NONE,
            engine=known.engine if known else NONE,
            model=f"{model.model} {model.model_sha[:8]}, {age(model.model_created, state.now)}" if model else NONE,
        ),
        facts(
            units=f"{status.units_seen}/{status.units_expected}" if status else NONE,
            population=f"{status.population_rate_hz:.0f} Hz" if status else NONE,
            inputs=", ".join(decode.inputs) if decode else NONE,
        ),
    ]
    grid = Table.grid(padding=(0, 3, 0, 0), expand=True)
    for word in words:
        grid.add_column(width=4 * len(word))
    grid.add_column(ratio=1)
    grid.add_row(*(Text(big(word), f"bold {style}") for word, style in words.items()), Group(*lines))
    return grid


def continuous(grid: Table, state: Shown, name: str, unit: str, output: Output | None) -> None:
    """Two rows: the decoded trace in its band of one sd, and the measured one, on one scale and at one time."""
    decoded, measured = state.decoded.get(name, deque()), state.measured.get(name, deque())
    edges = tuple(traces[name] for traces in (state.lower, state.upper) if name in traces)
    newest_ns = state.decode.t_end_ns if state.decode else 0
    told = state.decode.outputs.get(name) if state.decode else None
    lead_ms = (told and told.lead_ms) or 0.0
    right_ns = newest_ns + state.now_ns - state.decode_at_ns + round(lead_ms * 1e6)
    shown = [v for trace in (decoded, measured, *edges) for t, v in trace if v is not None and t > right_ns - TRACE_NS]
    low, high = (min(shown), max(shown)) if shown else (0.0, 1.0)
    scale = f"{low:.3g} … {high:.3g} {unit}" if shown else unit
    high = high if high > low else low + 1.0
    known = output if output and state.decode and not state.decode.flags & WITHHELD else Output()
    spread = "" if known.sd is None else f" ± {number(known.sd, 2)}"
    seen = measured[-1][1] if output and measured and measured[-1][0] > newest_ns - TRACE_NS / 6 else None
    grid.add_row(
        Text(f"{name}{f' +{lead_ms:g} ms' if lead_ms else ''}\n", "bold").append(scale, "not bold dim"),
        Text(f"decoded\n{number(known.value, 3)}{spread}", "cyan"),
        Trace(decoded, right_ns, low, high, "cyan", edges),
    )
    grid.add_row("", Text(f"measured\n{number(seen, 3)}"), Trace(measured, right_ns, low, high, "default"))


def classes(grid: Table, name: str, labels: list[str], output: Output | None) -> None:
    """One bar a class; empty where there is no estimate."""
    probs = output.probs if output and output.probs else [None] * max(len(labels), 1)
    for i, prob in enumerate(probs):
        label = labels[i] if i < len(labels) else str(i)
        bar = "" if prob is None or not math.isfinite(prob) else "█" * round(40 * min(max(prob, 0.0), 1.0))
        grid.add_row(Text("" if i else name, "bold"), Text(f"{label} {number(prob, 2)}"), Text(bar, "cyan"))


def angle(grid: Table, state: Shown, group: str, cos: str, sin: str) -> None:
    """One row: the angle of which two outputs are the cosine and the sine, decoded and measured, in degrees."""
    newest_ns = state.decode.t_end_ns if state.decode else 0

    def degrees(traces: dict[str, deque[tuple[int, float | None]]]) -> str:
        ends = [traces[name][-1] for name in (cos, sin) if traces.get(name)]
        x, y = (value for _, value in ends) if len(ends) == 2 else (None, None)
        fresh = all(t > newest_ns - TRACE_NS / 6 for t, _ in ends)
        return NONE if x is None or y is None or not fresh else f"{math.degrees(math.atan2(y, x)) % 360:.0f}°"

    text = Text(f"decoded {degrees(state.decoded)}   ", "cyan").append(f"measured {degrees(state.measured)}", "default")
    grid.add_row(Text(group, "bold"), "", text)


def outputs(state: Shown, decode: Decode | None) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(width=20)
    grid.add_column(width=14)
    grid.add_column(ratio=1)
    infos = {info.name: info for info in state.status.outputs} if state.status else {}
    last = state.decode.outputs if state.decode else {}
    for name in infos or last:
        output = decode.outputs.get(name) if decode else None
        info = infos.get(name)
        if (info.kind == "class") if info else last[name].probs is not None:
            withheld = decode is not None and decode.flags & WITHHELD
            classes(grid, name, info.classes if info else [], None if withheld else output)
        else:
            continuous(grid, state, name, info.unit if info else "", output)
    sides = {(info.group, info.angle): name for name, info in infos.items() if info.angle}
    for group, side in sides:
        if side == "cos" and decode and (sine := sides.get((group, "sin"))):
            angle(grid, state, group, sides[group, side], sine)
    return grid


def counts(counters: dict[str, int]) -> list[Text]:
    """Counters by kind, losses in yellow."""
    lines = {"spikes": Text("spikes  ", "dim"), "tokens": Text("tokens  ", "dim"), "other": Text("other   ", "dim")}
    for key, count in counters.items():
        kind, _, rest = key.partition("_")
        line, name = (lines[kind], rest) if kind in ("spikes", "tokens") else (lines["other"], key)
        loss = count > 0 and any(word in LOSSES for word in key.split("_"))
        line.append(f"{name.replace('_', ' ')} ", "dim").append(f"{count}   ", "bold yellow" if loss else "not dim")
    return list(lines.values())


def mode_of(source: str, rig: str) -> str:
    """The word in large letters; a source that is not known is never called LIVE."""
    if (source, rig) == ("replay", "demo"):
        return "DEMO"
    return source.upper() if source.upper() in MODES else "OTHER"


class Alarm(NamedTuple):
    """A word in large letters, its colour, and what is wrong in one sentence."""

    word: str
    style: str
    sentence: str


def alarm_of(decode: Decode | None, status: Status | None) -> Alarm | None:
    """What the operator has to know first: red where nothing is decoded that should be, yellow where it is doubtful."""
    word = decode.state if decode is not None else ""
    if word not in ALARMS:
        return None
    reason = status.reason if status is not None else ""
    return Alarm(word, ALARMS[word], f"{word}: {reason or ALARM_WORDS[word]}")


def render(state: Shown) -> RenderableType:
    """The whole picture. Pure: no clock, no socket."""
    silent_ms = (state.now_ns - state.decode_at_ns) / 1e6
    decode = state.decode if silent_ms <= STALE_MS else None
    stale = state.decode is not None and decode is None
    status_ms = (state.now_ns - state.status_at_ns) / 1e6
    status = state.status if status_ms <= STATUS_STALE_MS and not stale else None
    known = state.decode or state.status
    mode = mode_of(known.source, state.rig) if known else "WAIT"
    words = {mode: MODES[mode]}
    notes: list[RenderableType] = []
    if state.decode is None:
        notes.append(Text(f"waiting for the first message of rig {state.rig} at {state.address}"))
    elif stale:
        words["STALE"] = STALE
        note = f"STALE: no fresh message for {silent_ms / 1000:.1f} s; do not act on it"
        notes.append(Text(note, f"bold white on {STALE}"))
    elif alarm := alarm_of(decode, status):
        words[alarm.word] = alarm.style
        notes.append(Text(alarm.sentence, f"bold white on {alarm.style}" if alarm.style == STALE else alarm.style))
    recent = status.edge_to_pub_ms if status else {}
    timing = [
        facts(
            edge_to_pub_last_minute=" · ".join(f"{p} {number(recent.get(p))}" for p in ("p50", "p99", "max")) + " ms",
            misses=f"{status.misses_last_minute} (budget {status.budget_ms:.0f} ms)" if status else NONE,
        ),
        facts(
            edge_to_pub_now=f"{number(decode.edge_to_pub_ms if decode else None)} ms",
            infer=f"{number(decode.infer_ms if decode else None)} ms",
            newest_spike=f"{number(decode.age_ms if decode else None)} ms",
            this_view=f"{state.refused} too old, {state.missed} skipped",
        ),
    ]
    tail = counts(status.counters) if status else [Text(f"counters {NONE}", "dim")]
    body = Group(head(state, decode, status, words), "", outputs(state, decode), "", *notes, *timing, *tail)
    style = list(words.values())[-1]  # of the alarm, where there is one
    return Panel(body, title=Text(f"neds-rt  {mode}  rig {state.rig}"), border_style=style)


def main(address: str, rig: str) -> None:
    """Show a rig until its run ends, a signal comes, or the process that started this one is gone."""
    stopped: list[int] = []
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda caught, _: stopped.append(caught))
    parent, state, console = os.getppid(), Shown(address, rig), Console()
    with (
        Subscriber(address, rig, max_age_ms=STALE_MS) as link,
        zmq.Context() as context,
        context.socket(zmq.SUB) as socket,
        Live(console=console, screen=console.is_terminal, auto_refresh=False) as live,
    ):
        socket.subscribe(topic("measured", rig))
        socket.connect(address)
        drawn_ns = 0
        while not (stopped or link.ended or os.getppid() != parent):
            follow(state, link, socket)
            if state.now_ns - drawn_ns >= DRAW_NS:
                drawn_ns = state.now_ns
                live.update(render(state), refresh=True)


def follow(state: Shown, link: Subscriber, measured: zmq.Socket[bytes]) -> None:
    """Wait up to one bin for news and take it in."""
    message, status = link.receive(timeout_ms=20), link.status()
    state.now_ns, state.now = time.monotonic_ns(), datetime.now(UTC)
    state.refused, state.missed = link.stale, link.missed
    if message is not None:
        state.take_decode(message)
    if status is not state.status:
        state.status, state.status_at_ns = status, state.now_ns
    while measured.poll(0):
        values = unpack(measured.recv_multipart()[-1], Measured)
        if values is not None:
            state.take_measured(values)


if __name__ == "__main__":
    open_console("replace")  # one place for each character: it is a picture
    with contextlib.suppress(OSError):
        os.nice(10)  # a picture may be late; the decoder may not
    main(*sys.argv[1:3])
