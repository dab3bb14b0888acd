"""Where numbers of a step lie in memory."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from kernels.cpu.vectors import LARGE_PAGE, LINE, aligned


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("n_bytes", [4, LINE, LARGE_PAGE // 2 - 4, LARGE_PAGE // 2, 2 * LARGE_PAGE + 4])
def test_aligned_zeros_with_a_line_on_either_side(n_bytes: int, dtype: type) -> None:
    made = aligned((n_bytes // np.dtype(dtype).itemsize,), dtype)
    room = made
    while isinstance(room.base, np.ndarray):
        room = room.base
    begin = made.ctypes.data - room.ctypes.data
    assert (made.ctypes.data % LINE, made.nbytes, made.flags.writeable) == (0, n_bytes, True)
    assert not made.any()
    assert LINE <= begin <= room.nbytes - n_bytes - LINE


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this kernel has no large pages to give"
)
def test_large_numbers_ask_for_large_pages() -> None:
    made = aligned((LARGE_PAGE // 4,))
    assert made.ctypes.data % LARGE_PAGE == LINE  # so that what follows fills them whole
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if first := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(first[1], 16) <= made.ctypes.data < int(first[2], 16)
        elif inside and line.startswith("VmFlags:"):
            assert "hg" in line.split()
            return
    pytest.fail("the numbers lie in no mapping of this process")
