"""Reading memory so that it lies in the processor's caches. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.cpu.jit import jit
from kernels.cpu.vectors import LINE

MOST_BYTES = 2**20  # of a piece: beyond the caches it takes about 0.1 ms to read


@jit
def touch(part):
    """One byte of each cache line of memory (n,) uint8; returns their sum, without which nothing would be read."""
    total = 0
    for i in range(0, len(part), LINE):
        total += part[i]
    return total


def parts(array: np.ndarray) -> list[np.ndarray]:
    """The memory of an array in its order, in parts (n,) uint8 of at most MOST_BYTES."""
    flat = array.ravel(order="K").view(np.uint8)
    return [flat[begin : begin + MOST_BYTES] for begin in range(0, len(flat), MOST_BYTES)]


def together(found: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Parts (n,) uint8 in their order, in pieces of at most MOST_BYTES each."""
    pieces: list[list[np.ndarray]] = []
    room = 0
    for part in found:
        if part.nbytes > room:
            pieces.append([])
            room = MOST_BYTES
        pieces[-1].append(part)
        room -= part.nbytes
    return pieces


def compiled() -> None:
    """Compile `touch` for memory of either kind, so that it is not compiled during a run."""
    own = np.zeros(1, np.uint8)
    touch(own)
    own.setflags(write=False)  # another type to Numba
    touch(own)
