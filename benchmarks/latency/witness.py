"""What a long run says of itself and what it takes, window by window, in little memory: a subscriber beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from runtime.client import unpack
from runtime.core.latency import Latency
from runtime.core.state import State
from runtime.io.lsl_clock import now_ns
from runtime.wire import Decode, Event, Flag, Status

POLL_MS = 50
MOST_AT_ONCE = 3000  # superseded bins that one message is charged with
DECODING = (State.RUNNING, State.DEGRADED)  # not IDLE, in which a dead sender of markers leaves a run
GOOD_S = 0.1  # at most one of `Witness.good` in so long
SPIKES, TOKENS = "spikes_received", "tokens_closed"
LOST = "spikes_lost_upstream"  # that is no term of its law
Row = dict[str, Any]


def balanced(counters: dict[str, int]) -> bool:
    """Whether both laws of conservation hold for the counters of a status, or of the end of a run."""
    return all(
        counters[whole] == sum(n for k, n in counters.items() if k.startswith(prefix) and k not in (whole, LOST))
        for whole, prefix in ((SPIKES, "spikes_"), (TOKENS, "tokens_"))
    )


def taken_by(pid: int) -> tuple[float, float, float]:
    """Memory of a process in MB (resident), its threads and its open files; NaN where the system does not say."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"]), files
    except (OSError, KeyError, ValueError):
        return float("nan"), float("nan"), float("nan")


def decoded(message: Decode) -> bool:
    """Whether it says that its bin was decoded, and carries a finite value of every output."""
    values = [v for one in message.outputs.values() for v in (one.probs or [one.value])]
    return message.state in DECODING and bool(values) and all(v is not None and math.isfinite(v) for v in values)


class Witness:
    """Rows of row_s after warm_up_s. samples (n, 4): s after the start, MB, threads, files. medians (n, 2): s, and the
    median of that second's `edge_to_pub_ms`. events: (s, name, detail). good: (s, s) when a message of a bin that was
    `decoded` came, and when its bin began, both after the start; at most one in `GOOD_S`. began_ns: the start on the
    LSL clock."""

    def __init__(self, address: str, pid: int, bin_ns: int, row_s: float, warm_up_s: float) -> None:
        self.rows: list[Row] = []
        self.samples: list[tuple[float, float, float, float]] = []
        self.medians: list[tuple[float, float]] = []
        self.events: list[tuple[float, str, str]] = []
        self.good: list[tuple[float, float]] = []
        self.began_ns = now_ns()
        self.unheard = 0  # messages that did not arrive
        self._pid, self._bin_ns, self._row_s, self._warm_up_s = pid, bin_ns, row_s, warm_up_s
        self._latency, self._second = Latency(1), list[float]()
        self._token = self._seq = -1
        self._row_at, self._began = 0, time.monotonic()
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._unbalanced = 0
        self._socket = zmq.Context().socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"neds/")
        self._socket.connect(address)

    def listen(self, within_s: float, act: Callable[[float], None]) -> None:
        """Until the run's last message, or for so long. act: called often, with the seconds since the start."""
        self._began, self.began_ns, ended = time.monotonic(), now_ns(), False
        while not ended and (now_s := time.monotonic() - self._began) < within_s:
            act(now_s)
            if self._socket.poll(POLL_MS):
                topic, payload = self._socket.recv_multipart()
                ended = self._take(topic.split(b"/")[2], payload, time.monotonic() - self._began)
        self._close_row()
        self.close()

    def close(self) -> None:
        """Hear nothing more."""
        self._socket.context.destroy(linger=0)

    def _take(self, kind: bytes, payload: bytes, now_s: float) -> bool:
        """One message. Returns whether it was the last."""
        if kind == b"decode" and (message := unpack(payload, Decode)) is not None:
            if message.flags & Flag.END:
                return True
            self.estimate(message, now_s)
        elif kind == b"status" and (status := unpack(payload, Status)) is not None:
            self._status(status, now_s)
        elif kind == b"event" and (event := unpack(payload, Event)) is not None:
            self.events.append((now_s, event.name, event.detail))
        return False

    def estimate(self, message: Decode, now_s: float) -> None:
        """An estimate, heard at now_s. A superseded bin is charged until the message that replaced it."""
        closed = 1 if self._token < 0 else min(message.token - self._token, MOST_AT_ONCE)
        self.unheard += 0 if self._seq < 0 else message.seq - self._seq - 1
        self._token, self._seq = message.token, message.seq
        took_ns = message.t_pub_ns - message.t_end_ns
        if now_s >= self._warm_up_s:
            for k in range(closed):
                self._latency.record(took_ns + k * self._bin_ns)
        self._second.append(took_ns * 1e-6)
        if (not self.good or now_s - self.good[-1][0] >= GOOD_S) and decoded(message):
            self.good.append((now_s, (message.t_end_ns - self._bin_ns - self.began_ns) * 1e-9))

    def _status(self, status: Status, now_s: float) -> None:
        self._now = status.counters
        self._unbalanced += not balanced(status.counters)
        self.samples.append((now_s, *taken_by(self._pid)))
        if self._second:
            self.medians.append((now_s, float(np.median(self._second))))
            self._second.clear()
        if now_s < self._warm_up_s:
            self._before = status.counters
        elif now_s - self._warm_up_s >= (self._row_at + 1) * self._row_s:
            self._close_row()

    def _close_row(self) -> None:
        """What was heard since the row before, as a row."""
        if (n := self._latency.histogram.get_total_count()) and self.samples:
            grown = {name: k - self._before.get(name, 0) for name, k in self._now.items()}
            _, mb, threads, files = self.samples[-1]
            self.rows.append({
                "from_s": round(self._row_at * self._row_s, 3), "n": n, "edge_to_pub_ms": self._latency.summary_ms(),
                "deadline_misses": grown.get("deadline_misses", 0), "rss_mb": round(mb, 2), "threads": threads,
                "files": files, "counters": {name: k for name, k in grown.items() if k},
                "unbalanced": self._unbalanced,
            })  # fmt: skip
        self._row_at, self._latency, self._before, self._unbalanced = self._row_at + 1, Latency(1), self._now, 0
