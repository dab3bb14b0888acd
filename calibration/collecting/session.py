"""`Session` from the logs of one or more runs of a rig: what was received, on the grid of bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.collecting.trials import STIMULATED, Trial, of_log
from neds_core.data.checks.session import VALUE_MOST, varies
from neds_core.data.checks.spec import check_spec
from neds_core.data.session import BehaviourSpec, Session, UnitTable
from neds_core.errors import DataError
from runtime.core.run_log import STATES, RunLog
from runtime.core.state import State
from runtime.core.timeline import gap_bins
from runtime.core.values import SPIKES
from runtime.core.words import LONGEST, plain
from runtime.wire import Flag

MOST_CLASSES = 16  # a label with more values is a number of the trial, not a class
STRETCH_NS = 1_000_000_000  # a shorter one without markers is no segment
DOUBT_NS = 1_500_000_000  # a sender that came back as another one may have sent for so long before it was noticed


@dataclass(frozen=True, slots=True)
class Made:
    """A session, how many segments are incomplete (cut), and what else was left out or renamed: one sentence each."""

    session: Session
    cut: int
    notes: list[str]


@dataclass(frozen=True, slots=True)
class _Part:
    """One run: its first n rows are the session's bins from `offset` on."""

    log: RunLog
    n: int
    offset: int
    valid: np.ndarray  # (n,) bool


def make(logs: Sequence[RunLog], units: UnitTable, name: str, *, marked: bool) -> Made:
    """The session of runs of the same units and bin width, with a gap of invalid bins between two of them.

    Counts and spike times as they were binned; a behaviour is its last sample at or before a bin's right edge, NaN
    where that is older than a bin. marked: segments are the trials of the markers, and their labels class outputs;
    else each unbroken stretch is a segment. Raises `DataError` where there is none.
    """
    bin_ns, parts = logs[0].header.bin_ns, _parts(logs)
    n_bins = parts[-1].offset + parts[-1].n if parts else 0
    counts, valid = np.zeros((n_bins, len(units)), np.uint16), np.zeros(n_bins, bool)
    for part in parts:
        counts[part.offset : part.offset + part.n] = part.log.counts[: part.n]
        valid[part.offset : part.offset + part.n] = part.valid
    trials, cut = _trials(parts) if marked else (_stretches(parts, bin_ns), 0)
    usable = [t for t in trials if not t.stimulated]
    if not usable:
        raise DataError(_nothing(logs, cut, len(trials), marked))
    notes: list[str] = []
    if len(usable) < len(trials):
        notes.append(f"{len(trials) - len(usable)} trials are labelled {STIMULATED}, and are left out of the session")
        trials = usable
    specs, values = _traces(parts, valid, notes)
    segments = np.array([[t.start, t.stop] for t in trials], np.int64)
    more = _classes(trials, logs[-1].header.specs, notes) if marked else ()
    for spec in more:
        values[spec.name] = _labelled(trials, spec, n_bins, notes)
    session = Session(
        name=name, bin_ns=bin_ns, units=units, counts=counts, valid=valid, specs=(*specs, *more), values=values,
        segments=segments, segment_ids=_numbers(trials, notes), events=_events(parts, bin_ns),
        starts=_starts(trials, specs, notes),
    )  # fmt: skip
    return Made(session, cut, notes)


def _parts(logs: Sequence[RunLog]) -> list[_Part]:
    """The runs laid out one after the other, those without a bin left out."""
    found: list[_Part] = []
    for log in logs:
        n = _rows(log)
        if n:
            offset = found[-1].offset + found[-1].n + gap_bins(log.header.bin_ns) if found else 0
            held = (log.flags[:n] & int(Flag.HOLD)) != 0
            silent = np.isin(log.state[:n], [STATES.index(state) for state in (State.STALLED, State.LOST)])
            found.append(_Part(log, n, offset, (log.valid[:n] | log.idle[:n]) & ~held & ~silent))
    return found


def _rows(log: RunLog) -> int:
    """How many rows of a log are of its own stream: not those after a sender came back with other units."""
    gaps = [event.t_ns for event in log.events if event.name == "spikes_gap"]
    if not log.outcome.refusal or not gaps:
        return log.n
    return int(np.searchsorted(log.t_end_ns[: log.n], max(gaps) - DOUBT_NS))


def _trials(parts: list[_Part]) -> tuple[list[Trial], int]:
    """Complete trials of all runs, in rows of the session, and how many are not complete."""
    trials: list[Trial] = []
    cut = 0
    for part in parts:
        found = of_log(part.log)
        inside = [t for t in found.trials if t.stop <= part.n]
        cut += found.cut + len(found.trials) - len(inside)
        trials += [replace(t, start=t.start + part.offset, stop=t.stop + part.offset) for t in inside]
    return trials, cut


def _stretches(parts: list[_Part], bin_ns: int) -> list[Trial]:
    """Stretches of data without a break of half a second (`gap_bins`)."""
    found: list[Trial] = []
    for part in parts:
        known = np.flatnonzero(part.valid)
        if not len(known):
            continue
        breaks = np.flatnonzero(np.diff(known) > gap_bins(bin_ns))
        starts, stops = known[np.r_[0, breaks + 1]], known[np.r_[breaks, len(known) - 1]] + 1
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            if (stop - start) * bin_ns >= STRETCH_NS:
                found.append(Trial(len(found), start + part.offset, stop + part.offset, {}))
    return found


def _nothing(logs: Sequence[RunLog], cut: int, stimulated: int, marked: bool) -> str:
    if not marked:
        return "no stretch of one second with live spikes was collected; look at their sender"
    if not any(log.marks for log in logs):
        return (
            "no marker has come, so there is no trial; look at their sender, or take input.markers out of the rig and "
            "give the same command to use what was collected without trials"
        )
    if stimulated:
        return f"all {stimulated} trials are labelled {STIMULATED}; collect some without stimulation"
    return f"no complete trial was collected, {cut} are cut; send segment_start and segment_end (docs/lsl.md)"


def _traces(
    parts: list[_Part], valid: np.ndarray, notes: list[str]
) -> tuple[list[BehaviourSpec], dict[str, np.ndarray]]:
    """Measured behaviours that a session may hold, with values (T,) float32; the others are noted."""
    specs: list[BehaviourSpec] = []
    values: dict[str, np.ndarray] = {}
    for spec in parts[-1].log.header.specs:
        if spec.kind != "continuous":
            continue
        found = np.full(len(valid), np.nan, np.float32)
        for part in parts:
            if spec.name in part.log.behaviours:
                at = part.log.behaviours[spec.name].at(part.log.t_end_ns[: part.n], part.log.header.bin_ns)
                with np.errstate(over="ignore"):
                    found[part.offset : part.offset + part.n] = at
        found[np.isinf(found)] = np.nan
        known = found[valid & np.isfinite(found)]
        reason = ""
        if not len(known):
            reason = "was not measured; look at its sender"
        elif float(np.abs(known).max()) > VALUE_MOST:
            reason = f"reaches {float(np.abs(known).max()):g}; send it in a larger unit"
        elif not varies(known):
            reason = f"stood still at {known[0]:g} {spec.unit}".rstrip() + "; look at its sensor"
        if reason:
            notes.append(f"{spec.name} is left out of the session: it {reason}")
        else:
            specs.append(spec)
            values[spec.name] = found
    return specs, values


def _classes(
    trials: list[Trial], wanted: tuple[BehaviourSpec, ...], notes: list[str]
) -> list[BehaviourSpec]:  # fmt: skip
    """Class outputs: those that are wanted, then every label with at least two texts."""
    specs = [s for s in wanted if s.kind == "class"]
    taken = {STIMULATED, *(s.name for s in wanted)}
    for name in sorted({name for t in trials for name in t.labels} - taken):
        texts = sorted({label for t in trials if isinstance(label := t.labels.get(name), str) and label})
        spec, shown = BehaviourSpec(name, "class", classes=tuple(texts)), plain(name, LONGEST)
        if not texts:
            reason = "it is no text; send the names of its classes"
        elif len(texts) == 1:
            reason = f"it was {plain(texts[0], LONGEST)!r} in every trial"
        elif len(texts) > MOST_CLASSES:
            reason = f"it has {len(texts)} values, more than {MOST_CLASSES} classes"
        else:
            try:
                check_spec(spec)
            except DataError as error:
                reason = str(error)
            else:
                specs.append(spec)
                continue
        notes.append(f"label {shown!r} is left out of the session: {reason}")
    return specs


def _starts(trials: list[Trial], specs: Sequence[BehaviourSpec], notes: list[str]) -> dict[str, np.ndarray]:
    """Where traces stood when each trial began, (S,) float64 by name, NaN = not known; what is not of one is noted."""
    traces, found = {s.name for s in specs if s.kind == "continuous"}, {}
    for name in sorted({name for t in trials for name in t.stands}):
        values = np.array([t.stands.get(name, np.nan) for t in trials], np.float64)
        beyond = np.abs(values) > VALUE_MOST
        if name not in traces:
            notes.append(f"stands of {plain(name, LONGEST)!r} is left out of the session: it has no such trace")
            continue
        if beyond.any():
            notes.append(f"stands of {name} is beyond {VALUE_MOST:g} in {int(beyond.sum())} trials, and left out there")
        values[beyond] = np.nan
        if np.isfinite(values).any():
            found[name] = values
    return found


def _labelled(trials: list[Trial], spec: BehaviourSpec, n_bins: int, notes: list[str]) -> np.ndarray:
    """(T,) int64: the class of each trial over all of its bins, -1 = unknown."""
    out = np.full(n_bins, -1, np.int64)
    strange = set()
    for trial in trials:
        if trial.fits(spec):
            out[trial.start : trial.stop] = trial.classes([spec])[spec.name]
        elif trial.labels.get(spec.name) is not None:
            strange.add(plain(repr(trial.labels[spec.name]), LONGEST))
    if strange:
        notes.append(f"{spec.name}: {sorted(strange)[0]} is none of its classes {list(spec.classes)}; left out")
    return out


def _numbers(trials: list[Trial], notes: list[str]) -> np.ndarray:
    """(S,) int64: the task's own numbers, where each is there once."""
    numbers = np.array([t.number for t in trials], np.int64)
    if len(np.unique(numbers)) == len(numbers):
        return numbers
    notes.append("the task numbered several trials alike: the session's are numbered through from 0")
    return np.arange(len(numbers), dtype=np.int64)


def _events(parts: list[_Part], bin_ns: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Spike times (n,) int64 ns from the session's first bin, in time order, and units (n,) int32; None = not kept."""
    if not any(part.log.kept for part in parts):
        return None
    times, units = [], []
    for part in parts:
        kept = np.concatenate(part.log.kept) if part.log.kept else np.zeros(0, SPIKES)
        t_ns = kept["t_ns"] - (int(part.log.t_end_ns[0]) - bin_ns)
        inside = np.flatnonzero((t_ns >= 0) & (t_ns < part.n * bin_ns))
        order = inside[np.argsort(t_ns[inside], kind="stable")]
        times.append(t_ns[order] + part.offset * bin_ns)
        units.append(kept["unit"][order])
    return np.concatenate(times), np.concatenate(units)
