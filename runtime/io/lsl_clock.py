"""The LSL clock of this machine, and the line that maps a sender's clock to it."""

from __future__ import annotations

import socket
import statistics
import threading
from collections import deque
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pylsl
from pylsl.util import LostError, TimeoutError as LslTimeout

from neds_core.errors import StreamError

SAME_CLOCK_S = 1e-3  # a stream of this host within this offset stamps with this very clock
PROBE_S = 2.0
PROBES = 8  # that the line is fitted to
STEP_S = 1e-3  # a probe further off the line than this, and than its slack, is a hiccup or a step
SLACK = {True: 1e-4, False: 1e-3}  # seconds a second, with 4 probes or more, or fewer: how well the slope is known
FASTEST = 1e-3  # slopes are cut at 1000 ppm: no crystal is worse


def now_ns() -> int:
    """The LSL clock of this machine in ns."""
    return round(pylsl.local_clock() * 1e9)


class ClockMap:
    """Offset from a sender's clock to ours: a line through the newest probes, taken off the loop.

    The line follows a sender whose clock is slower or faster (slew); between probes it goes on. A stream of this host
    whose offset is within 1 ms uses this very clock: its offset is 0 by fact, not by estimate.
    """

    def __init__(
        self, inlet: pylsl.StreamInlet, info: pylsl.StreamInfo, clock: Callable[[], int] = now_ns
    ) -> None:  # fmt: skip
        """clock: ns, of this machine."""
        self.inlet, self.name, self.clock = inlet, info.name(), clock
        self.same_host = info.hostname() == socket.gethostname()
        self.jumps = 0
        self._line = (0, 0, 0.0)  # when, the offset then in ns, and its slope
        self._probes: deque[tuple[int, float]] = deque(maxlen=PROBES)  # (when in ns, offset in s)
        self._suspect: tuple[int, float] | None = None
        self._stop, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._probe, name="lsl-clock", daemon=True)

    @property
    def line(self) -> tuple[int, int, float]:
        """When the line was fitted, the offset then in ns, and its slope."""
        return self._line

    @property
    def offset_ns(self) -> int:
        """What to add to a stamp of the sender, now."""
        at_ns, offset_ns, slope = self.line
        return offset_ns if slope == 0.0 else offset_ns + round(slope * (self.clock() - at_ns))

    def here(self, t_ns: np.ndarray) -> np.ndarray:
        """Stamps (n,) int64 of the sender on our clock, by the line at each."""
        at_ns, offset_ns, slope = self.line
        here = t_ns + offset_ns
        return here if slope == 0.0 else here + np.rint(slope * (here - at_ns)).astype(np.int64)

    @property
    def slew_ppm(self) -> float:
        """By how much the sender's clock runs fast (negative) or slow, in parts per million."""
        return self._line[2] * 1e6

    def start(self) -> None:
        """Probe in the background: at once (the first takes most of a second), then every 2 s."""
        if not self._thread.is_alive():
            self._thread.start()

    def wait(self, timeout_s: float = 10.0) -> None:
        """Until the first probe is done. Raises `StreamError` where it never is."""
        if not self._ready.wait(timeout_s):
            raise StreamError(f"the sender of {self.name!r} does not answer clock probes; restart it")

    def stop(self) -> None:
        """End the probes."""
        self._stop.set()

    def _probe(self) -> None:
        self._update(8.0)
        while not self._stop.wait(PROBE_S):
            self._update(1.0)

    def _update(self, timeout_s: float) -> None:
        try:
            offset = self.inlet.time_correction(timeout_s)
        except (LslTimeout, LostError):
            return  # the line goes on; liveness is judged by samples, never by probes
        found = (self.clock(), offset)
        if self._ready.is_set() and self._off_the_line(found):
            if self._suspect is None:
                self._suspect = found  # one probe may be a hiccup, two are a clock that stepped
                return
            self.jumps += 1
            self._probes.clear()
            self._probes.append(self._suspect)
        self._suspect = None
        self._probes.append(found)
        self._line = self._fitted()
        self._ready.set()

    def _off_the_line(self, found: tuple[int, float]) -> bool:
        at_ns, offset_ns, slope = self._line
        since_s = (found[0] - self._probes[-1][0]) * 1e-9
        expected = offset_ns * 1e-9 + slope * (found[0] - at_ns) * 1e-9
        return abs(found[1] - expected) > STEP_S + SLACK[len(self._probes) >= 4] * since_s

    def _fitted(self) -> tuple[int, int, float]:
        """The line by medians (Theil-Sen): its slope of all pairs of probes, its height of all probes."""
        at_ns = self._probes[-1][0]
        if self.same_host and abs(statistics.median(o for _, o in self._probes)) < SAME_CLOCK_S:
            return at_ns, 0, 0.0
        slope = 0.0
        if len(self._probes) >= 3:
            slope = statistics.median((b[1] - a[1]) / ((b[0] - a[0]) * 1e-9) for a, b in combinations(self._probes, 2))
            slope = max(-FASTEST, min(FASTEST, slope))
        height = statistics.median(o - slope * (t - at_ns) * 1e-9 for t, o in self._probes)
        return at_ns, round(height * 1e9), slope
