"""`Session`: one recording in memory, and its chronological parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from msgspec import Struct

from neds_core.errors import DataError

DISORDER = "segments overlap or decrease in time; sort them and convert again"
AMBIGUOUS = {
    "wheel": "wheel_speed (unsigned) or wheel_velocity (signed)",
    "whisker": "whisker_motion_energy",
    "paw": "paw_speed",
    "pupil": "pupil_diameter",
    "position": "position_x and position_y",
}


class BehaviourSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """What a behaviour is: the words a user needs before acting on a number."""

    name: str
    kind: Literal["continuous", "class"]
    unit: str = ""
    sign: str = ""
    filter: str = ""
    filter_delay_ms: float = 0.0
    labels: Literal["measured", "inferred"] = "measured"
    labels_note: str = ""
    classes: tuple[str, ...] = ()
    contrasts: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    group: str = ""  # continuous outputs of one group are coordinates of one point


def refuse_unsorted(segments: np.ndarray, origin: str) -> None:
    """Raise `DataError` where segments (S, 2) are not in time order. origin: what the sentence calls the recording."""
    if segments.ndim == 2 and (np.diff(segments[:, 0]) < 0).any():
        raise DataError(f"{origin}: {DISORDER}")


@dataclass(frozen=True, slots=True)
class UnitTable:
    """The ordered units of a stream: row number is the unit id on the wire."""

    ids: np.ndarray  # (U,) int64, the source's own ids
    region: np.ndarray  # (U,) str
    depth_um: np.ndarray  # (U,) float32, NaN = not known

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sha256(self) -> str:
        """Identity of the ordered table."""
        rows = (f"{i}\t{r}\t{d:.1f}" for i, r, d in zip(self.ids, self.region, self.depth_um, strict=True))
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Session:
    """A recording on the token grid of T bins.

    counts (T, U) uint8; valid (T,) bool, False = bin with a known fault; values name -> (T,)
    float32 (NaN = undefined) or int64 (-1 = undefined); segments (S, 2) int64 start and stop
    bins, contiguous inside, in time order. events, where the source has spike times: t_ns (n,) int64 from
    the start of bin 0, non-decreasing, and unit (n,) int32. moments: what happened when in each segment, name ->
    (S,) float ms from its start, NaN = it did not; such as first_movement.
    """

    name: str
    bin_ns: int
    units: UnitTable
    counts: np.ndarray
    valid: np.ndarray
    specs: tuple[BehaviourSpec, ...]
    values: dict[str, np.ndarray]
    segments: np.ndarray
    segment_ids: np.ndarray  # (S,) int64
    events: tuple[np.ndarray, np.ndarray] | None = None
    licence: str = ""
    citation: str = ""
    moments: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse segments out of time order: whoever looks a bin up among the starts would find the wrong one."""
        refuse_unsorted(self.segments, f"recording {self.name!r}")

    @property
    def n_bins(self) -> int:
        """T."""
        return int(self.counts.shape[0])

    @property
    def continuous(self) -> bool:
        """One unbroken recording rather than trial snippets."""
        return len(self.segments) == 1

    def spec(self, name: str) -> BehaviourSpec:
        """The behaviour called `name`. Raises `DataError` where there is none."""
        for spec in self.specs:
            if spec.name == name:
                return spec
        if name in AMBIGUOUS:
            raise DataError(f"output {name!r} does not name a quantity; say {AMBIGUOUS[name]}")
        known = ", ".join(s.name for s in self.specs)
        raise DataError(f"recording {self.name!r} has no behaviour {name!r}; it has {known}")

    def bins(self) -> np.ndarray:
        """(n,) int64: the bins inside the segments, in time order."""
        return np.concatenate([np.arange(start, stop) for start, stop in self.segments])

    def segment_of(self, bins: np.ndarray) -> np.ndarray:
        """(n,) int64: row of the segment that holds each of bins (n,), which lie inside the segments."""
        return np.searchsorted(self.segments[:, 0], bins, side="right") - 1

    def clock(self) -> np.ndarray:
        """Bins since the start of each bin's own segment, (T,) int64, -1 outside segments."""
        out = np.full(self.n_bins, -1, np.int64)
        for start, stop in self.segments:
            out[start:stop] = np.arange(stop - start)
        return out


@dataclass(frozen=True, slots=True)
class Splits:
    """Chronological parts of a session; each keeps the bins of the whole and lists its segments."""

    train: Session
    validation: Session
    test: Session

    @property
    def development(self) -> Session:
        """Training + validation: everything but the test part."""
        return join(self.train, self.validation)


def select(session: Session, rows: slice | np.ndarray) -> Session:
    """The segments that `rows` picks, a slice or an index or mask in time order; the bins of the whole stay."""
    moments = {name: ms[rows] for name, ms in session.moments.items()}
    return replace(session, segments=session.segments[rows], segment_ids=session.segment_ids[rows], moments=moments)


def join(first: Session, second: Session) -> Session:
    """The segments of both parts, in time order; neighbours of a continuous recording merge."""
    if first.continuous and second.continuous and first.segments[0, 1] == second.segments[0, 0]:
        merged = np.array([[first.segments[0, 0], second.segments[0, 1]]])
        return replace(first, segments=merged)
    segments = np.concatenate([first.segments, second.segments])
    order = np.argsort(segments[:, 0], kind="stable")
    return replace(
        first,
        segments=segments[order],
        segment_ids=np.concatenate([first.segment_ids, second.segment_ids])[order],
        moments={name: np.concatenate([ms, second.moments[name]])[order] for name, ms in first.moments.items()},
    )


def part(session: Session, begin: float, end: float) -> Session:
    """Segments in the share [begin, end) of the recording; a continuous one is cut inside."""
    if session.continuous:
        start, stop = (int(v) for v in session.segments[0])
        cut = [start + round((stop - start) * share) for share in (begin, end)]
        return replace(session, segments=np.array([cut], np.int64))
    lo, hi = (round(len(session.segments) * share) for share in (begin, end))
    return select(session, slice(lo, hi))


def split(session: Session) -> Splits:
    """Chronological 70/10/20 by segments; a continuous recording is cut at the same shares.

    Raises `DataError` where a part would be empty.
    """
    parts = [part(session, begin, end) for begin, end in ((0.0, 0.7), (0.7, 0.8), (0.8, 1.0))]
    if not all((p.segments[:, 1] > p.segments[:, 0]).any() for p in parts):
        raise DataError(f"recording {session.name!r} is too short to be split 70/10/20; record at least 10 segments")
    return Splits(*parts)


def bin_events(
    t_ns: np.ndarray, unit: np.ndarray, bin_ns: int, n_bins: int, n_units: int, origin: str = "the recording"
) -> np.ndarray:
    """Counts (T, U) uint8 of spike events on the grid that starts at 0, 255 at most; others are left out.

    t_ns (n,) int64, non-decreasing, else `DataError`; unit (n,) int.
    """
    if len(t_ns) and (not np.isfinite(t_ns).all() or (np.diff(t_ns) < 0).any()):
        raise DataError(f"{origin}: spike times are NaN or decrease; sort and clean them first")
    index = np.asarray(t_ns, np.int64) // bin_ns
    keep = (index >= 0) & (index < n_bins) & (unit >= 0) & (unit < n_units)
    counts = np.zeros((n_bins, n_units), np.uint16)
    np.add.at(counts, (index[keep], unit[keep]), 1)
    return counts.clip(max=255).astype(np.uint8)
