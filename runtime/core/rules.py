"""What a pipeline is told of bins: how they close, what makes one valid, and the flags that say how one was."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.core.values import Token
from runtime.wire import Flag


@dataclass(frozen=True, slots=True)
class Rules:
    """How bins close and what makes one valid.

    A bin closes when the stream is complete up to its edge (by a keep-alive, or by a later spike of an ordered
    stream), or lateness_ns after its edge. silence_ns: a bin is without live data when the newest stamp is older than
    its start by more than this (0 for a stream with keep-alives). keep_alive: the stream has keep-alives, so that a bin
    that closed by the clock may lack spikes. markers: decode only between segment_start and segment_end, cold from each
    start. longest_ns: a segment that is not ended by then is closed, 0 = never. far_ns: a mark further from now is of
    another clock, 0 = none is; the end of a segment whose start was taken may lie further ahead.
    """

    lateness_ns: int = 5_000_000
    silence_ns: int = 0
    markers: bool = False
    keep_alive: bool = False
    longest_ns: int = 0
    far_ns: int = 0


IDLE, GAP, PARTIAL, LATE, COARSE_STAMPS, RESENT = (
    int(flag) for flag in (Flag.IDLE, Flag.GAP, Flag.PARTIAL, Flag.LATE, Flag.COARSE_STAMPS, Flag.RESENT)
)


def flags_of(token: Token, *, partial: bool) -> int:
    """What was unusual about a closed bin. partial: it closed before its sender had said that it was complete."""
    flags = 0  # a sum of plain ints: an enumeration's takes a microsecond for each
    if token.idle:
        flags |= IDLE
    elif not token.valid:
        flags |= GAP
    elif partial:
        flags |= PARTIAL
    if token.late:
        flags |= LATE
    if token.coarse:
        flags |= COARSE_STAMPS
    if token.resent:
        flags |= RESENT
    return flags
