"""How far a collection has come: trials, minutes, units, behaviours, what looks wrong, and when it is enough."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from calibration.collecting.trials import MARKERS_LOST, Rows, Trial, find
from neds_core.data.session import BehaviourSpec
from runtime.core.run_log import RunLog
from runtime.core.values import Mark
from runtime.wire import Flag

FIRES_HZ = 0.05  # a unit that fires more seldom does not count
SOON_S = 10.0  # after so long without a spike, a marker or a sample of behaviour it is said
STUCK_S = 20.0  # a behaviour that keeps one value for so long is said
ONE_CLASS = 10  # labelled trials of one class alone
GAP_SHARE = 0.02  # of the bins without live data
SPIKES = ("quarantined", "late", "out_of_range", "resent", "dropped_backlog", "lost_upstream")
SPIKE_SHARE = 0.001


@dataclass(frozen=True, slots=True)
class Goal:
    """What ends a collection by itself: labelled trials, minutes of valid bins (inside trials, where there are any);
    None = neither. Scores are no part of it."""

    trials: int | None = None
    minutes: float | None = None


@dataclass(slots=True)
class _Trace:
    """One behaviour so far: its range, and since when it has had its newest value (ns); None = nothing came."""

    low: float = math.inf
    high: float = -math.inf
    value: float = math.nan
    since_ns: int | None = None
    newest_ns: int | None = None


@dataclass(slots=True)
class _Run:
    """The run that is going on, as far as trials need it."""

    rows: Rows
    valid: np.ndarray
    marks: list[Mark] = field(default_factory=list)
    lost_ns: set[int] = field(default_factory=set)


class Progress:
    """Fed each block once it is on the disk. Read it from any thread: `enough` and `state` are exchanged whole."""

    def __init__(
        self, specs: tuple[BehaviourSpec, ...], behaviours: tuple[str, ...], goal: Goal, *, marked: bool
    ) -> None:  # fmt: skip
        """specs: outputs that are wanted. behaviours: names of the streams. marked: the rig has markers."""
        self.specs, self.goal, self.marked = specs, goal, marked
        self.trials: list[Trial] = []  # of all runs; rows are those of their run
        self.cut = self.stimulated = 0
        self.gaps = self.bins = self.all_bins = self._bin_ns = 0  # bins without live data and all, of this run; of all
        self.spikes = np.zeros(0, np.int64)  # (U,) so far
        self.traces = {name: _Trace() for name in behaviours}
        self.counters: Mapping[str, int] = {}  # of the run that is going on, by name
        self.enough = False
        self.valid_bins = 0
        self._live = False
        self._run: _Run | None = None
        self._before = (0, 0, 0, 0)  # trials, cut, stimulated and valid bins of the runs before
        self._began_done = 0.0

    def begin(self) -> None:
        """What comes next is of another run."""
        self._before = (len(self.trials), self.cut, self.stimulated, self.valid_bins)
        self._run, self._live = None, False
        self._began_done, self.bins, self.gaps = self.done(), 0, 0
        for trace in self.traces.values():
            trace.newest_ns = trace.since_ns = None

    def take(self, block: RunLog) -> None:
        """One block of the run."""
        if block.n:
            self._rows(block)
        for name, trace in block.behaviours.items():
            self._trace(self.traces.setdefault(name, _Trace()), np.array(trace.t_ns), np.array(trace.values))
        if self._run is not None:
            self._run.marks += block.marks
            self._run.lost_ns |= {e.t_ns for e in block.events if e.name == MARKERS_LOST}
            self._count(self._run)
        self.enough = self.done() >= 1.0

    def _rows(self, block: RunLog) -> None:
        n, rows = block.n, Rows.of(block)
        self._bin_ns = rows.bin_ns
        valid = (block.valid[:n] | block.idle[:n]) & ((block.flags[:n] & int(Flag.HOLD)) == 0)
        run = self._run
        if run is None:
            self._run = _Run(rows, valid)
        else:
            run.rows.idle = np.concatenate([run.rows.idle, rows.idle])
            run.rows.segment = np.concatenate([run.rows.segment, rows.segment])
            run.valid = np.concatenate([run.valid, valid])
        first = int(valid.argmax()) if valid.any() else n
        self.gaps += int((~valid[0 if self._live else first :]).sum())  # before the first spike nothing is amiss
        self._live = self._live or first < n
        self.bins, self.all_bins = self.bins + n, self.all_bins + n
        found = block.counts[:n].sum(0, dtype=np.int64)
        self.spikes = found + self.spikes if len(self.spikes) else found

    def _trace(self, trace: _Trace, t_ns: np.ndarray, values: np.ndarray) -> None:
        finite = np.isfinite(values)
        if not finite.any():
            return
        t_ns, values = t_ns[finite], values[finite]
        trace.low, trace.high = min(trace.low, float(values.min())), max(trace.high, float(values.max()))
        moved = np.flatnonzero(values != np.r_[trace.value, values[:-1]])
        if trace.since_ns is None or len(moved):
            trace.since_ns = int(t_ns[moved[-1] if len(moved) else 0])
        trace.value, trace.newest_ns = float(values[-1]), int(t_ns[-1])

    def _count(self, run: _Run) -> None:
        trials, cut, stimulated, valid_bins = self._before
        if not self.marked:
            self.valid_bins = valid_bins + int(run.valid.sum())
            return
        found = find(run.marks, run.rows, run.lost_ns)
        usable = [t for t in found.trials if not t.stimulated]
        self.trials = [*self.trials[:trials], *usable]
        self.cut, self.stimulated = cut + found.cut, stimulated + len(found.trials) - len(usable)
        self.valid_bins = valid_bins + sum(int(run.valid[t.start : t.stop].sum()) for t in usable)

    @property
    def labelled(self) -> int:
        """Complete trials with a class of an output that is wanted; with any label, where no class is; with or
        without, where no trial has one."""
        classes = [s for s in self.specs if s.kind == "class"]
        if classes:
            return sum(bool(t.classes(classes)) for t in self.trials)
        return sum(bool(t.labels) for t in self.trials) or len(self.trials)

    @property
    def minutes(self) -> float:
        """Of valid bins, inside trials where the rig has markers."""
        return self.valid_bins * self._bin_ns / 6e10

    def done(self) -> float:
        """Share of the goal that is reached, the larger one of two goals; 0 without a goal."""
        shares = [0.0]
        if self.goal.trials is not None:
            shares.append(self.labelled / self.goal.trials)
        if self.goal.minutes is not None:
            shares.append(self.minutes / self.goal.minutes)
        return max(shares)

    def left_min(self) -> float | None:
        """Minutes to go at the pace of this run; None where nothing can be said of it."""
        gained = self.done() - self._began_done
        ran_min = self.bins * self._bin_ns / 6e10
        return None if gained <= 0 else max(0.0, (1.0 - self.done()) / gained * ran_min)

    def classes(self) -> dict[str, Counter[str]]:
        """Trials of each class: of the outputs that are wanted, or of every label that is a text."""
        wanted = [s for s in self.specs if s.kind == "class"]
        found: dict[str, Counter[str]] = {s.name: Counter(dict.fromkeys(s.classes, 0)) for s in wanted}
        for trial in self.trials:
            for name, label in trial.labels.items():
                if isinstance(label, str) and (not wanted or label in found.get(name, ())):
                    found.setdefault(name, Counter())[label] += 1
        return found

    def units(self) -> tuple[int, int]:
        """Units that have fired above `FIRES_HZ`, and units."""
        seconds = self.all_bins * self._bin_ns * 1e-9
        return int((self.spikes > FIRES_HZ * seconds).sum()), len(self.spikes)

    def warnings(self) -> list[str]:
        """What looks wrong, in one sentence each."""
        found, run = [], self._run
        seconds = self.bins * self._bin_ns * 1e-9
        if run is None or seconds < SOON_S:
            return found
        now_ns = run.rows.grid_ns + self.bins * self._bin_ns
        if not self.spikes.any():
            found.append(f"no spike has come in {seconds:.0f} s; look at their sender")
        if self.marked and not run.marks:
            found.append(f"no marker has come in {seconds:.0f} s; look at their sender")
        for name, trace in self.traces.items():
            if trace.newest_ns is None or now_ns - trace.newest_ns > SOON_S * 1e9:
                if not self.marked or trace.newest_ns is None:
                    found.append(f"{name}: no sample has come for {SOON_S:.0f} s or more; look at its sender")
            elif trace.since_ns is not None and trace.newest_ns - trace.since_ns > STUCK_S * 1e9:
                stuck_s = (trace.newest_ns - trace.since_ns) * 1e-9
                found.append(f"{name} has stood still at {trace.value:g} for {stuck_s:.0f} s; look at its sensor")
        for name, each in self.classes().items():
            (label, n), *_ = each.most_common(1) or [("", 0)]
            if n >= ONE_CLASS and n == each.total():
                found.append(f"{name} was {label!r} in each of {n} trials: one class teaches nothing")
        gaps = self.gaps / max(1, self.bins)
        if gaps > GAP_SHARE:
            found.append(f"{gaps:.0%} of the bins had no live spikes; look at their sender and the network")
        received = self.counters.get("spikes_received", 0)
        for name in SPIKES:
            n = self.counters.get(f"spikes_{name}", 0)
            if n > SPIKE_SHARE * received:
                found.append(f"{n} of {received} spikes were {name.replace('_', ' ')}; see docs/rig.md")
        return found
