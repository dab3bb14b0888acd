"""Touching reads all memory of an array and writes none of it."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cpu.touch import MOST_BYTES, parts, together, touch
from kernels.cpu.vectors import LINE


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int8])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("n", [1, 700, 3 * MOST_BYTES // 8])  # one number, less than a part, several parts
def test_the_parts_of_an_array_are_its_memory(n: int, order: str, dtype: type) -> None:
    array = np.zeros((2, n), dtype, order=order)  # pyright: ignore[reportCallIssue, reportArgumentType]
    found = parts(array)
    for part in found:
        part[:] = 7
    assert set(array.tobytes()) == {7}
    assert sum(part.nbytes for part in found) == array.nbytes
    assert max(part.nbytes for part in found) <= MOST_BYTES


@pytest.mark.parametrize("writable", [True, False])
def test_one_byte_of_every_line_is_read(writable: bool) -> None:
    memory = np.arange(1000).astype(np.uint8)
    memory.setflags(write=writable)
    before = memory.copy()
    assert touch(memory) == memory[::LINE].sum()
    np.testing.assert_array_equal(memory, before)


def test_small_parts_make_one_piece_and_none_is_lost() -> None:
    found = [np.zeros(n, np.uint8) for n in (10, MOST_BYTES - 10, 1, MOST_BYTES, 5, 5)]
    assert [[part.nbytes for part in piece] for piece in together(found)] == [
        [10, MOST_BYTES - 10], [1], [MOST_BYTES], [5, 5],
    ]  # fmt: skip
