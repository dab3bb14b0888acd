"""LSL inlets: samples in, `SPIKES`, markers and measured behaviour out. The only place with float seconds."""

from __future__ import annotations

from types import TracebackType
from typing import Annotated, Self

import msgspec
import numpy as np
import pylsl
from msgspec import Meta, Struct

from runtime.core.values import NO_TIME, SPIKES, Label, Mark
from runtime.io.lsl_clock import ClockMap, now_ns
from runtime.io.lsl_description import KEEP_ALIVE_MODULUS, Description

MAX_PULL = 65_536
BUFFER_S = 10
UNKNOWN_RATE_HZ = 20_000.0  # sizes the buffer of a stream that declares no rate
DELAYS_KEPT = 1 << 20
SANE_S = 1e9  # no LSL clock has run for 30 years: a stamp beyond is not one


class Delays:
    """Arrival minus stamp of the newest samples of a stream, in ms."""

    def __init__(self, capacity: int) -> None:
        self.ms = np.zeros(capacity, np.float32)
        self.n = 0

    def note(self, arrival_ns: int, t_ns: np.ndarray) -> None:
        """Samples stamped t_ns (n,) int64 came at arrival_ns."""
        newest = t_ns[-len(self.ms) :]
        at = (self.n + np.arange(len(newest))) % len(self.ms)
        self.ms[at] = (arrival_ns - newest) * 1e-6
        self.n += len(newest)

    def kept(self) -> np.ndarray:
        """(n,) float32, in no particular order."""
        return self.ms[: self.n]


class Inlet:
    """One LSL stream, opened with `with`; its clock may be started earlier to save time."""

    def __init__(self, info: pylsl.StreamInfo, max_buflen: int = 360, delays_kept: int = 1 << 16) -> None:
        self.info = info
        self.delays = Delays(delays_kept)
        self.inlet = pylsl.StreamInlet(info, max_buflen=max_buflen, processing_flags=pylsl.proc_none)
        self.clock = ClockMap(self.inlet, info)

    def __enter__(self) -> Self:
        self.clock.start()
        self.clock.wait()
        self.inlet.open_stream(timeout=10.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clock.stop()

    def _note_arrival(self, stamps: list[float] | np.ndarray) -> None:
        """Samples with these LSL stamps have just come."""
        if len(stamps) == 0:  # most passes of the loop
            return
        known = np.asarray(stamps, np.float64)
        known = known[np.abs(known) < SANE_S]
        if len(known):
            self.delays.note(now_ns(), np.rint(known * 1e9).astype(np.int64) + self.clock.offset_ns)


class SpikeInlet(Inlet):
    """Spike events of one LSL stream (layout events_unit), stamps mapped to the local clock in ns.

    Where the stream declares keep-alives, a negative value v is one: -1 - (spikes sent mod
    2**31 - 1). It carries no spike; it moves the watermark and counts what was lost on the way.
    """

    def __init__(self, info: pylsl.StreamInfo, description: Description) -> None:
        super().__init__(info, self._buffer(2.0 * description.rate_hz or UNKNOWN_RATE_HZ), DELAYS_KEPT)
        self.description = description
        self.units = np.zeros((MAX_PULL, 1), np.int32)
        self.spikes = np.zeros(MAX_PULL, SPIKES)
        self.received = 0
        self.lost_upstream = 0
        self._sent_base: int | None = None
        self.keep_alive_ns = NO_TIME

    @staticmethod
    def _buffer(rate_hz: float) -> int:
        """max_buflen for BUFFER_S seconds: an irregular stream keeps 100 samples per unit of it."""
        return max(1, int(np.ceil(rate_hz * BUFFER_S / 100)))

    def pull(self, timeout_s: float) -> np.ndarray:
        """Wait for the next samples, at most timeout_s; returns spikes (n,) `SPIKES`, reused.

        `keep_alive_ns` is then the newest keep-alive stamp of this pull, or NO_TIME.
        """
        _, stamps = self.inlet.pull_chunk(
            timeout=timeout_s, max_samples=MAX_PULL, dest_obj=self.units, min_samples=1, as_numpy=True
        )
        self.keep_alive_ns = NO_TIME
        n = len(stamps)
        if n == 0:
            return self.spikes[:0]
        arrival_ns = now_ns()
        units = self.units[:n, 0]
        sane = np.abs(stamps) < SANE_S  # NaN and infinite stamps fail this too
        t_ns = np.rint(np.where(sane, stamps, 0.0) * 1e9).astype(np.int64) + self.clock.offset_ns
        t_ns[~sane] = NO_TIME
        spike = np.ones(n, bool)
        if self.description.keep_alive:
            spike = units >= 0
            alive = ~spike & sane
            if alive.any():
                last = int(np.flatnonzero(alive)[-1])
                self.keep_alive_ns = int(t_ns[last])
                self._count_sent(-1 - int(units[last]), self.received + int(spike[:last].sum()))
        count = int(spike.sum())
        out = self.spikes[:count]
        out["t_ns"] = t_ns[spike]
        out["unit"] = units[spike]
        self.received += count
        self.delays.note(arrival_ns, t_ns[sane & spike])
        return out

    def resumed(self) -> bool:
        """Whether the sender has gone and come back since the last call: liblsl connects again by itself."""
        return bool(self.inlet.was_clock_reset())

    def _count_sent(self, modulo: int, received: int) -> None:
        """Compare the sender's count with ours, from the first keep-alive on: sent = received + lost_upstream."""
        if self._sent_base is None:
            self._sent_base = modulo - received
        lost = (modulo - self._sent_base - received) % KEEP_ALIVE_MODULUS
        if lost > KEEP_ALIVE_MODULUS // 2:  # fewer sent than received: the sender counts from 0 again
            self._sent_base = modulo - received - self.lost_upstream
            return
        self.lost_upstream = lost


class Marker(Struct, frozen=True):
    """What a marker's JSON may say; fields that we do not know are passed over."""

    event: str
    segment: Annotated[int, Meta(ge=-1, le=2**62)] = -1
    labels: dict[str, Label] = {}
    bin: Annotated[int, Meta(ge=0, le=2**62)] | None = None


class MarkerInlet(Inlet):
    """Task markers as JSON strings: {"event": ..., "segment": 17, "labels": {...}}."""

    def __init__(self, info: pylsl.StreamInfo) -> None:
        super().__init__(info)
        self.bad = 0
        self.last = ""
        self.ended = False
        self._decoder = msgspec.json.Decoder(Marker)

    def pull(self) -> list[Mark]:
        """New segment marks; anything malformed is counted and dropped."""
        samples, stamps = self.inlet.pull_chunk(timeout=0.0, max_samples=256, as_numpy=True)  # as bytes, of any kind
        marks = []
        self._note_arrival(stamps)
        for text, stamp in zip(np.ravel(np.asarray(samples)), np.asarray(stamps).tolist(), strict=True):
            try:
                marker = self._decoder.decode(text)
            except (ValueError, RecursionError):  # msgspec's errors and bad UTF-8 are ValueErrors
                marker = None
            if marker is None or not abs(stamp) < SANE_S:
                self.bad += 1
                continue
            event, segment = marker.event, marker.segment
            self.last = f"{event} {segment}" if segment >= 0 else event
            if event == "recording_end":
                self.ended = True
            if event == "segment_start" or event == "segment_end":
                t_ns = round(stamp * 1e9) + self.clock.offset_ns
                marks.append(Mark(t_ns, event, segment, marker.labels, marker.bin))
        return marks


class BehaviourInlet(Inlet):
    """One measured behaviour, for display and scores; it never reaches the decoder."""

    def __init__(self, name: str, info: pylsl.StreamInfo) -> None:
        super().__init__(info)
        self.name = name
        self._newest = (NO_TIME, np.nan)

    def pull(self) -> list[tuple[int, float]]:
        """What has arrived: (stamp in ns, value)."""
        samples, stamps = self.inlet.pull_chunk(timeout=0.0, max_samples=1024)
        self._note_arrival(stamps)
        found = [
            (round(stamp * 1e9) + self.clock.offset_ns, float(sample[0]))
            for sample, stamp in zip(samples or [], stamps, strict=True)
            if abs(stamp) < SANE_S
        ]
        if found:
            self._newest = found[-1]
        return found

    def latest(self, since_ns: int) -> float | None:
        """The newest value, or None where it is not finite or its stamp lies before since_ns."""
        t_ns, value = self._newest
        return value if t_ns >= since_ns and np.isfinite(value) else None
