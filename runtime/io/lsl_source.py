"""The source of a live run: LSL streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import numpy as np

from runtime.core.run_log import SENDER_ELSEWHERE
from runtime.core.values import NO_TIME, Mark
from runtime.io.lsl_clock import now_ns
from runtime.io.lsl_watch import GONE_S, MarkerWatch, Recheck
from runtime.io.streams import Streams
from runtime.wire import Flag

WATCH_NS = 1_000_000_000  # between two looks at whether sender and player are still what they were
SLEW_PPM = 100.0  # a sender's clock that is off by more is said
ELSEWHERE_NS = 3_000_000_000  # silent for so long, a sender is looked for under another source_id
GAP_NS = {True: 300_000_000, False: 1_000_000_000}  # with keep-alives or without: the sender may have been restarted


class LslSource:
    """The inlets of one run, opened with `with`; see `runtime.live.rims.Source`."""

    def __init__(self, streams: Streams, bin_ns: int, player_runs: Callable[[], bool] = lambda: True) -> None:
        """player_runs: False once a player that this run started has ended."""
        self.streams, self.bin_ns, self.player_runs = streams, bin_ns, player_runs
        self.alive_ns: int = NO_TIME
        self.last_marker = ""
        self.withheld = ""
        self.flags = 0
        self._refusal = ""
        self._watch_ns = self._newest_ns = NO_TIME
        self._segment = -1
        self._own_marks: list[Mark] = []
        self._events: list[tuple[str, str]] = []
        self._slewing = False
        self._recheck = Recheck(streams.recheck)
        self._gap = ""  # what happened before the data that are withheld until the sender is checked, '' = nothing
        self._looking: threading.Thread | None = None
        self._elsewhere = ""  # what to do where the spikes' name has come back under another source_id
        self._told_elsewhere = False
        self._markers: MarkerWatch | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # what is open closes where another cannot be opened
            for inlet in self.streams.all():
                stack.enter_context(inlet)
            self._open = stack.pop_all()
        if self.streams.markers is not None:
            self._markers = MarkerWatch(self.streams.markers)
            self._open.callback(self._markers.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def probe(self) -> None:
        """Start to measure the senders' clocks: the first probe takes most of a second."""
        for inlet in self.streams.all():
            inlet.clock.start()

    def wait(self, timeout_s: float) -> np.ndarray:
        """Wait for spikes (n,) `SPIKES`, at most timeout_s; reused by the next call."""
        inlet = self.streams.spikes
        spikes = inlet.pull(timeout_s)
        self.alive_ns = inlet.keep_alive_ns
        if len(spikes) or self.alive_ns > 0:
            now = now_ns()
            gap_ns = now - self._newest_ns if self._newest_ns > 0 else 0
            self._newest_ns = now
            self._told_elsewhere = False
            if gap_ns > GAP_NS[inlet.description.keep_alive]:
                self._hold(f"was silent for {gap_ns * 1e-9:.1f} s")
            if self._gap:
                self._release(now)
        return spikes

    def waiting(self) -> bool:
        """Whether samples of the spike stream have come that the next `wait` will return."""
        return self.streams.spikes.waits

    def marks(self) -> list[Mark]:
        """Marks that came since the last call, and those that stand for a sender that is gone."""
        found, self._own_marks = self._own_marks, []
        if self._markers is not None:
            found += self._markers.inlet.pull()
            self.last_marker = self._markers.inlet.last
            if found:
                self._segment = found[-1].segment
        return found

    def events(self) -> list[tuple[str, str]]:
        """What happened since the last call: (name, one sentence)."""
        found, self._events = self._events, []
        return found

    def behaviour(self) -> Iterator[tuple[str, int, float]]:
        """Samples that came since the last call."""
        for name, inlet in self.streams.behaviours.items():
            for t_ns, value in inlet.pull():
                yield name, t_ns, value

    def measured(self, now_ns: int) -> dict[str, float | None]:
        """The newest value of each behaviour, None where it is older than two bins: never an old one as new."""
        since_ns = now_ns - 2 * self.bin_ns
        return {name: inlet.latest(since_ns) for name, inlet in self.streams.behaviours.items()}

    @property
    def clock_jumps(self) -> int:
        """How often the sender's clock has stepped."""
        return self.streams.spikes.clock.jumps

    def counters(self) -> dict[str, int]:
        """What is counted here rather than by the pipeline."""
        markers = self._markers.inlet if self._markers is not None else self.streams.markers
        return {
            "spikes_lost_upstream": self.streams.spikes.lost_upstream,
            "clock_jumps": self.clock_jumps,
            "bad_markers": markers.bad if markers is not None else 0,
            "bad_labels": markers.bad_labels if markers is not None else 0,
        }

    def over(self, now_ns: int) -> str:
        """Why the run has to end: the recording is over, its player has gone, or the sender sends other units."""
        ended = self._markers is not None and self._markers.inlet.ended
        if now_ns - self._watch_ns >= WATCH_NS:
            self._watch_ns = now_ns
            if self.streams.spikes.resumed():
                self._hold("came back")
            self._watch_markers(now_ns, ended)
            self._watch_clock()
            self._watch_sender(now_ns)
            if not ended and not self.player_runs():
                return "player_gone"
        if self._refusal:
            return "stream_changed"
        return "recording_end" if ended else ""

    def refusal(self) -> str:
        """Why the spike stream may no longer be decoded, '' = it may."""
        return self._refusal

    def _watch_markers(self, now_ns: int, ended: bool) -> None:
        """A segment whose sender is gone is over: nobody runs that trial any more."""
        if self._markers is None or ended:
            return
        name, what = self._markers.inlet.info.name(), self._markers.look()
        if what == "lost":
            self._own_marks.append(Mark(now_ns, "segment_end", self._segment))
            self._events.append(
                ("markers_lost", f"the sender of {name!r} has not answered for {GONE_S:g} s; restart it")
            )
        elif what == "back":
            self._events.append(("markers_back", f"the sender of {name!r} is back"))
        self.flags = int(Flag.MARKERS_LOST) if self._markers.lost else 0

    def _watch_clock(self) -> None:
        """A sender whose clock runs at another pace is followed, and said once."""
        ppm = self.streams.spikes.clock.slew_ppm
        if abs(ppm) > SLEW_PPM and not self._slewing:
            self._slewing = True
            name = self.streams.spikes.info.name()
            self._events.append(("clock_slew", f"the clock of {name!r} is off by {abs(ppm):.0f} ppm; it is followed"))

    def _watch_sender(self, now_ns: int) -> None:
        """liblsl never connects to a sender that comes back under another source_id: say who it is."""
        silent = self._newest_ns > 0 and now_ns - self._newest_ns > ELSEWHERE_NS
        if self._elsewhere and silent and not self._told_elsewhere:
            self._told_elsewhere, self._gap, self.withheld = True, "", self._elsewhere
            self._events.append((SENDER_ELSEWHERE, self._elsewhere))
        self._elsewhere = ""
        busy = self._looking is not None and self._looking.is_alive()
        if silent and not (busy or self._told_elsewhere):
            self._looking = threading.Thread(target=self._look_elsewhere, name="elsewhere", daemon=True)
            self._looking.start()

    def _look_elsewhere(self) -> None:
        self._elsewhere = self.streams.stranger()

    def _hold(self, gap: str) -> None:
        """Publish nothing until the sender has shown that it sends what it did: liblsl connects again by name."""
        said = f"{self._named(gap)}; checking that its units are the same"
        if not self.withheld:
            self._events.append(("spikes_gap", said))
        self._gap, self.withheld = gap, said
        self._recheck.doubt()

    def _release(self, now: int) -> None:
        """End the hold where the sender is the same, and the run where it is another one; look again until then."""
        answer = self._recheck.answer(now)
        if answer is None:
            if self._recheck.unanswered:
                self.withheld = (
                    f"{self._named(self._gap)}, and its units cannot be checked: its sender does not answer; "
                    "restart it if this stays"
                )
        elif answer:
            self._refusal = answer
        else:
            self._gap = self.withheld = ""

    def _named(self, what: str) -> str:
        return f"stream {self.streams.spikes.info.name()!r} {what}"
