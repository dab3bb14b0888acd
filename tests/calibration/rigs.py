"""A rig without LSL: a recording driven through the loop as `neds-rt collect` drives it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from neds_core.data.session import BehaviourSpec, Session
from runtime.core.binning import Binner
from runtime.core.pipeline import Pipeline, Rules
from runtime.core.run_log import RunLog, describe
from runtime.core.timeline import inside_ns, timeline
from runtime.core.values import Mark
from runtime.engines import nothing
from runtime.live.loop import Plan, run
from runtime.live.offline import NoSink, SessionSource, SteppedClock


class Rig(SessionSource):
    """The segments of a recording with their behaviour; markers come `late_ns` after their stamp, or all at once."""

    def __init__(self, session: Session, clock: SteppedClock, late_ns: int | None = None) -> None:
        plan = timeline(session)
        super().__init__(plan, session.bin_ns, clock)
        self._late_ns, self._waiting = late_ns, self._marks
        self.end_ns += late_ns or 0
        inside = inside_ns(session.bin_ns)
        self._samples = [
            (s.start_ns + (i + 1) * session.bin_ns - inside, name, float(values[s.first_bin + i]))
            for s in plan for i in range(s.n_bins) for name, values in session.values.items()
            if values.dtype.kind == "f"
        ]  # fmt: skip

    def marks(self) -> list[Mark]:
        if self._late_ns is None:
            return super().marks()
        due = [m for m in self._waiting if m.t_ns + self._late_ns <= self.clock.t_ns]
        self._waiting = self._waiting[len(due) :]
        return due

    def behaviour(self) -> Iterable[tuple[str, int, float]]:
        while self._samples and self._samples[0][0] <= self.clock.t_ns:
            t_ns, name, value = self._samples.pop(0)
            yield name, t_ns, value


def collected(
    session: Session, *, markers: bool = True, late_ns: int | None = None, log: RunLog | None = None,
    specs: tuple[BehaviourSpec, ...] | None = None, **header: Any,
) -> RunLog:  # fmt: skip
    """The log of a run over a recording. log: is written to; None = a whole one. specs: wanted, None = all of it."""
    clock, bin_ns = SteppedClock(), session.bin_ns
    source = Rig(session, clock, late_ns)
    decoder = nothing.decoder(session.units, bin_ns)
    binner = Binner(len(session.units), bin_ns, max_age_ns=10**10, future_ns=2_000_000)
    pipeline = Pipeline(binner, decoder, Rules(markers=markers, keep_alive=True, far_ns=60_000_000_000))
    if log is None:
        log = RunLog(header_of(session, specs, **header), source.end_ns // bin_ns, len(session.units), 0)
    binner.kept = log.kept
    run(source, pipeline, NoSink(), clock, log, Plan(20_000_000))
    return log


def header_of(session: Session, specs: tuple[BehaviourSpec, ...] | None = None, **more: Any) -> Any:
    """The header of such a run."""
    from msgspec.structs import replace as with_

    more = {"rig": "r", "source": "synthetic", "budget_ms": 20.0} | more
    made = describe(nothing.decoder(session.units, session.bin_ns), **more)
    return with_(made, specs=session.specs if specs is None else specs)


def first(session: Session, n: int) -> Session:
    """Its first segments."""
    return replace(session, segments=session.segments[:n], segment_ids=session.segment_ids[:n])


def inside(session: Session) -> dict[str, np.ndarray]:
    """What a session says of the bins of its segments."""
    bins = session.bins()
    return {"counts": session.counts[bins], **{name: v[bins] for name, v in session.values.items()}}


def same(one: Session, other: Session) -> None:
    """Both say the same inside their segments."""
    ours, theirs = inside(one), inside(other)
    assert list(ours) == list(theirs)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    np.testing.assert_array_equal(one.segment_ids, other.segment_ids)
    assert one.units.sha256 == other.units.sha256
    assert one.specs == other.specs
