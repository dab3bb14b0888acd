"""`Found` and `Options` to a `Session`: the last step of every import.

Edges of bins are multiples of the bin's width on the source's clock, as on a rig. The grid begins with the first bin
at whose right edge one of the outputs is known, and ends with the last.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from neds_core.data.checks.session import check
from neds_core.data.session import SPIKES_AT_ONCE, STRETCH_NS, BehaviourSpec, Session, bin_events
from neds_core.errors import ConfigError, DataError
from neds_core.io.importing import outputs as taking, spikes
from neds_core.io.importing.found import Found, Trace, Trials
from neds_core.io.importing.joined import refuse_silent
from neds_core.io.importing.moments import of_trials
from neds_core.io.importing.options import NONE, Options
from neds_core.io.importing.outputs import Output

SIDES = ("cos", "sin")
SILENT_NS, SILENT_TIMES = 1_000_000_000, 100  # without a spike of any unit, and of the mean time between two
SHARE = 0.5  # of memory that the counts may take


@dataclass(frozen=True, slots=True)
class Made:
    """A session, what was left out or changed on the way (a sentence each), and where bin 0 starts on the clock."""

    session: Session
    notes: tuple[str, ...]
    start_s: float


def make(found: Found, options: Options) -> Made:
    """Put what was found on the grid. Raises `DataError` or `ConfigError` with the remedy."""
    if found.session is not None:
        return Made(found.session, found.notes, 0.0)
    bin_ns, notes = options.bin_ns, list(found.notes)
    if not len(found.units) or not len(found.t_s):
        raise DataError(f"{found.name} has {len(found.units)} units and no spikes; give the file that has the spikes")
    chosen = taking.chosen(found, options.outputs)
    _refuse_unsorted(found, chosen)
    trials = None if options.trials == NONE else found.trials
    first, n_bins = _span(found, chosen, trials, bin_ns, options.outputs == (NONE,))
    _refuse_too_large(n_bins, len(found.units), found.name)
    edges_ns = (first + np.arange(1, n_bins + 1, dtype=np.int64)) * bin_ns
    segments, rows = _segments(trials, first, n_bins, bin_ns, found.name, notes)
    specs, values = _behaviours(found, chosen, options, edges_ns, notes)
    for output in chosen:
        if output.how == "class" and trials is not None:
            specs[output.called], values[output.called] = _classes(output, trials, segments, rows, n_bins)
    events = _events(found, first, n_bins, bin_ns, notes)
    refuse_silent(found, events[1])
    valid = _observed(found.observed_s, edges_ns, bin_ns, notes)
    begin_s = (first + segments[:, 0]) * (bin_ns * 1e-9)
    session = Session(
        name=found.name, bin_ns=bin_ns, units=found.units, valid=valid, specs=tuple(specs.values()), values=values,
        counts=bin_events(*events, bin_ns, n_bins, len(found.units), found.name), events=events, segments=segments,
        segment_ids=rows, licence=found.licence, citation=found.citation,
        moments=of_trials(trials, rows, begin_s, notes),
    )  # fmt: skip
    check(session, found.name)
    return Made(session, tuple(notes), first * bin_ns * 1e-9)


def whole_ns(t_s: np.ndarray) -> np.ndarray:
    """Seconds (n,) as whole ns int64, so that a stamp on the edge of a bin is on it exactly."""
    return np.rint(np.asarray(t_s, np.float64) * 1e9).astype(np.int64)


def _span(found: Found, chosen: tuple[Output, ...], trials: Trials | None, bin_ns: int, alone: bool) -> tuple[int, int]:
    """The first bin, counted from time 0 of the clock, and their number: of the traces, else of the trials.

    alone: of the spikes.
    """
    named = {output.source for output in chosen if output.how != "class"}
    stamps = [trace.t_s for trace in found.traces if trace.name in named and len(trace.t_s)]
    if stamps:
        begin, end = min(t[0] for t in stamps), max(t[-1] for t in stamps)
        what = "behaviours"
    elif alone:
        first, last = (whole_ns(found.t_s[[0, -1]]) // bin_ns).tolist()
        return first, last + 1 - first
    elif trials is not None and len(trials.start_s):
        begin, end, what = trials.start_s.min(), trials.stop_s.max(), "trials"
    else:
        raise DataError(
            f"{found.name} has no behaviour and no trials to take; give --behaviour FILE, or --outputs none to take "
            "the spikes alone"
        )
    low, high = float(found.t_s[0]), float(found.t_s[-1])
    if end < low or begin > high:
        raise DataError(
            f"{found.name}: {what} last from {begin:.6g} to {end:.6g} s and spikes from {low:.6g} to {high:.6g} s, "
            "apart; give the time between the two clocks with --offset"
        )
    begin_ns = int(whole_ns(np.array(begin)))
    first = -(-begin_ns // bin_ns) - 1
    first = max(first, 0) if begin_ns >= 0 else first  # a sample at time 0 has no bin before it
    n_bins = -(-int(whole_ns(np.array(end))) // bin_ns) - first  # the last sample stands at its bin's right edge, too
    if n_bins < 1:
        raise DataError(f"{found.name}: {what} last {end - begin:g} s, less than a bin; give longer ones")
    return first, n_bins


def _segments(
    trials: Trials | None, first: int, n_bins: int, bin_ns: int, origin: str, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Segments (S, 2) of whole bins inside the trials, and the row of each (S,). Without trials: one."""
    if trials is None or not len(trials.start_s):
        return np.array([[0, n_bins]], np.int64), np.zeros(1, np.int64)
    known = np.isfinite(trials.start_s) & np.isfinite(trials.stop_s)
    start, stop = (np.where(known, edge, 0.0) for edge in (trials.start_s, trials.stop_s))
    begin, end = -(-whole_ns(start) // bin_ns) - first, whole_ns(stop) // bin_ns - first
    beyond = (
        known & (end - begin >= STRETCH_NS // bin_ns) & ((begin < 0) | (end > n_bins)) & (begin < n_bins) & (end > 0)
    )
    if cut := int(beyond.sum()):
        notes.append(f"{cut} of {len(known)} stretches reach beyond the behaviour, and are cut to it")
        begin, end = (np.where(beyond, np.clip(edge, 0, n_bins), edge) for edge in (begin, end))
    keep = known & (begin >= 0) & (end <= n_bins) & (end > begin)
    if lost := int((~keep).sum()):
        notes.append(f"{lost} of {len(keep)} trials lie outside the behaviour or have no whole bin, and are left out")
    late = np.zeros(len(keep), bool)
    late[np.flatnonzero(keep)[:-1]] = end[keep][:-1] > begin[keep][1:]
    if over := int(late.sum()):
        notes.append(f"{over} of {len(keep)} trials end after the next one has begun, and are left out")
        keep &= ~late
    if not keep.any():
        raise DataError(
            f"{origin}: none of its {len(keep)} trials lies inside the behaviour; give the times of both on one clock, "
            "or --trials none"
        )
    return np.stack([begin, end], 1)[keep], np.flatnonzero(keep).astype(np.int64)


def _behaviours(
    found: Found, chosen: tuple[Output, ...], options: Options, edges_ns: np.ndarray, notes: list[str]
) -> tuple[dict[str, BehaviourSpec], dict[str, np.ndarray]]:
    """What is said of each trace that is taken, and its values (T,) float32."""
    traces = {trace.name: trace for trace in found.traces}
    names = [output.called for output in chosen if output.how in ("value", "rate")]
    specs: dict[str, BehaviourSpec] = {}
    values: dict[str, np.ndarray] = {}
    for output in (each for each in chosen if each.how != "class"):
        trace, name = traces[output.source], output.called
        held = hold(trace, edges_ns, options.hold_s)
        if output.how.startswith("angle"):
            angle = held * taking.unit_of_angle(trace, output.how)
            for side in SIDES:
                specs[f"{name}_{side}"] = _spec(trace, f"{name}_{side}", unit="", group=name, angle=side)
                values[f"{name}_{side}"] = getattr(np, side)(angle).astype(np.float32)
        elif output.how == "rate":
            group = taking.point_of(name.removesuffix("_rate"), [each.removesuffix("_rate") for each in names])
            causal = f"causal: difference of the last samples over {options.derivative_ms:g} ms"
            specs[name] = _spec(
                trace, name, unit=f"{trace.unit}/s" if trace.unit else "", group=group,
                filter=f"{trace.filter}; then {causal}" if trace.filter else causal,
                filter_delay_ms=trace.filter_delay_ms + options.derivative_ms / 2,
            )  # fmt: skip
            values[name] = slope(trace, edges_ns, options).astype(np.float32)
        else:
            specs[name] = _spec(trace, name, group=taking.point_of(name, names))
            values[name] = held.astype(np.float32)
        if lost := int(np.isnan(held).sum()):
            notes.append(f"{name}: not known in {lost} of {len(edges_ns)} bins ({lost / len(edges_ns):.1%})")
    return specs, values


def _spec(trace: Trace, name: str, **more: Any) -> BehaviourSpec:
    """What a trace is, and `more` of what becomes of it."""
    said = {
        "unit": trace.unit, "sign": trace.sign or trace.about or f"as the source's {trace.name}",
        "filter": trace.filter or "none stated", "filter_delay_ms": trace.filter_delay_ms, "future_ms": trace.future_ms,
    }  # fmt: skip
    return BehaviourSpec(name, "continuous", **(said | more))


def hold(trace: Trace, edges_ns: np.ndarray, hold_s: float) -> np.ndarray:
    """(T,) float64: the last sample at or before each edge (T,), NaN where that is older than `hold_s`."""
    stamp = whole_ns(trace.t_s)
    last = np.searchsorted(stamp, edges_ns, side="right") - 1
    fresh = (last >= 0) & (edges_ns - stamp[last] <= round(hold_s * 1e9))
    return np.where(fresh, trace.values[last], np.nan)


def slope(trace: Trace, edges_ns: np.ndarray, options: Options) -> np.ndarray:
    """(T,) float64 in units/s: the last sample at or before each edge less that at or before `derivative_ms` earlier.

    It is divided by the time between the two samples, or by `derivative_ms` where the older one is far older: a value
    that is sampled only when it changes has stood still until then.
    """
    stamp, wide_ns = whole_ns(trace.t_s), round(options.derivative_ms * 1e6)
    last, old = (np.searchsorted(stamp, at, side="right") - 1 for at in (edges_ns, edges_ns - wide_ns))
    between = stamp[last] - stamp[old]
    per_s = 1e9 / np.where((between <= 0) | (between > 2 * wide_ns), wide_ns, between)
    fresh = (old >= 0) & (edges_ns - stamp[last] <= round(options.hold_s * 1e9))
    values = taking.unwrapped(trace)
    return np.where(fresh, (values[last] - values[old]) * per_s, np.nan)


def _refuse_unsorted(found: Found, chosen: tuple[Output, ...]) -> None:
    """Refuse spikes out of order, and traces that are taken without samples, or whose times go back."""
    if (found.t_s[1:] < found.t_s[:-1]).any():
        raise DataError(f"{found.name}: spike times are not in order; sort them")
    named = {output.source for output in chosen if output.how != "class"}
    for trace in (each for each in found.traces if each.name in named):
        if not len(trace.t_s):
            raise DataError(f"{found.name}: {trace.name} has no samples; leave it out of --outputs")
        if bad := int(np.isnan(trace.t_s).sum()):
            raise DataError(f"{found.name}: {bad} times of {trace.name} are NaN; remove those samples")
        if not (back := np.flatnonzero(np.diff(trace.t_s) < 0)).size:
            continue
        k = int(back[0]) + 1
        raise DataError(
            f"{found.name}: {trace.name} goes back in time at sample {k} (to {trace.t_s[k]:.9g} s); "
            "sort the samples, or cut the file where its clock was set anew"
        )


def _classes(
    output: Output, trials: Trials, segments: np.ndarray, rows: np.ndarray, n_bins: int
) -> tuple[BehaviourSpec, np.ndarray]:
    """A column of the trials as classes (T,) int64, the same in all bins of a trial."""
    column = trials.columns[output.source]
    names = taking.classes_of(column)
    if not 2 <= len(names) <= 256:
        raise ConfigError(
            f"outputs: {output.source} has {len(names)} different values, not 2 to 256; leave it out as a class"
        )
    labels, values = taking.labels_of(column)[rows], np.full(n_bins, -1, np.int64)
    for (start, stop), label in zip(segments, labels, strict=True):
        values[start:stop] = label
    sign = f"as the source's column {output.source} of its trials"
    return BehaviourSpec(output.called, "class", sign=sign, classes=tuple(names)), values


def _events(found: Found, first: int, n_bins: int, bin_ns: int, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Spikes inside the grid: t_ns (n,) int64 from the start of bin 0, and unit (n,) int32."""
    t_ns = whole_ns(found.t_s)
    low, high = np.searchsorted(t_ns, [first * bin_ns, (first + n_bins) * bin_ns]).tolist()
    if low or high < len(t_ns):
        n, outside = len(t_ns), low + len(t_ns) - high
        notes.append(
            f"{outside} of {n} spikes ({outside / n:.1%}) lie outside the behaviour's time ({low} before, {n - high} "
            "after) and are left out"
        )
    if low == high:
        raise DataError(f"{found.name}: no spike lies in the behaviour's time; give --offset, or another file")
    t_ns, unit = t_ns[low:high], found.unit[low:high].astype(np.int32, copy=False)
    if twice := spikes.repeated(t_ns, unit):
        notes.append(f"{twice} spikes are there twice: the same unit at the same time; both count")
    gaps = _silences(t_ns)
    if len(gaps):
        notes.append(f"no unit fires in {len(gaps)} stretches of a second or more (longest {gaps.max() * 1e-9:.1f} s)")
    t_ns -= first * bin_ns
    return t_ns, unit


def _silences(t_ns: np.ndarray) -> np.ndarray:
    """Lengths in ns (K,) of stretches between two spikes of any unit that are far longer than the others."""
    least = max(SILENT_NS, SILENT_TIMES * int(t_ns[-1] - t_ns[0]) // len(t_ns))
    found = []
    for at in range(0, len(t_ns), SPIKES_AT_ONCE):
        apart = np.diff(t_ns[at : at + SPIKES_AT_ONCE + 1])
        found.append(apart[apart > least])
    return np.concatenate(found)


def _observed(observed_s: np.ndarray, edges_ns: np.ndarray, bin_ns: int, notes: list[str]) -> np.ndarray:
    """(T,) bool: bins that lie inside one of the stretches (K, 2) in which all units were recorded."""
    valid = np.zeros(len(edges_ns), bool)
    for begin_s, end_s in observed_s:
        begin, end = (edges_ns[0] - bin_ns if s == -np.inf else edges_ns[-1] if s == np.inf else int(whole_ns(s))
                      for s in (begin_s, end_s))  # fmt: skip
        valid |= (edges_ns - bin_ns >= begin) & (edges_ns <= end)
    if lost := int((~valid).sum()):
        notes.append(f"{lost} of {len(valid)} bins lie where not all units were recorded, and are not valid")
    return valid


def _refuse_too_large(n_bins: int, n_units: int, origin: str) -> None:
    """Before anything so large is made: counts of a session are one number a bin and unit."""
    size, memory = n_bins * n_units * 2, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > SHARE * memory:
        raise ConfigError(
            f"{origin}: {n_bins} bins of {n_units} units take {size / 1e9:.1f} GB, and this machine has "
            f"{memory / 1e9:.1f} GB; take wider bins (--bin-ms) or fewer units (--quality)"
        )
