"""`Session`: one recording in memory, and its chronological parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct

from neds_core.errors import DataError

DISORDER = "segments overlap or decrease in time; sort them and convert again"
BIN_NS_LEAST, BIN_NS_MOST = 1_000_000, 10_000_000_000  # 1 ms to 10 s
STRETCHES, STRETCH_NS = 4, 60_000_000_000  # so few segments, one of a minute or more, are runs and no trials
SPIKES_AT_ONCE = 4_000_000
COUNT_MOST = int(np.iinfo(np.uint16).max)  # spikes of a unit in a bin, here and on the rig
AMBIGUOUS = {
    "wheel": "wheel_speed (unsigned) or wheel_velocity (signed)",
    "whisker": "whisker_motion_energy",
    "paw": "paw_speed",
    "pupil": "pupil_diameter",
    "position": "position_x and position_y",
}


class BehaviourSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a behaviour is: the words a user needs before acting on a number.

    future_ms: how far the filter of a recorded trace reaches into the future. lead_ms: of a decoder's output, how much
    later than its bin the behaviour is that it says; 0 in a recording.
    """

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
    group: str = ""  # continuous outputs of one group are coordinates of one point, or of one angle:
    angle: Literal["", "cos", "sin"] = ""  # this output is the cosine or the sine of the angle that `group` names
    future_ms: Annotated[float, Meta(ge=0.0)] = 0.0
    lead_ms: Annotated[float, Meta(ge=0.0, le=1000.0)] = 0.0


def refuse_unsorted(segments: np.ndarray, origin: str) -> None:
    """Raise `DataError` where segments (S, 2) are not in time order. origin: what the sentence calls the recording."""
    if segments.ndim == 2 and (np.diff(segments[:, 0]) < 0).any():
        raise DataError(f"{origin}: {DISORDER}")


def whole_numbers(values: np.ndarray, name: str) -> np.ndarray:
    """The values as int64. Raises `DataError` where one is no whole number or does not fit."""
    found = np.asarray(values)
    if found.dtype.kind not in "iuf":
        first = f" ({str(found.flat[0])!r} first)" if found.size else ""
        kind = {"U": "text", "S": "bytes", "b": "true or false"}.get(found.dtype.kind, str(found.dtype))
        raise DataError(f"{name} are {kind}{first}, not whole numbers; give numbers and keep names elsewhere")
    if found.dtype.kind == "f":
        found = found.astype(np.float64)
        fits = np.isfinite(found).all() and (np.floor(found) == found).all() and (np.abs(found) < 2.0**63).all()
    else:
        fits = found.dtype.kind == "i" or not found.size or int(found.max()) <= np.iinfo(np.int64).max
    if not fits:
        raise DataError(f"{name} hold a fraction, NaN or a number beyond 64 bits; give whole numbers")
    return found.astype(np.int64)


@dataclass(frozen=True, slots=True)
class UnitTable:
    """The ordered units of a stream: row number is the unit id on the wire.

    Whatever comes in is kept in one set of types, so that a table has one hash wherever it was read from.
    """

    ids: np.ndarray  # (U,) int64, the source's own ids
    region: np.ndarray  # (U,) str
    depth_um: np.ndarray  # (U,) float32, NaN = not known

    def __post_init__(self) -> None:
        """Convert to the types above. Raises `DataError` for ids that are no whole numbers, and other foreign types."""
        region, depth = np.asarray(self.region), np.asarray(self.depth_um)
        if region.dtype.kind != "U":
            raise DataError(f"unit_region is {region.dtype}, not text; give a name a unit, '?' where not known")
        if depth.dtype.kind not in "iuf":
            raise DataError(f"unit_depth_um is {depth.dtype}, not numbers; give micrometres, NaN where not known")
        object.__setattr__(self, "ids", whole_numbers(self.ids, "unit_ids"))
        object.__setattr__(self, "region", region)
        with np.errstate(over="ignore"):  # too large a depth becomes infinite, which is refused
            object.__setattr__(self, "depth_um", depth.astype(np.float32) + np.float32(0.0))  # -0 and 0 are one depth

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

    counts (T, U) uint8 or uint16; valid (T,) bool, False = bin with a known fault; values name -> (T,)
    float32 (NaN = undefined) or int64 (-1 = undefined); segments (S, 2) int64 start and stop
    bins, contiguous inside, in time order. events, where the source has spike times: t_ns (n,) int64 from
    the start of bin 0, non-decreasing, and unit (n,) int32. moments: what happened when in each segment, name ->
    (S,) float ms from its start, NaN = it did not; such as first_movement. starts: where a trace stood when each
    segment began, name -> (S,) float in its unit, NaN = not known: what an online decoder went on from.
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
    starts: dict[str, np.ndarray] = field(default_factory=dict)
    runs: bool | None = None  # of a part: whether the whole is `continuous`; None = it is the whole

    def __post_init__(self) -> None:
        """Refuse segments out of time order: whoever looks a bin up among the starts would find the wrong one."""
        refuse_unsorted(self.segments, f"recording {self.name!r}")

    @property
    def n_bins(self) -> int:
        """T."""
        return int(self.counts.shape[0])

    @property
    def continuous(self) -> bool:
        """One unbroken recording, or a few long runs (`STRETCHES`), rather than trials."""
        if self.runs is not None:
            return self.runs
        n, most = len(self.segments), (self.segments[:, 1] - self.segments[:, 0]).max(initial=0)
        return n == 1 or (n <= STRETCHES and most * self.bin_ns >= STRETCH_NS)

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
    moments, starts = ({name: v[rows] for name, v in each.items()} for each in (session.moments, session.starts))
    segments, ids, runs = session.segments[rows], session.segment_ids[rows], session.continuous
    return replace(session, segments=segments, segment_ids=ids, moments=moments, starts=starts, runs=runs)


def join(first: Session, second: Session) -> Session:
    """The segments of both parts with the values of each, in time order; pieces of one run that touch merge."""
    segments = np.concatenate([first.segments, second.segments])
    ids = np.concatenate([first.segment_ids, second.segment_ids])
    order = np.argsort(segments[:, 0], kind="stable")
    segments, ids = segments[order], ids[order]
    more = np.r_[False, (ids[1:] == ids[:-1]) & (segments[1:, 0] == segments[:-1, 1])]
    starts = np.flatnonzero(~more)
    stops = segments[np.r_[starts[1:], len(segments)] - 1, 1]
    return replace(
        first,
        values=_values_of_both(first, second),
        segments=np.stack([segments[starts, 0], stops], axis=1),
        segment_ids=ids[starts],
        moments={name: np.concatenate([ms, second.moments[name]])[order][starts] for name, ms in first.moments.items()},
        starts={name: np.concatenate([v, second.starts[name]])[order][starts] for name, v in first.starts.items()},
    )


def _values_of_both(first: Session, second: Session) -> dict[str, np.ndarray]:
    """The parts of a recording share their values but for those that look ahead, each in its own segments."""
    found = dict(first.values)
    for name, values in second.values.items():
        if values is not found[name]:
            found[name] = found[name].copy()
            rows = second.bins()
            found[name][rows] = values[rows]
    return found


def part(session: Session, begin: float, end: float) -> Session:
    """Segments in the share [begin, end) of the recording; a continuous one is cut inside, by the bins of its runs."""
    if not session.continuous:
        lo, hi = (round(len(session.segments) * share) for share in (begin, end))
        return select(session, slice(lo, hi))
    lengths = session.segments[:, 1] - session.segments[:, 0]
    before = np.cumsum(lengths) - lengths  # bins of the runs before each
    lo, hi = (round(int(lengths.sum()) * share) for share in (begin, end))
    starts, stops = (session.segments[:, 0] + np.clip(at - before, 0, lengths) for at in (lo, hi))
    rows = np.flatnonzero(stops > starts) if hi > lo else np.arange(1)  # an empty part keeps one segment
    return replace(select(session, rows), segments=np.stack([starts[rows], stops[rows]], axis=1))


def split(session: Session) -> Splits:
    """Chronological 70/10/20 by segments; a continuous recording is cut at the same shares of its bins.

    Raises `DataError` where a part would be empty.
    """
    parts = [part(session, begin, end) for begin, end in ((0.0, 0.7), (0.7, 0.8), (0.8, 1.0))]
    if not all((p.segments[:, 1] > p.segments[:, 0]).any() for p in parts):
        raise DataError(f"recording {session.name!r} is too short to be split 70/10/20; record at least 10 segments")
    return Splits(*parts)


def ordered_ns(t_ns: np.ndarray) -> np.ndarray:
    """Spike times (n,) as int64. Raises `DataError` for times that are not whole nanoseconds in time order."""
    times = np.asarray(t_ns)
    if times.ndim != 1 or times.dtype.kind not in "iuf":
        raise DataError(f"spike times are {times.dtype} {times.shape}, not whole ns (n,); convert again")
    if len(times) and (not np.isfinite(times).all() or (times[1:] < times[:-1]).any()):
        raise DataError("spike times are NaN or decrease; sort and clean them first")
    if times.dtype == np.int64:
        return times
    try:
        return whole_numbers(times, "spike times")
    except DataError:
        raise DataError(
            "spike times hold a fraction or a number beyond 64 bits; "
            "give whole nanoseconds (np.rint(seconds * 1e9).astype(np.int64))"
        ) from None


def left_out(session: Session) -> str:
    """How many spikes lie in no segment, and where, in words; '' = none does."""
    t_ns = session.events[0] if session.events is not None else np.zeros(0, np.int64)
    end_ns, inside = session.n_bins * session.bin_ns, session.counts.sum(dtype=np.int64)
    found = {
        "before its start": int((t_ns < 0).sum()),
        f"after its end ({end_ns * 1e-9:g} s)": int((t_ns >= end_ns).sum()),
        "outside its segments": int(inside - session.counts[session.bins()].sum(dtype=np.int64)),
    }
    return ", ".join(f"{n} {where}" for where, n in found.items() if n)


def bin_events(
    t_ns: np.ndarray, unit: np.ndarray, bin_ns: int, n_bins: int, n_units: int, origin: str = "the recording"
) -> np.ndarray:
    """Counts (T, U) uint16 of spike events on the grid that starts at 0, as the rig counts; others are left out.

    t_ns (n,) whole ns, non-decreasing; unit (n,) int. Raises `DataError` for other times, and for more spikes of a
    unit in a bin than uint16 holds.
    """
    try:
        t_ns, unit = ordered_ns(t_ns), np.asarray(unit)
    except DataError as error:
        raise DataError(f"{origin}: {error}") from None
    if unit.shape != t_ns.shape or unit.dtype.kind not in "iu":
        raise DataError(f"{origin}: event_unit is {unit.dtype} {unit.shape}, not int {t_ns.shape}; convert again")
    counts = np.zeros(n_bins * n_units, np.uint16)
    for at in range(0, len(t_ns), SPIKES_AT_ONCE):  # so that memory beside the counts does not grow with the recording
        t, u = t_ns[at : at + SPIKES_AT_ONCE], unit[at : at + SPIKES_AT_ONCE]
        keep = (t >= 0) & (t < n_bins * bin_ns) & (u >= 0) & (u < n_units)
        place, n = np.unique(t[keep] // bin_ns * n_units + u[keep].astype(np.int64), return_counts=True)
        n += counts[place]
        if len(n) and n.max() > COUNT_MOST:
            raise DataError(
                f"{origin}: a unit has {n.max()} spikes in a bin, {COUNT_MOST} at most; check the spike times"
            )
        counts[place] = n
    return counts.reshape(n_bins, n_units)
