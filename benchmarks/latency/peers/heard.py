"""What a subscriber received of one launch, against what was sent: latencies, misses, skill, and values of a wrong age.

`python -m benchmarks.latency.peers.heard ADDRESS OUT.npy OUTPUT...` is that subscriber.

A message has a *wrong age* where it carries a value, holds by its own word when it arrives (no flag withholds the
value, `valid_until_ns` is not over), and

- *empty*: nothing that was stamped in its bin or later had been sent when it was published, or
- *old*: it arrives more than `MAX_AGE_NS` after the end of its bin, without a flag that says so.

The same is asked of every decoder, of the messages between the stall's begin and `AFTER_NS` after its end.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.latency import subscriber
from neds_core.data.session import Session
from runtime.client import WITHHELD
from runtime.core.timeline import Segment, timeline
from runtime.io.lsl_player import LEAD_S
from runtime.wire import Decode, Flag

MAX_AGE_NS = 60_000_000  # what `runtime.client` takes for the oldest that may be acted on
AFTER_NS = 1_000_000_000
DEADLINE_NS = 20_000_000
MORE = ("infer_ns", "valid_until_ns")


@dataclass(frozen=True, slots=True)
class Messages:
    """n messages in the order of their arrival; ns int64. values (n, V) float64, NaN = null."""

    recv: np.ndarray
    pub: np.ndarray
    t_end: np.ndarray
    flags: np.ndarray
    infer: np.ndarray
    valid_until: np.ndarray
    values: np.ndarray

    @classmethod
    def load(cls, path: Path, n_outputs: int) -> Messages:
        """What the subscriber wrote."""
        table = np.load(path).reshape(-1, len(subscriber.COLUMNS) + len(MORE) + n_outputs)
        found = dict(zip((*subscriber.COLUMNS, *MORE), table.T, strict=False))
        values = np.ascontiguousarray(table[:, -n_outputs:]).view(np.float64)
        return cls(found["recv_ns"], found["t_pub_ns"], found["t_end_ns"], found["flags"], found["infer_ns"],
                   found["valid_until_ns"], values)  # fmt: skip

    def of(self, keep: np.ndarray) -> Messages:
        """Those where keep (n,) bool holds."""
        return Messages(*(getattr(self, name)[keep] for name in Messages.__slots__))

    @property
    def whole(self) -> np.ndarray:
        """(n,) bool: it carries a finite value of every output."""
        return np.logical_and.reduce(np.isfinite(self.values), axis=1)

    @property
    def holds(self) -> np.ndarray:
        """(n,) bool: it carries a value that a client may act on when it arrives, by its own word."""
        carries = np.isfinite(self.values).any(1) & ((self.flags & int(WITHHELD)) == 0)
        return carries & (self.recv < self.valid_until)


@dataclass(frozen=True, slots=True)
class Sent:
    """What the sender did. edge (m,) int64 ns: right edge of each bin of a trial; row (m,) of the recording; trial (m,)
    counts from 0.

    pushes (k, 3) as `neds-rt play` keeps them. stall: when it was stopped and went on, ns; (0, 0) = it was not.
    """

    edge: np.ndarray
    row: np.ndarray
    trial: np.ndarray
    pushes: np.ndarray
    stall: tuple[int, int]

    @classmethod
    def of(cls, session: Session, pushes: np.ndarray, stall: tuple[int, int]) -> Sent:
        """The schedule of `neds-rt play` on the LSL clock."""
        zero = int(pushes[0, 0]) + int(LEAD_S * 1e9) // session.bin_ns * session.bin_ns
        trial = np.repeat(np.arange(len(session.segments)), np.diff(session.segments).ravel())
        return cls(zero + edges(session), session.bins(), trial, pushes, stall)


def edges(session: Session) -> np.ndarray:
    """(m,) int64 ns: right edge of each bin of a trial, from the play's first edge."""
    plan: list[Segment] = timeline(session)
    return np.concatenate([s.start_ns + (np.arange(s.n_bins) + 1) * session.bin_ns for s in plan])


def served(sent: Sent, found: Messages, bins: np.ndarray, end_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """(m,) ns from each bin's edge to the send and to the receipt of its message, or of the first that replaced it.

    Only messages with a finite value of every output serve, and only those of bins that are to be decoded, whoever sent
    them. A bin that none served is charged until the launch's end.
    """
    found = found.of(found.whole & np.isin(found.t_end, sent.edge))
    order = np.argsort(found.t_end, kind="stable")
    place = np.searchsorted(found.t_end[order], sent.edge[bins])
    out = []
    for when in (found.pub, found.recv):
        # the first to come of those that end no earlier
        first = np.minimum.accumulate(when[order][::-1])[::-1] if len(order) else when
        out.append(np.append(first, end_ns)[np.minimum(place, len(first))] - sent.edge[bins])
    return out[0], out[1]


def delivered(sent: Sent, found: Messages, bins: np.ndarray) -> np.ndarray:
    """(m, V) values that a client has at each bin's deadline: of the newest message by then, NaN before the first."""
    keep = np.flatnonzero(np.isfinite(found.values).any(1))
    at = np.searchsorted(found.recv[keep], sent.edge[bins] + DEADLINE_NS, side="right") - 1
    held = np.where(at >= 0, at, 0)
    values = found.values[keep][held] if len(keep) else np.full((len(bins), found.values.shape[1]), np.nan)
    return np.where((at >= 0)[:, None], values, np.nan)


def wrong_ages(sent: Sent, found: Messages, bin_ns: int) -> dict[str, int]:
    """Messages of a wrong age around the stall, by kind (see the top of this file), how many came then, and how many
    of the bins that ended after the stall got a value in time."""
    stop, go = sent.stall
    around = (found.recv >= stop) & (found.recv < go + AFTER_NS) & (stop > 0)
    out = np.searchsorted(sent.pushes[:, 2], found.pub, side="right") - 1  # the last chunk that was out
    reached = np.where(out >= 0, sent.pushes[np.maximum(out, 0), 0], 0)
    empty = around & found.holds & (found.t_end - bin_ns >= reached)
    late = (found.recv - found.t_end > MAX_AGE_NS) & ((found.flags & int(Flag.STALE)) == 0)
    old = around & found.holds & late & ~empty
    after = sent.edge[(sent.edge >= go) & (sent.edge < go + AFTER_NS)] if stop else sent.edge[:0]
    back = np.isin(after, found.t_end[found.holds & (found.recv - found.t_end <= DEADLINE_NS)])
    return {
        "messages": int(around.sum()), "empty": int(empty.sum()), "old": int(old.sum()), "after": len(after),
        "back": int(back.sum()),
    }  # fmt: skip


def _keep(outputs: list[str]):
    def more(message: Decode) -> tuple[int, ...]:
        known = (message.outputs.get(name) for name in outputs)
        values = np.array([np.nan if one is None or one.value is None else one.value for one in known])
        return round(message.infer_ms * 1e6), message.valid_until_ns, *values.view(np.int64).tolist()

    return more


if __name__ == "__main__":
    subscriber.listen(sys.argv[1], Path(sys.argv[2]), _keep(sys.argv[3:]))
