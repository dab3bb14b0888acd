"""The loop over a recording with a made-up clock: what a run would have decoded, without sockets."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.data.session import Session
from runtime.core.accounting import Accounting
from runtime.core.binning import Binner
from runtime.core.health import Limits
from runtime.core.pipeline import Pipeline, Rules
from runtime.core.run_log import RunLog, describe
from runtime.core.state import State
from runtime.core.timeline import Segment, gap_bins, inside_ns, timeline
from runtime.core.values import SPIKES, Decoded, Mark
from runtime.engines import create as engines, prepare
from runtime.live.loop import Plan, run

BUDGET_MS = 20.0


class SteppedClock:
    """A clock that the source sets. The process beside it spends nothing."""

    t_ns = 0

    def now_ns(self) -> int:
        return self.t_ns

    def cpu_ns(self) -> int:
        return 0

    def faults(self) -> int:
        return 0

    def gc_ns(self) -> int:
        return 0

    def stolen_ms(self) -> float:
        return 0.0


class NoSink:
    """Nobody listens: what was decoded is in the log."""

    def note(self, decoded: Decoded) -> None: ...
    def estimate(self, decoded: Decoded, now_ns: int, flags: int) -> None: ...
    def measured(self, now_ns: int, values: dict[str, float | None]) -> None: ...
    def status(self, now_ns: int, state: State, accounting: Accounting) -> None: ...
    def event(self, now_ns: int, name: str, detail: str) -> None: ...


class SessionSource:
    """The segments of a recording, a bin at each call of `wait`, every spike and keep-alive on time."""

    last_marker = withheld = ""
    clock_jumps = flags = 0

    def __init__(self, plan: list[Segment], bin_ns: int, clock: SteppedClock) -> None:
        self.clock, self.bin_ns, self.alive_ns = clock, bin_ns, 0
        t_ns = np.concatenate([s.t_ns for s in plan])
        self.spikes = np.zeros(len(t_ns), SPIKES)
        self.spikes["t_ns"], self.spikes["unit"] = t_ns, np.concatenate([s.unit for s in plan])
        self.end_ns = sum(s.n_bins + gap_bins(bin_ns) for s in plan) * bin_ns
        self._at = 0
        self._marks, inside = [], inside_ns(bin_ns)
        for s in plan:
            end_ns = s.start_ns + s.n_bins * bin_ns
            self._marks.append(Mark(s.start_ns + inside, "segment_start", s.number, {}, s.first_bin, s.stands))
            self._marks.append(Mark(end_ns - inside, "segment_end", s.number, dict(s.labels)))

    def wait(self, timeout_s: float) -> np.ndarray:
        """Go to the next edge; the spikes before it."""
        edge_ns = self.clock.t_ns = self.alive_ns = self.clock.t_ns + self.bin_ns
        upto = int(np.searchsorted(self.spikes["t_ns"], edge_ns))
        found, self._at = self.spikes[self._at : upto], upto
        return found

    def marks(self) -> list[Mark]:
        """All of them, at the first call."""
        found, self._marks = self._marks, []
        return found

    def behaviour(self) -> Iterable[tuple[str, int, float]]:
        """None: what was measured is in the recording (`runtime.scoring.truth.of_session`)."""
        return ()

    def measured(self, now_ns: int) -> dict[str, float | None]:
        return {}

    def counters(self) -> dict[str, int]:
        return {"spikes_lost_upstream": 0, "clock_jumps": 0, "bad_markers": 0}

    def events(self) -> list[tuple[str, str]]:
        return []

    def over(self, now_ns: int) -> str:
        """At the end of the last gap."""
        return "recording_end" if now_ns >= self.end_ns else ""

    def refusal(self) -> str:
        return ""


def stream(
    checkpoint: Checkpoint, session: Session, decoder: str, *, markers: bool = True, silence: bool = True,
    shift_ns: int = 0,
) -> RunLog:  # fmt: skip
    """Decode every segment of `session` as a run would; returns its log.

    Without markers the gaps between segments are silences; `silence`: judge them, so that the decoder starts cold after
    each. Nothing else of the input is judged.
    """
    made = engines.decoder(checkpoint, decoder)
    if not markers:
        prepare.refuse_endless(made)
    bin_ns = session.bin_ns
    binner = Binner(len(session.units), bin_ns, max_age_ns=10**10, future_ns=2_000_000)
    plan, clock = timeline(session, shift_ns), SteppedClock()
    n_tokens = sum(s.n_bins + gap_bins(bin_ns) for s in plan)
    header = describe(made, rig=session.name, source="synthetic", budget_ms=BUDGET_MS)
    log = RunLog(header, n_tokens, len(session.units), made.engine.layout.n_values)
    limits = (lambda of: Limits(used=of.used, silence_ns=of.silence_ns)) if silence and not markers else None
    pipeline = Pipeline(binner, made, Rules(markers=markers), limits=limits)
    run(SessionSource(plan, bin_ns, clock), pipeline, NoSink(), clock, log, Plan(int(BUDGET_MS * 1e6)))
    return log
