"""Play a recording as real LSL streams in real time, from a process of its own."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import numpy as np
import pylsl

from neds_core.data.session import Session
from neds_core.errors import StreamError
from runtime.core.timeline import Segment, gap_bins, inside_ns, timeline
from runtime.io.lsl_clock import now_ns
from runtime.io.lsl_description import Declared, describe, describe_channel
from runtime.io.unit_stream import keep_alive

LEAD_S = 1.0  # between the first consumer and the first segment
AHEAD_NS = 200_000_000  # markers are sent this long before they apply
SLICES, SLICE_NS = 4, 1_000_000  # chunks of spikes sent per bin, and the shortest time between two of them


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without the garbage collector: a pause of the sender would be read as one of the decoder."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


class Pushes:
    """When each chunk was to be sent, when the player woke for it, and when its spikes and keep-alive were out: ns."""

    def __init__(self, capacity: int) -> None:
        self.rows, self.n = np.zeros((capacity, 3), np.int64), 0

    def note(self, due_ns: int, woke_ns: int, sent_ns: int) -> None:
        """One chunk; beyond the capacity nothing is kept."""
        if self.n < len(self.rows):
            self.rows[self.n] = due_ns, woke_ns, sent_ns
            self.n += 1

    def kept(self) -> np.ndarray:
        """(n, 3) int64."""
        return self.rows[: self.n]


class Player:
    """The outlets of one playback, named PREFIX-spikes, PREFIX-markers and PREFIX-<behaviour>."""

    def __init__(self, session: Session, prefix: str, behaviours: str = "recorded", parent: int = 0) -> None:
        """behaviours: `recorded`, `noise`, `permuted` or `absent` (what the decoder must not care about).

        parent: id of the process to end with, 0 = none.
        """
        self.session = session
        rate = float(session.counts.sum() / (session.n_bins * session.bin_ns * 1e-9))
        spikes = pylsl.StreamInfo(
            f"{prefix}-spikes", "Spikes", 1, pylsl.IRREGULAR_RATE, pylsl.cf_int32, f"{prefix}-spikes"
        )
        describe(spikes, session.units, "replay", rate)
        self.spikes = pylsl.StreamOutlet(spikes)
        markers = pylsl.StreamInfo(
            f"{prefix}-markers", "Markers", 1, pylsl.IRREGULAR_RATE, pylsl.cf_string, f"{prefix}-markers"
        )
        markers.desc().append_child("neds_rt").append_child_value("source", "replay")
        self.markers = pylsl.StreamOutlet(markers)
        self.traces = self._traces(behaviours)
        self.behaviours = {name: self._outlet(prefix, name) for name in self.traces}
        self.sent = 0
        self.parent = parent

    def _traces(self, mode: str) -> dict[str, np.ndarray]:
        traces = {s.name: self.session.values[s.name] for s in self.session.specs if s.kind == "continuous"}
        rng = np.random.default_rng(0)
        if mode == "absent":
            return {}
        if mode == "noise":
            return {name: rng.standard_normal(len(v)).astype(np.float32) for name, v in traces.items()}
        if mode == "permuted":
            return {name: rng.permutation(v) for name, v in traces.items()}
        return traces

    def _outlet(self, prefix: str, name: str) -> pylsl.StreamOutlet:
        rate = 1e9 / self.session.bin_ns
        info = pylsl.StreamInfo(f"{prefix}-{name}", "Behaviour", 1, rate, pylsl.cf_float32, f"{prefix}-{name}")
        spec = self.session.spec(name)
        describe_channel(info, name, Declared(spec.unit, spec.sign, spec.filter, spec.filter_delay_ms, spec.future_ms))
        info.desc().append_child("neds_rt").append_child_value("source", "replay")
        return pylsl.StreamOutlet(info)

    def _orphaned(self) -> bool:
        return self.parent != 0 and os.getppid() != self.parent

    def wait(self, timeout_s: float) -> None:
        """Until somebody listens to the spikes. Raises `StreamError` after timeout_s, or when the parent has ended."""
        deadline = time.monotonic() + timeout_s
        while not self.spikes.wait_for_consumers(0.5):
            if time.monotonic() > deadline or self._orphaned():
                raise StreamError(f"nobody connected within {timeout_s:g} s; start `neds-rt run` first or raise --wait")

    def play(
        self, shift_ns: int = 0, push_ns: int = 0, pushes: Pushes | None = None, *, repeat: bool = False
    ) -> None:  # fmt: skip
        """Send everything at its own time. Returns when the recording has ended, or the parent process has.

        push_ns: between two chunks of spikes, 0 = a quarter of a bin. The schedule is open: a chunk that is late does
        not move the next. pushes: is told of each. repeat: from the beginning again, as long as the parent lives.
        """
        bin_ns, lead_ns = self.session.bin_ns, int(LEAD_S * 1e9)
        plan = timeline(self.session, shift_ns)
        zero_ns = (now_ns() + lead_ns) // bin_ns * bin_ns + bin_ns
        edge_ns = zero_ns - lead_ns // bin_ns * bin_ns
        push_ns = push_ns or bin_ns // max(1, min(SLICES, bin_ns // SLICE_NS))
        with _undisturbed():
            edge_ns = self._round(plan, zero_ns, edge_ns, push_ns, pushes, repeat)
            while repeat and not self._orphaned():
                zero_ns = -(-(edge_ns + lead_ns) // bin_ns) * bin_ns
                edge_ns = self._round(plan, zero_ns, edge_ns, push_ns, pushes, repeat)
        time.sleep(0.5)  # the last samples leave before the outlets close

    def _round(
        self, plan: list[Segment], zero_ns: int, edge_ns: int, push_ns: int, pushes: Pushes | None, repeat: bool
    ) -> int:
        """Send the plan once, from its first edge zero_ns on; edge_ns: when the first chunk is due. Returns the next.

        repeat: nothing says at its end that the recording is over.
        """
        bin_ns = self.session.bin_ns
        t_ns = np.concatenate([s.t_ns for s in plan]) + zero_ns
        unit = np.concatenate([s.unit for s in plan]).astype(np.int32)
        notes = self._notes(plan, zero_ns)[: -1 if repeat else None]
        values = self._values(plan, zero_ns)
        end_ns = zero_ns + plan[-1].start_ns + (plan[-1].n_bins + gap_bins(bin_ns)) * bin_ns
        at = note = value = 0
        said_ns = (edge_ns - push_ns) // bin_ns * bin_ns + bin_ns  # the next bin edge that a keep-alive is to pass
        while edge_ns <= end_ns and not self._orphaned():
            upto = int(np.searchsorted(t_ns, edge_ns))
            units, stamps_s = unit[at:upto], (t_ns[at:upto] * 1e-9).tolist()
            self.sent += upto - at
            at = upto
            if edge_ns >= said_ns:  # with its spikes: one message, and one waking of who listens
                units = np.append(units, np.int32(keep_alive(self.sent)))
                stamps_s.append(edge_ns * 1e-9)
                said_ns += (edge_ns - said_ns) // bin_ns * bin_ns + bin_ns
            chunk = units[:, None]
            self._sleep_until(edge_ns)
            woke_ns = now_ns() if pushes is not None else 0
            if len(chunk):
                self.spikes.push_chunk(chunk, stamps_s)
            if pushes is not None:
                pushes.note(edge_ns, woke_ns, now_ns())
            while note < len(notes) and notes[note][0] <= edge_ns + AHEAD_NS:
                self.markers.push_sample([notes[note][1]], notes[note][0] * 1e-9)
                note += 1
            while value < len(values) and values[value][0] <= edge_ns:
                stamp, row = values[value]
                for name, trace in self.traces.items():
                    self.behaviours[name].push_sample([float(trace[row])], stamp * 1e-9)
                value += 1
            edge_ns += push_ns
        return edge_ns

    def _notes(self, plan: list[Segment], zero_ns: int) -> list[tuple[int, str]]:
        """Markers (t_ns, JSON): starts and ends of segments, labels only at the ends, and the end of it all."""
        bin_ns = self.session.bin_ns
        notes, inside = [], inside_ns(bin_ns)
        for s in plan:
            begin, end = zero_ns + s.start_ns, zero_ns + s.start_ns + s.n_bins * bin_ns
            start: dict[str, object] = {"event": "segment_start", "segment": s.number, "bin": s.first_bin}
            if s.stands:
                start["stands"] = s.stands
            stop = {"event": "segment_end", "segment": s.number, "labels": s.labels}
            notes.append((begin + inside, msgspec.json.encode(start).decode()))
            notes.append((end - inside, msgspec.json.encode(stop).decode()))
        over = notes[-1][0] + (gap_bins(bin_ns) - 1) * bin_ns
        notes.append((over, msgspec.json.encode({"event": "recording_end"}).decode()))
        return notes

    def _values(self, plan: list[Segment], zero_ns: int) -> list[tuple[int, int]]:
        """Behaviour samples (t_ns, row of the recording), just before each bin's right edge."""
        bin_ns = self.session.bin_ns
        inside = inside_ns(bin_ns)
        return [
            (zero_ns + s.start_ns + (i + 1) * bin_ns - inside, s.first_bin + i) for s in plan for i in range(s.n_bins)
        ]

    @staticmethod
    def _sleep_until(t_ns: int) -> None:
        left = (t_ns - now_ns()) * 1e-9
        if left > 0:
            time.sleep(left)
