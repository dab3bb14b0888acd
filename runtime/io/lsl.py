"""LSL at the edge: discovery settings, the description block of a spike stream, the clock mapping."""

from __future__ import annotations

import math
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass

import pylsl
from pylsl.util import LostError, TimeoutError as LslTimeout

from neds_core.data.session import UnitTable
from neds_core.errors import StreamError

SCHEMA = "1"
PORT_RANGE = 256  # liblsl's own 32 are used up by 16 outlets on a machine; the next cannot be found
LAYOUT = "events_unit"
SOURCES = ("live", "replay", "synthetic")
REPLAY_SESSION = "neds-rt-replay"
SAME_CLOCK_S = 1e-3  # a stream of this host within this offset stamps with this very clock
PROBE_S = 2.0
JUMP_NS = 5_000_000
INTEGERS = (pylsl.cf_int8, pylsl.cf_int16, pylsl.cf_int32, pylsl.cf_int64)
RESOLVE_S = 1.5  # of one search: three rounds of liblsl's questions
TWIN_S = 0.7  # liblsl asks every sender only half a second after the first has answered


def configure(session_id: str, resolve_scope: str, known_peers: tuple[str, ...] = ()) -> None:
    """Set liblsl's discovery for this process. Must come before the first LSL call."""
    peers = ", ".join(known_peers or (("127.0.0.1",) if resolve_scope == "machine" else ()))
    content = (
        f"[multicast]\nResolveScope = {resolve_scope}\n"
        f"[ports]\nPortRange = {PORT_RANGE}\n"
        f"[lab]\nSessionID = {session_id}\nKnownPeers = {{{peers}}}\n"
        "[log]\nlevel = -3\n"
    )
    pylsl.set_config_content(content)


def now_ns() -> int:
    """The LSL clock of this machine in ns."""
    return round(pylsl.local_clock() * 1e9)


@dataclass(frozen=True, slots=True)
class Description:
    """The `neds_rt` block of a spike stream."""

    layout: str
    source: str  # live | replay | synthetic
    keep_alive: bool
    unit_map_sha: str
    rate_hz: float


def describe(info: pylsl.StreamInfo, units: UnitTable, source: str, rate_hz: float) -> None:
    """Write the block into a stream's description, unit table included."""
    block = info.desc().append_child("neds_rt")
    for key, value in {
        "schema": SCHEMA, "layout": LAYOUT, "source": source, "keep_alive": "1", "clock": "lsl", "stamp": "spike",
        "id_base": "0", "unit_map_sha256": units.sha256, "rate_hz": f"{rate_hz:.1f}",
    }.items():  # fmt: skip
        block.append_child_value(key, value)
    table = block.append_child("units")
    for row, (uid, region) in enumerate(zip(units.ids, units.region, strict=True)):
        unit = table.append_child("unit")
        unit.append_child_value("id", str(row))
        unit.append_child_value("source_id", str(uid))
        unit.append_child_value("region", str(region))


def read_description(info: pylsl.StreamInfo) -> Description:
    """The block of a stream that claims to carry spikes. Raises `StreamError` where there is none."""
    block = info.desc().child("neds_rt")
    if block.empty():
        raise StreamError(
            f"stream {info.name()!r} has no neds_rt description, so its units are unknown; "
            "declare layout and unit map in its desc (docs/lsl.md)"
        )
    layout = block.child_value("layout")
    if layout != LAYOUT or info.channel_count() != 1 or info.channel_format() != pylsl.cf_int32:
        raise StreamError(
            f"stream {info.name()!r} has layout {layout!r}, {info.channel_count()} channels; "
            f"send one int32 channel with layout {LAYOUT!r}"
        )
    if block.child_value("clock") != "lsl":
        raise StreamError(f"stream {info.name()!r} stamps with a clock of its own; stamp with LSL local_clock()")
    for key, wanted in {"schema": SCHEMA, "id_base": "0", "stamp": "spike"}.items():
        if block.child_value(key) != wanted:
            raise StreamError(
                f"stream {info.name()!r} declares {key} {block.child_value(key)!r}; send {wanted!r} (docs/lsl.md)"
            )
    if block.child_value("source") not in SOURCES:
        raise StreamError(
            f"stream {info.name()!r} declares source {block.child_value('source')!r}; say one of {', '.join(SOURCES)}"
        )
    return Description(
        layout,
        block.child_value("source"),
        block.child_value("keep_alive") == "1",
        block.child_value("unit_map_sha256"),
        _rate_hz(info.name(), block.child_value("rate_hz")),
    )


def _rate_hz(name: str, text: str) -> float:
    """The declared mean rate of a stream, 0 where it declares none."""
    try:
        rate = float(text or 0.0)
    except ValueError:
        rate = math.nan
    if not 0.0 <= rate < 1e8:
        raise StreamError(f"stream {name!r} declares rate_hz {text!r}; give its mean number of spikes a second")
    return rate


def resolve(name: str, wait_s: float, source_id: str = "") -> pylsl.StreamInfo:
    """The first stream found with this name (see `refuse_twins`). Raises `StreamError` if there is none."""
    deadline, found = time.monotonic() + wait_s, []
    while not found and (left := deadline - time.monotonic()) > 0:  # in slices: a signal is heard between two of them
        found = pylsl.resolve_bypred(_predicate(name, source_id), minimum=1, timeout=min(left, RESOLVE_S))
    if not found:
        raise StreamError(f"stream {name!r} was not found in {wait_s:g} s; start its sender or raise input.wait_s")
    if not found[0].source_id():
        raise StreamError(f"stream {name!r} has no source_id, so LSL could not find it again; set one in its sender")
    return found[0]


def resolve_text(name: str, wait_s: float) -> pylsl.StreamInfo:
    """A stream of one channel of text (see `resolve`)."""
    return _one_channel(resolve(name, wait_s), "text", (pylsl.cf_string,))


def resolve_number(name: str, wait_s: float) -> pylsl.StreamInfo:
    """A stream of one channel of numbers (see `resolve`)."""
    return _one_channel(resolve(name, wait_s), "numbers", (pylsl.cf_float32, pylsl.cf_double64, *INTEGERS))


def _one_channel(info: pylsl.StreamInfo, kind: str, formats: tuple[int, ...]) -> pylsl.StreamInfo:
    if info.channel_count() != 1 or info.channel_format() not in formats:
        raise StreamError(f"stream {info.name()!r} is not one channel of {kind}; name a stream that is")
    return info


def refuse_twins(wanted: dict[str, str]) -> None:
    """Raise `StreamError` where two streams go by one name. wanted: name -> source_id, or '' for any."""
    either = " or ".join(f"({_predicate(name, source_id)})" for name, source_id in wanted.items())
    found = {i.uid(): i for i in pylsl.resolve_bypred(either, minimum=len(wanted) + 1, timeout=TWIN_S)}.values()
    for name in wanted:
        senders = sorted(f"{i.hostname()} ({i.source_id()})" for i in found if i.name() == name)
        if len(senders) > 1:
            raise StreamError(
                f"{len(senders)} streams are called {name!r}: {', '.join(senders)}; "
                "stop all but one, or set input.spikes_source_id"
            )


def _predicate(name: str, source_id: str) -> str:
    return f"name='{name}'" + (f" and source_id='{source_id}'" if source_id else "")


class ClockMap:
    """Offset from a sender's clock to ours, probed off the loop and frozen between probes.

    A stream of this host whose offset is within 1 ms uses this very clock: its offset is 0
    by fact, not by estimate.
    """

    def __init__(self, inlet: pylsl.StreamInlet, info: pylsl.StreamInfo) -> None:
        self.inlet, self.name = inlet, info.name()
        self.same_host = info.hostname() == socket.gethostname()
        self.offset_ns = 0
        self.jumps = 0
        self._recent: deque[float] = deque(maxlen=15)
        self._stop, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._probe, name="lsl-clock", daemon=True)

    def start(self) -> None:
        """Probe in the background: at once (the first takes most of a second), then every 2 s."""
        if not self._thread.is_alive():
            self._thread.start()

    def wait(self, timeout_s: float = 10.0) -> None:
        """Until the first probe is done. Raises `StreamError` where it never is."""
        if not self._ready.wait(timeout_s):
            raise StreamError(f"the sender of {self.name!r} does not answer clock probes; restart it")

    def stop(self) -> None:
        """End the probes."""
        self._stop.set()

    def _probe(self) -> None:
        self._update(8.0)
        while not self._stop.wait(PROBE_S):
            self._update(1.0)

    def _update(self, timeout_s: float) -> None:
        try:
            offset = self.inlet.time_correction(timeout_s)
        except (LslTimeout, LostError):
            return  # the last offset holds; liveness is judged by samples, never by probes
        self._recent.append(offset)
        newest = list(self._recent)[-2:]
        if self._ready.is_set() and all(abs(o * 1e9 - self.offset_ns) > JUMP_NS for o in newest):
            self.jumps += 1  # one probe may be a hiccup, two are a clock that stepped
            self._recent = deque(newest, self._recent.maxlen)
        middle = statistics.median(self._recent)
        if self.same_host and abs(middle) < SAME_CLOCK_S:
            middle = 0.0
        self.offset_ns = round(middle * 1e9)
        self._ready.set()


def where_else(name: str, session_id: str, wait_s: float = 3.0) -> str:
    """What to set so that a stream missing on this machine is seen, or '' if it is nowhere near.

    Discovery is fixed for a process by its first LSL call, so another process looks.
    """
    for scope, session in (("link", session_id), ("machine", REPLAY_SESSION)):
        if session == session_id and scope == "machine":
            continue
        command = [sys.executable, "-m", "runtime.io.lsl", name, scope, session, str(wait_s)]
        found = subprocess.run(command, capture_output=True, text=True, timeout=wait_s + 20, check=False).stdout.strip()
        if found and session == REPLAY_SESSION:
            return "`neds-rt play` offers it; add --allow-replay"
        if found:
            return f'{found} offers it on the link; set lsl.resolve_scope = "link"'
    return ""


def _look(name: str, scope: str, session_id: str, wait_s: str) -> None:
    configure(session_id, scope)
    found = pylsl.resolve_byprop("name", name, minimum=1, timeout=float(wait_s))
    print(", ".join(sorted({info.hostname() for info in found})))


if __name__ == "__main__":
    _look(*sys.argv[1:5])
