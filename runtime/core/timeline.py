"""A recording laid out in time as it is played: segments one after the other, with gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neds_core.data.session import Session

GAP_BINS, GAP_NS = 25, 500_000_000  # between segments, at least: 0.5 s at 20 ms a bin
MARGIN_NS = 2_000_000  # spikes made from counts keep this far from the edges of their bin
INSIDE_NS = 1_000_000  # markers and behaviour are stamped this far inside their bin
EDGE_SHARE = 4  # both are at most this part of a bin
SPREAD_SEED = 20_130_607


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment on the play's own time line, in ns from its first edge."""

    number: int
    first_bin: int  # in the recording
    n_bins: int
    start_ns: int
    t_ns: np.ndarray  # (n,) int64, sorted, relative to the time line
    unit: np.ndarray  # (n,) int32
    labels: dict[str, str]
    stands: dict[str, float]  # where traces stand when it begins, as far as the recording knows


def gap_bins(bin_ns: int) -> int:
    """Bins between two segments."""
    return max(GAP_BINS, -(-GAP_NS // bin_ns))


def margin_ns(bin_ns: int) -> int:
    """How far spikes made from counts keep from the edges of their bin."""
    return min(MARGIN_NS, bin_ns // EDGE_SHARE)


def inside_ns(bin_ns: int) -> int:
    """How far inside their bin markers and behaviour are stamped."""
    return min(INSIDE_NS, bin_ns // EDGE_SHARE)


def spread(counts: np.ndarray, bin_ns: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Events of counts (T, U): each spike at a seeded random time inside its bin, off its edges (`margin_ns`).

    Returns t_ns (n,) int64 sorted, from the start of bin 0, and unit (n,) int32.
    """
    bins, units = np.nonzero(counts)
    repeat = counts[bins, units]
    bins, units = np.repeat(bins, repeat), np.repeat(units, repeat)
    rng = np.random.default_rng(seed)
    margin = margin_ns(bin_ns)
    t_ns = bins.astype(np.int64) * bin_ns + rng.integers(margin, bin_ns - margin, len(bins))
    order = np.argsort(t_ns, kind="stable")
    return t_ns[order], units[order].astype(np.int32)


def timeline(session: Session, shift_ns: int = 0) -> list[Segment]:
    """The session's segments one after the other with gaps, each starting on a bin edge plus shift_ns."""
    found, at = [], 0
    for s, ((start, stop), number) in enumerate(zip(session.segments, session.segment_ids, strict=True)):
        start, stop = int(start), int(stop)
        if session.events is None:
            t_ns, unit = spread(session.counts[start:stop], session.bin_ns, SPREAD_SEED + int(number))
        else:
            lo, hi = np.searchsorted(session.events[0], [start * session.bin_ns, stop * session.bin_ns])
            t_ns, unit = session.events[0][lo:hi] - start * session.bin_ns, session.events[1][lo:hi]
        labels = {
            spec.name: spec.classes[int(session.values[spec.name][stop - 1])]
            for spec in session.specs
            if spec.kind == "class" and session.values[spec.name][stop - 1] >= 0
        }
        stands = {name: float(v[s]) for name, v in session.starts.items() if np.isfinite(v[s])}
        begin_ns = at + shift_ns
        found.append(Segment(int(number), start, stop - start, begin_ns, t_ns + begin_ns, unit, labels, stands))
        at += (stop - start + gap_bins(session.bin_ns)) * session.bin_ns
    return found
