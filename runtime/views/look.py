"""What may be shown of a run at a moment, and how urgent it is. Pure: knowledge in, words and colours out.

What is shown is at most `STALE_MS` old (counters and words that come once a second: `STATUS_STALE_MS`), or it is STALE
and there are no numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.views.model import Shown, same
from runtime.wire import Decode, Status

STALE_MS, STATUS_STALE_MS = 200, 2500
GREEN, AMBER, RED = "green", "yellow", "red"
TONES = {"READY": GREEN, "RUNNING": GREEN, "STALLED": RED, "LOST": RED, "FAULT": RED, "ENDED": "white"}  # else AMBER
MODES = {
    "DEMO": "magenta",
    "REPLAY": "magenta",
    "SYNTHETIC": "magenta",
    "LIVE": "blue",
    "OTHER": "white",
    "WAIT": "white",
}
ALARM_WORDS = {
    "FAULT": "the input is not what the decoder was trained on; values are withheld",
    "LOST": "the spike stream sends nothing; look at its sender",
    "STALLED": "the spike stream sends nothing; values are withheld",
    "DEGRADED": "part of the input is unusable",
}
MISSED_SHARE = 0.01  # of the bins of the last minute: more is red
MINUTE_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Look:
    """decode, status: what is fresh, else None. word: the state, its colour is tone. sentence: what is wrong, '' =
    nothing. mode: where the spikes come from.
    """

    shown: Shown
    decode: Decode | None
    status: Status | None
    mode: str
    word: str
    tone: str
    sentence: str

    @property
    def alarmed(self) -> bool:
        """Whether the word has to be seen from across the room."""
        return self.word in ALARM_WORDS or self.word == "STALE"


def look_at(shown: Shown) -> Look:
    """What may be shown now."""
    silent_ms = (shown.now_ns - shown.decode_at_ns) / 1e6
    decode = shown.decode if silent_ms <= STALE_MS else None
    stale = shown.decode is not None and decode is None
    known_ms = (shown.now_ns - shown.status_at_ns) / 1e6
    status = shown.status if known_ms <= STATUS_STALE_MS and not stale else None
    known = shown.decode or shown.status
    mode = mode_of(known.source, shown.rig) if known else "WAIT"
    if decode is not None:
        word = decode.state
        return Look(shown, decode, status, mode, word, TONES.get(word, AMBER), sentence(shown, decode, status))
    if stale:
        said = f"STALE: no fresh message for {lasted(silent_ms / 1e3)} from {shown.address}; do not act on it"
        return Look(shown, None, None, mode, "STALE", RED, said)
    said = f"waiting for the first message of rig {shown.rig} at {shown.address}"
    return Look(shown, None, status, mode, "", AMBER, said)


def mode_of(source: str, rig: str) -> str:
    """Where the spikes come from; a source that is not known is never called LIVE."""
    if (source, rig) == ("replay", "demo"):
        return "DEMO"
    return source.upper() if source.upper() in MODES else "OTHER"


def sentence(shown: Shown, decode: Decode, status: Status | None) -> str:
    """What is wrong, for how long, and why; '' = nothing is."""
    word = decode.state
    if word not in ALARM_WORDS:
        return ""
    since_ns, reason = shown.since_ns, ""
    if status is not None and same(status.state, word) and status.t_pub_ns >= since_ns:
        since_ns, reason = status.state_since_ns or since_ns, status.reason
    now_ns = decode.t_pub_ns + shown.now_ns - shown.decode_at_ns
    return f"{word} for {lasted(max(0, now_ns - since_ns) / 1e9)}: {reason or ALARM_WORDS[word]}"


def lasted(seconds: float) -> str:
    """A duration in the units of its size."""
    if seconds < 60.0:
        return f"{seconds:.1f} s"
    minutes, s = divmod(int(seconds), 60)
    return f"{minutes} min {s} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def tone_of_latency(took_ms: float | None, budget_ms: float) -> str:
    """Amber beyond the budget."""
    return AMBER if took_ms is not None and took_ms > budget_ms else GREEN


def share_of_misses(look: Look) -> float | None:
    """Misses in the bins of the last minute, as far as the run is that old; None where it is not known."""
    status, bin_ns = look.status, look.shown.bin_ns
    if status is None or bin_ns <= 0:
        return None
    bins = min(MINUTE_NS / bin_ns, status.counters.get("tokens_closed", MINUTE_NS))
    return status.misses_last_minute / bins if bins > 0 else None


def tone_of_misses(misses: int, share: float | None) -> str:
    """Amber where there are any, red where they are more than `MISSED_SHARE`."""
    if misses == 0:
        return GREEN
    return RED if share is not None and share > MISSED_SHARE else AMBER
