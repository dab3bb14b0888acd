"""Shortly before a bin closes, what its step will read is read: in the 20 ms between, others fill the caches."""

from __future__ import annotations

from collections.abc import Callable

from kernels.cpu.touch import compiled, parts, together, touch
from runtime.core.engine import Engine
from runtime.engines.memory import memory

# A line that was read once leaves the L2 cache for nowhere on processors whose L3 cache holds only what is read again;
# after the second time it stays. Measured on an Intel Xeon with 5 layers of width 256 (docs/latency.md).
TIMES = 2
BYTES_A_NS = 8  # memory is at least so fast; a slower one ends with less touched
SHARE = 5  # of a bin, at that pace: at most a fifth, and the rest of a larger model stays cold
NEVER = 2**63 - 1
SPARE_NS = 500_000  # before the edge by when it is to be over, and half of it by when it has to be


class Warming:
    """Reads the weights and the cache of an engine twice before each edge; it writes nothing.

    An edge is here when the next bin closes if all is well: its own, or where nothing says that a bin is complete, when
    the clock closes it.

    It reads in pieces, and stops between two of them where spikes have come or the edge is near: neither waits for more
    than one piece. Where spikes have come it goes on after them, if there is time.
    """

    def __init__(self, engine: Engine, bin_ns: int, now_ns: Callable[[], int], waits: Callable[[], bool]) -> None:
        """engine: the first to be touched. waits: whether samples have come and were not read yet."""
        self._now_ns, self._waits = now_ns, waits
        self._most_bytes = bin_ns // SHARE * BYTES_A_NS // TIMES
        self._edge_ns = self._at = 0  # the next piece for that edge
        compiled()
        self._take(engine)

    def _take(self, engine: Engine) -> None:
        self._engine, found, n_bytes = engine, [], 0
        for part in (part for array in reversed(memory(engine)) for part in parts(array)):
            if n_bytes + part.nbytes > self._most_bytes:
                break
            n_bytes += part.nbytes
            found.append(part)
        self._pieces = together(found[::-1])
        self._lead_ns = SPARE_NS + TIMES * n_bytes // BYTES_A_NS

    def due_ns(self, edge_ns: int, engine: Engine, now_ns: int) -> int:
        """From when on there is something to do before an edge, NEVER = nothing, nothing more, or it is too late."""
        if engine is not self._engine:
            self._take(engine)
            self._edge_ns = 0
        if edge_ns != self._edge_ns:
            self._edge_ns, self._at = edge_ns, 0
        done = self._at >= TIMES * len(self._pieces)
        return NEVER if done or now_ns >= self._end_ns else edge_ns - self._lead_ns

    @property
    def _end_ns(self) -> int:
        """When the last piece has to be begun."""
        return self._edge_ns - SPARE_NS // 2

    def touch(self) -> None:
        """Touch what is left for the edge that `due_ns` was asked about, while there is time and nothing has come."""
        n, begin_ns = len(self._pieces), self._edge_ns - self._lead_ns
        while self._at < TIMES * n and begin_ns <= self._now_ns() < self._end_ns and not self._waits():
            for part in self._pieces[self._at % n]:
                touch(part)
            self._at += 1
