"""Shortly before a bin closes its step is rehearsed: in the 20 ms between, others fill the processor's caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kernels.cpu.touch import compiled, parts, together, touch
from runtime.core.engine import Engine
from runtime.engines.memory import memory, rehearsal

# A line that was read once leaves the L2 cache for nowhere on processors whose L3 cache holds only what is read again;
# after the second time it stays on an Intel Xeon, and more of it with each time on an AMD EPYC whose L3 cache others
# use as well (docs/latency.md). A rehearsed step has also run through its code, which saves another 0.1 to 0.2 ms.
TIMES = 3
BYTES_A_NS = 8  # memory is believed to be so fast until the first piece has shown how long it takes
SHARE = 4  # of a bin: at most a quarter of its time, and the rest of a larger model stays cold
FORGETS = 8  # bins in which most of what is believed of a piece's time gives way to a shorter one
TRIES = 4096  # bins in which most of it does of a piece that there is no time for
NEVER = 2**63 - 1
LEAST_NS = 100_000  # a piece is believed to take at first
SPARE_NS, LAST_NS = 300_000, 50_000  # before the edge: by when it is to be over, and by when it has to be


class Piece(NamedTuple):
    """What is done at once, and the bytes that it reads."""

    run: Callable[[], None]
    n_bytes: int


def _reading(found: list[np.ndarray]) -> Piece:
    def run() -> None:
        for part in found:
            touch(part)

    return Piece(run, sum(part.nbytes for part in found))


class Warming:
    """Rehearses an engine's step several times before each edge, or reads what a step reads; it changes nothing.

    Read, not rehearsed, is what has no step to rehearse, and a model for which there would be no time. How long each
    piece takes is learnt, so that the last one ends shortly before the edge, and none is begun that would end after it.

    An edge is here when the next bin closes if all is well: its own, or where nothing says that a bin is complete, when
    the clock closes it.

    It goes on in pieces, a rehearsal or a MB read, and stops between two of them where spikes have come or the edge is
    near: neither waits for more than one piece. Where spikes have come it goes on after them, if there is time.
    """

    def __init__(self, engine: Engine, bin_ns: int, now_ns: Callable[[], int], waits: Callable[[], bool]) -> None:
        """engine: the first to be prepared. waits: whether samples have come and were not read yet."""
        self._now_ns, self._waits = now_ns, waits
        self._budget_ns = bin_ns // SHARE
        self._edge_ns = self._at = 0  # the next piece for that edge
        compiled()
        self._take(engine)

    def _take(self, engine: Engine) -> None:
        self._engine, arrays, self._pieces = engine, memory(engine), list[Piece]()
        own, step = sum(array.nbytes for array in arrays), rehearsal(engine)
        most_bytes = self._budget_ns * BYTES_A_NS
        if step is not None and own <= most_bytes:
            run, arrays = step
            self._pieces.append(Piece(run, own - sum(array.nbytes for array in arrays)))
        found, n_bytes = list[np.ndarray](), 0
        for part in (part for array in reversed(arrays) for part in parts(array)):
            if n_bytes + part.nbytes > most_bytes // TIMES:
                break
            n_bytes += part.nbytes
            found.append(part)
        self._pieces += map(_reading, together(found[::-1]))
        self._took_ns = [max(LEAST_NS, piece.n_bytes // BYTES_A_NS) for piece in self._pieces] * TIMES

    def due_ns(self, edge_ns: int, engine: Engine, now_ns: int) -> int:
        """From when on there is something to do before an edge, NEVER = nothing, nothing more, or it is too late."""
        if engine is not self._engine:
            self._take(engine)
            self._edge_ns = 0
        if edge_ns != self._edge_ns:
            self._edge_ns, self._at = edge_ns, 0
            if max(self._took_ns, default=0) > self._budget_ns:
                self._took_ns = [ns - ns // TRIES if ns > self._budget_ns else ns for ns in self._took_ns]
        return self._begin_ns() if self._goes_on(now_ns) else NEVER

    def _begin_ns(self) -> int:
        return self._edge_ns - SPARE_NS - min(sum(self._took_ns), self._budget_ns)

    def _goes_on(self, now_ns: int) -> bool:
        """Whether there is a next piece, and time for it."""
        if self._at == len(self._took_ns):
            return False
        took_ns = self._took_ns[self._at]
        return took_ns <= self._budget_ns and now_ns + took_ns < self._edge_ns - LAST_NS

    def prepare(self) -> None:
        """Do what is left for the edge that `due_ns` was asked about, while there is time and nothing has come."""
        now_ns = self._now_ns()
        if now_ns < self._begin_ns():
            return
        while self._goes_on(now_ns) and not self._waits():
            at, began_ns = self._at, now_ns
            self._pieces[at % len(self._pieces)].run()
            now_ns, self._at = self._now_ns(), at + 1
            self._learn(at, max(1, now_ns - began_ns))

    def _learn(self, at: int, took_ns: int) -> None:
        """Believe a longer time at once, but for a hiccup twice the time before at most, a shorter one bit by bit."""
        before_ns, later = self._took_ns[at], range(at, len(self._took_ns), len(self._pieces))  # and the same again
        if took_ns > before_ns:
            believed_ns = min(took_ns, 2 * before_ns)
            for again in later:
                self._took_ns[again] = max(self._took_ns[again], believed_ns)
        else:
            believed_ns = self._took_ns[at] = before_ns - (before_ns - took_ns) // FORGETS
            for again in later:  # of which nothing may be known yet
                self._took_ns[again] = min(self._took_ns[again], believed_ns)
