"""The parts of a calibration session: the first fits, the second selects, the last judges and serves nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from neds_core.data import lead
from neds_core.data.session import Session, join, select
from neds_core.errors import DataError

SHARES = (0.6, 0.2, 0.2)  # of what is left beside the gaps: fits, selects, judges
GAP_SEGMENTS, GAP_S = 2, 10.0  # what lies between two parts is used for nothing
LEAST = 5  # segments (or blocks of GAP_S) that select, and that judge: fewer carry no interval
LEAST_SEGMENTS = 5 * LEAST + 2 * GAP_SEGMENTS
LEAST_S = (5 * LEAST + 2) * GAP_S  # of a recording with fewer segments, which is cut inside them


@dataclass(frozen=True, slots=True)
class Parts:
    """Contiguous parts in time order; each keeps the bins of the whole and lists its segments."""

    fit: Session
    select: Session
    judge: Session

    @property
    def refit(self) -> Session:
        """What fits and what selects, without the gap."""
        return join(self.fit, self.select)

    def ahead(self, lead_ms: Mapping[str, float]) -> Parts:
        """Each part looked ahead in by itself (`lead.ahead`): no target is of a bin of another part or of a gap."""
        return Parts(*(lead.ahead(part, lead_ms) for part in (self.fit, self.select, self.judge)))


def cut(session: Session) -> Parts:
    """60/20/20 with a gap of two segments between parts; a recording of few segments is cut in time, the gap 10 s.

    Raises `DataError` with what is missing where a part would be too short to judge.
    """
    if len(session.segments) >= LEAST_SEGMENTS:
        return Parts(*(select(session, slice(*at)) for at in _places(len(session.segments), GAP_SEGMENTS)))
    n, bin_s = len(session.bins()), session.bin_ns * 1e-9
    if n * bin_s < LEAST_S:
        raise DataError(
            f"recording {session.name!r} has {len(session.segments)} segments and {n * bin_s:.0f} s inside them; a "
            f"calibration needs {LEAST_SEGMENTS} segments, or {LEAST_S:.0f} s in fewer: collect "
            f"{LEAST_SEGMENTS - len(session.segments)} more segments"
        )
    return Parts(*(_stretch(session, *at) for at in _places(n, round(GAP_S / bin_s))))


def _places(n: int, gap: int) -> list[tuple[int, int]]:
    """First and last + 1 of each part of n things in a row."""
    left = n - 2 * gap
    ends = [round(left * sum(SHARES[: k + 1])) for k in range(3)]
    return [(start + k * gap, stop + k * gap) for k, (start, stop) in enumerate(zip([0, *ends], ends, strict=False))]


def _stretch(session: Session, begin: int, end: int) -> Session:
    """Bins begin to end of those inside the segments, counted through; no moments or starts."""
    length = np.diff(session.segments)[:, 0]
    first = np.cumsum(length) - length
    start = session.segments[:, 0] + np.clip(begin - first, 0, length)
    stop = session.segments[:, 0] + np.clip(end - first, 0, length)
    kept = stop > start
    segments = np.stack([start, stop], 1)[kept]
    return replace(session, segments=segments, segment_ids=session.segment_ids[kept], moments={}, starts={})
