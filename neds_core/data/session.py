"""`Session`: one recording in memory, and its chronological parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np

from neds_core.data import summary
from neds_core.data.columns import AMBIGUOUS, BehaviourSpec, UnitTable, whole_numbers
from neds_core.errors import DataError

DISORDER = "segments overlap or decrease in time; sort them and convert again"
BIN_NS_LEAST, BIN_NS_MOST = 1_000_000, 10_000_000_000  # 1 ms to 10 s
STRETCHES, STRETCH_NS = 4, 60_000_000_000  # so few segments, one of a minute or more, are runs and no trials
SPIKES_AT_ONCE = 4_000_000
COUNT_MOST = int(np.iinfo(np.uint16).max)  # spikes of a unit in a bin, here and on the rig


def refuse_unsorted(segments: np.ndarray, origin: str) -> None:
    """Raise `DataError` where segments (S, 2) are not in time order. origin: what the sentence calls the recording."""
    if segments.ndim == 2 and (np.diff(segments[:, 0]) < 0).any():
        raise DataError(f"{origin}: {DISORDER}")


def content(session: Session) -> str:
    """SHA-256 of all that is trained on, decoded or scored: all but the name, the licence and the source."""
    units, events = session.units, session.events or ()
    named = {"values": session.values, "moments": session.moments, "starts": session.starts}
    arrays = {f"{kind}/{name}": array for kind, each in named.items() for name, array in sorted(each.items())}
    rows = (session.counts, session.valid, session.segments, session.segment_ids, units.ids, units.depth_um, *events)
    found = hashlib.sha256(repr((session.bin_ns, session.specs, session.runs, units.region.tolist())).encode())
    for name, array in (*((str(k), rows[k]) for k in range(len(rows))), *arrays.items()):
        found.update(repr((name, array.dtype.str, array.shape)).encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


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
    file_sha: str = ""  # SHA-256 of the file that it was read from; "" = of none, or changed since
    read_as: str = field(default="", repr=False)  # its `content` when `file_sha` was said of it

    def __post_init__(self) -> None:
        """Refuse segments out of time order: whoever looks a bin up among the starts would find the wrong one. A
        session that is made from another with other content is not of its file."""
        refuse_unsorted(self.segments, f"recording {self.name!r}")
        now = content(self) if self.file_sha else ""
        same = self.read_as in ("", now)
        object.__setattr__(self, "file_sha", self.file_sha if same else "")
        object.__setattr__(self, "read_as", now if same else "")

    def of_file(self) -> str:
        """`file_sha`, "" where an array was written to since."""
        return self.file_sha if self.file_sha and content(self) == self.read_as else ""

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
        return np.concatenate([np.zeros(0, np.int64), *(np.arange(start, stop) for start, stop in self.segments)])

    def segment_of(self, bins: np.ndarray) -> np.ndarray:
        """(n,) int64: row of the segment that holds each of bins (n,), which lie inside the segments."""
        return np.searchsorted(self.segments[:, 0], bins, side="right") - 1

    def clock(self) -> np.ndarray:
        """Bins since the start of each bin's own segment, (T,) int64, -1 outside segments."""
        out = np.full(self.n_bins, -1, np.int64)
        for start, stop in self.segments:
            out[start:stop] = np.arange(stop - start)
        return out

    def rates_hz(self) -> np.ndarray:
        """(U,) float64: spikes a second of each unit inside the segments, 0 where they hold no bin."""
        spikes, n_bins = np.zeros(len(self.units)), 0
        for start, stop in self.segments:  # one after the other: a copy of all of them may be gigabytes
            spikes += self.counts[start:stop].sum(0, dtype=np.int64)
            n_bins += int(stop - start)
        return spikes / max(n_bins * self.bin_ns * 1e-9, 1e-9)

    def summary(self) -> str:
        """What the recording holds, in lines for people: size, rates in Hz with quartiles, regions, each behaviour with
        its range, unit and share undefined inside the segments, moments, bins with a known fault, licence, source."""
        return "\n".join([f"{self.name}: {self.size()}", *(f"{label:10}{text}" for label, text in self._rows())])

    def _repr_html_(self) -> str:
        """The same as a table, for a notebook."""
        return summary.table(f"{self.name}: {self.size()}", self._rows())

    def size(self) -> str:
        """Units, bins, duration and segments in words, and whether spike times are missing."""
        size = summary.size(len(self.units), self.n_bins, self.bin_ns, len(self.segments))
        return size if self.events is not None else f"{size}, counts without spike times"

    def _rows(self) -> list[tuple[str, str]]:
        """Label and text of each line but the first."""
        hz = self.rates_hz()[: len(self.units) if len(self.segments) else 0]
        rows = [("rates", summary.rates(hz)), ("regions", summary.regions(self.units.region))]
        rows += [("behaviour", self.told(spec)) for spec in self.specs]
        faulty = int((~self.valid).sum())
        rows += [("moments", summary.moments(self.moments)), ("faults", f"{faulty} bins" if faulty else "")]
        rows += [("licence", self.licence), ("source", self.citation)]
        return [(label, text) for label, text in rows if text]

    def told(self, spec: BehaviourSpec) -> str:
        """A behaviour in words: its range and unit, or how many segments are of each class, and what is undefined."""
        values = self.values[spec.name]
        if not len(self.segments):
            return f"{spec.name}: no segments"
        if spec.kind == "class":
            return summary.classes(spec, values[self.segments[:, 1] - 1])
        return summary.trace(spec, values[self.bins()])


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
    some = {"moments": moments, "starts": starts, "runs": runs, "file_sha": ""}  # of none: that takes no look at it
    return replace(session, segments=segments, segment_ids=ids, **some)


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
        file_sha="",
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


def left_out(session: Session, stop: int | None = None) -> str:
    """How many spikes lie in no segment, and where, in words; '' = none does. stop: between segments, those before that
    bin alone are counted."""
    t_ns = session.events[0] if session.events is not None else np.zeros(0, np.int64)
    end_ns, counts, bins = session.n_bins * session.bin_ns, session.counts[:stop], session.bins()
    found = {
        "before its start": int((t_ns < 0).sum()),
        f"after its end ({end_ns * 1e-9:g} s)": int((t_ns >= end_ns).sum()),
        "outside its segments": int(counts.sum(dtype=np.int64) - counts[bins[bins < len(counts)]].sum(dtype=np.int64)),
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
