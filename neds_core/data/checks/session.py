"""Whether a recording can be played, trained on, written and read again: one sentence for each fault."""

from __future__ import annotations

import numpy as np

from neds_core.data.checks.spec import check_names, check_spec, check_text, check_width
from neds_core.data.session import COUNT_MOST, DISORDER, BehaviourSpec, Session, ordered_ns
from neds_core.errors import DataError

KINDS = {"bool": "b", "int": "i", "unsigned": "u", "float": "f", "str": "U"}  # numpy's letters
VALUE_MOST = 1e12  # of a trace: its square and the sum over a recording are numbers of float32
ROUND = 0.01  # cos^2 + sin^2 of an angle may be so far from 1
SAME = 1e-6  # a standard deviation below this share of the largest value is rounding
ALONG, CLOCK, ALIKE = 0.99, 0.8, 0.05  # correlation with, and ms a ms of, segments' starts: moments by a clock
BEYOND_MS = 60_000.0  # a moment may lie so much further from its segment than the recording is long
ENOUGH = 100  # spikes and bins from which on their spread says something about the unit of their times
CORE, NARROW = 0.99, 0.05  # this share of all spikes in less than this share of the bins: times of another unit


def check(session: Session, origin: str, *, silent: bool = False) -> None:
    """Refuse a session that cannot be played or trained on: `DataError`, which calls the recording `origin`.

    silent: one without a spike is taken all the same, such as that of a run, whose states and events are worth keeping.
    """
    try:
        _check_header(session)
        _check_shapes(session)
        _check_units(session)
        _check_segments(session)
        _check_moments(session)
        _check_starts(session)
        _check_spikes(session, silent=silent)
        for spec in session.specs:
            _check_behaviour(spec, session.values[spec.name], session.valid)
        _check_angles(session)
    except DataError as error:
        raise DataError(f"{origin}: {error}") from None


def varies(values: np.ndarray) -> bool:
    """Whether finite values (n,) differ by more than rounding."""
    if len(values) < 2:
        return False
    exact = values.astype(np.float64)
    return bool(exact.std() > SAME * np.abs(exact).max())


def _check_header(session: Session) -> None:
    """Names, texts and the bin's width; every behaviour has its values and the other way round."""
    texts = {"name": session.name, "licence": session.licence, "citation": session.citation}
    for key, text in texts.items():
        check_text(key, text)
    if not session.name.strip():
        raise DataError("name is empty; give the recording a name")
    check_width(session.bin_ns)
    names = [spec.name for spec in session.specs]
    check_names("behaviour", names)
    check_names("moment", session.moments)
    if lacking := sorted(set(names) - set(session.values)):
        raise DataError(f"behaviour {lacking[0]!r} has no values; add them or leave it out")
    if more := sorted(set(session.values) - set(names)):
        raise DataError(f"values of {more[0]!r} have no BehaviourSpec; add one or leave them out")
    for spec in session.specs:
        check_spec(spec)


def _check_shapes(session: Session) -> None:
    """Every array has the shape and kind that `Session` says."""
    n_bins, n_units, n_segments = len(session.counts), len(session.units), len(session.segments)
    wanted = {
        "counts": (session.counts, "unsigned", (n_bins, n_units)),
        "valid": (session.valid, "bool", (n_bins,)),
        "segments": (session.segments, "int", (n_segments, 2)),
        "segment_ids": (session.segment_ids, "int", (n_segments,)),
        "unit_ids": (session.units.ids, "int", (n_units,)),
        "unit_region": (session.units.region, "str", (n_units,)),
        "unit_depth_um": (session.units.depth_um, "float", (n_units,)),
    }
    for spec in session.specs:
        kind = "float" if spec.kind == "continuous" else "int"
        wanted[f"value {spec.name}"] = (session.values[spec.name], kind, (n_bins,))
    wanted |= {f"moment {name}": (ms, "float", (n_segments,)) for name, ms in session.moments.items()}
    wanted |= {f"start of {name}": (values, "float", (n_segments,)) for name, values in session.starts.items()}
    for name, (array, kind, shape) in wanted.items():
        if array.shape != shape or array.dtype.kind != KINDS[kind]:
            raise DataError(f"{name} is {array.dtype} {array.shape}, not {kind} {shape}; convert the recording again")
    if not n_bins or not n_units or not n_segments or not session.valid.any():
        raise DataError("the recording is empty (no bins, segments or spikes); give another")


def _check_units(session: Session) -> None:
    """Ids are unique; regions can be written as lines of text; depths are numbers."""
    units = session.units
    found, n = np.unique(units.ids, return_counts=True)
    if len(found) < len(units):
        raise DataError(f"unit_ids repeat ({found[n > 1][0]} first); number the units of all probes through")
    for region in np.unique(units.region):
        check_text("unit_region", str(region))
    if np.isinf(units.depth_um).any():
        raise DataError("unit_depth_um is infinite for a unit; NaN says that it is not known")


def _check_segments(session: Session) -> None:
    """Segments lie inside the recording, in time order and apart; each has a number of its own."""
    start, stop, n_bins = session.segments[:, 0], session.segments[:, 1], session.n_bins
    if (stop <= start).any():
        s = int((stop <= start).argmax())
        raise DataError(f"segment {s} is empty (bins {start[s]} to {stop[s]}); drop it")
    if (start[1:] < stop[:-1]).any():
        raise DataError(DISORDER)
    if start[0] < 0:
        raise DataError(f"the first segment starts at bin {start[0]}, before the recording; cut or drop it")
    if stop[-1] > n_bins:
        raise DataError(
            f"the last segment ends at bin {stop[-1]}, beyond the {n_bins} of the recording; cut or drop it"
        )
    if len(np.unique(session.segment_ids)) < len(session.segment_ids):
        raise DataError("segment_ids repeat; number the trials through")


def _check_moments(session: Session) -> None:
    """Moments are counted from their segment's start. They may lie before it and after its end, any of them."""
    bin_ms = session.bin_ns * 1e-6
    start_ms, longest_ms = session.segments[:, 0] * bin_ms, session.n_bins * bin_ms + BEYOND_MS
    remedy = "give ms from each segment's own start"
    for name, ms in session.moments.items():
        if np.isinf(ms).any():
            raise DataError(f"moment {name} is infinite in a segment; NaN says that it did not happen")
        known = np.flatnonzero(np.isfinite(ms))
        first, last = (f"{ms[s]:.6g} ms in segment {s}" for s in (known[0], known[-1])) if len(known) else ("", "")
        if len(known) and _is_clock(start_ms[known], ms[known].astype(np.float64), bin_ms):
            raise DataError(f"moment {name} grows with the time of the recording ({first}, {last}); {remedy}")
        if far := known[np.abs(ms[known]) > longest_ms].tolist():
            s = far[0]
            raise DataError(f"moment {name} is {ms[s]:.6g} ms in segment {s}, longer than the recording; {remedy}")


def _check_starts(session: Session) -> None:
    """Starts are of traces, and finite or not known."""
    traces = [spec.name for spec in session.specs if spec.kind == "continuous"]
    for name, values in session.starts.items():
        if name not in traces:
            raise DataError(f"start of {name!r}: the recording has no such trace; it has {', '.join(traces) or 'none'}")
        if np.isinf(values).any() or np.abs(values[np.isfinite(values)]).max(initial=0.0) > VALUE_MOST:
            raise DataError(f"start of {name} is beyond {VALUE_MOST:g} in a segment; NaN says that it is not known")


def _is_clock(start_ms: np.ndarray, moment: np.ndarray, bin_ms: float) -> bool:
    """Whether moments (n,) are times of the recording, in whatever unit: they grow with their segments' starts (n,)."""
    most = float(np.abs(moment).max(initial=0.0))
    if len(moment) < 3 or most == 0.0 or not varies(grown := moment / most):  # two always lie on a line
        return False
    off, grown = start_ms - start_ms.mean(), grown - grown.mean()
    if float(off @ grown) <= ALONG * np.sqrt(float(off @ off) * float(grown @ grown)):
        return False
    slope = float(off @ grown) / float(off @ off) * most
    return slope > CLOCK or any(abs(slope / unit - 1.0) < ALIKE for unit in (1e-3, 1.0 / bin_ms))  # in s, in bins


def _check_spikes(session: Session, *, silent: bool) -> None:
    """Spikes lie inside the recording and are spread over it, as times in nanoseconds are."""
    if session.events is not None:
        t_ns, unit = ordered_ns(session.events[0]), session.events[1]
        if unit.dtype.kind not in "iu" or unit.shape != t_ns.shape:
            raise DataError(
                f"event_unit is {unit.dtype} {unit.shape}, not int {t_ns.shape}; give a row of the unit table a spike"
            )
        if len(unit) and not 0 <= int(unit.min()) <= int(unit.max()) < len(session.units):
            raise DataError(
                f"event_unit is {unit.min()} to {unit.max()}, but the table's rows are 0 to {len(session.units) - 1}; "
                "give rows of the unit table, counted from 0"
            )
        spikes = np.diff(np.searchsorted(t_ns, np.arange(session.n_bins + 1, dtype=np.int64) * session.bin_ns))
        n_inside = int(spikes.sum())
        if 2 * n_inside < len(t_ns):
            raise DataError(
                f"{len(t_ns) - n_inside} of {len(t_ns)} spikes lie outside the recording "
                f"(0 to {session.n_bins * session.bin_ns * 1e-9:g} s); give times in ns from the start of bin 0, "
                "and leave out spikes beyond it"
            )
    else:
        spikes = session.counts.sum(1, dtype=np.int64)
    if session.counts.dtype.itemsize > 2 and session.counts.max() > COUNT_MOST:
        raise DataError(f"counts reach {session.counts.max()} spikes of a unit in a bin; give {COUNT_MOST} at most")
    if not (silent and not spikes.any()):
        _check_spread(spikes)


def _check_spread(spikes: np.ndarray) -> None:
    """spikes (T,): of all units in each bin."""
    n = int(spikes.sum())
    if not n:
        raise DataError("the recording is empty (no bins, segments or spikes); give another")
    if n < ENOUGH or len(spikes) < ENOUGH:
        return
    low, high = np.searchsorted(np.cumsum(spikes), [n * (1 - CORE) / 2, n * (1 + CORE) / 2])
    if high - low + 1 < NARROW * len(spikes):
        raise DataError(
            f"{CORE:.0%} of the spikes lie in bins {low} to {high} of {len(spikes)}; "
            "give spike times in ns from the start of bin 0 (not in seconds, samples or microseconds)"
        )


def _check_behaviour(spec: BehaviourSpec, values: np.ndarray, valid: np.ndarray) -> None:
    """Values (T,) are of the behaviour's kind, and say something."""
    if spec.kind == "class":
        if values.max() >= len(spec.classes) or values.min() < -1:
            raise DataError(f"{spec.name} has labels outside its {len(spec.classes)} classes; convert again")
        return
    if np.isinf(values).any():
        raise DataError(f"{spec.name} is infinite at bin {int(np.isinf(values).argmax())}; NaN says that it is unknown")
    known = values[valid & np.isfinite(values)]
    if not len(known):
        raise DataError(f"{spec.name} is NaN everywhere; leave it out of the recording")
    largest = float(np.abs(known).max())
    if largest > VALUE_MOST:
        raise DataError(f"{spec.name} reaches {largest:g}; give it in a larger unit")
    if not varies(known):
        raise DataError(f"{spec.name} does not vary ({known[0]:g} throughout); leave it out of the recording")


def _check_angles(session: Session) -> None:
    """A group is an angle or a point; of an angle it has the cosine and the sine, which lie on the unit circle."""
    for group in dict.fromkeys(spec.group for spec in session.specs if spec.group or spec.angle):
        members = {spec.angle: spec for spec in session.specs if spec.group == group and spec.kind == "continuous"}
        said = [spec.angle for spec in session.specs if spec.group == group]
        if not any(said):
            continue
        if not group or sorted(said) != ["cos", "sin"] or len(members) != 2:
            raise DataError(
                f"group {group!r} has {len(said)} outputs with the angles {said}; give an angle two continuous outputs "
                "of one group, one with angle='cos' and one with angle='sin'"
            )
        cos, sin = (session.values[members[side].name].astype(np.float64) for side in ("cos", "sin"))
        if len(off := np.flatnonzero(np.abs(cos**2 + sin**2 - 1.0) > ROUND)):
            t = int(off[0])
            raise DataError(
                f"{members['cos'].name} and {members['sin'].name} are {cos[t]:g} and {sin[t]:g} at bin {t}, "
                "which no angle has; give np.cos and np.sin of the angle in radians"
            )
