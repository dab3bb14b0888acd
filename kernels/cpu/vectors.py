"""Vector instructions for `tiles` and `rows`, as LLVM IR inside a compiled function.

Numba reloads array elements in every iteration, counts references around calls that take an array, and vectorises by
256 bits where the processor has 512. The pointers and loops here avoid all three.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.core.errors import TypingError
from numba.extending import intrinsic

from kernels.cpu.jit import settings

_given = settings.CPU_FEATURES  # NUMBA_CPU_FEATURES, or None: this processor's
_FEATURES = (get_host_cpu_features() if _given is None else _given).split(",")
LANES = 16 if "+avx512f" in _FEATURES else 8  # float32 numbers of a register; inner widths are padded to a multiple
# the instruction of x86 that multiplies pairs of int16 and adds the two products
_FEATURE, _PAIRS = ("+avx512bw", "llvm.x86.avx512.pmaddw.d.512") if LANES == 16 else ("+avx2", "llvm.x86.avx2.pmadd.wd")
HAS_PAIRS = _FEATURE in _FEATURES
MOVES_BYTES = "+avx512vbmi" in _FEATURES  # to anywhere in a register of 512 bits, in one instruction
FOUR = 4  # rows of tokens that are worked on at once, so that the latency of one is hidden by the others
LINE = 64  # bytes of a cache line; weights that lie across lines cost a fifth more
# bytes of a large page: 11.6 MB of weights, keys and values are 2800 small pages, more than the TLB holds
LARGE_PAGE = 2**21

INDEX, WORD, SHORT, BYTE, FLOAT = ir.IntType(64), ir.IntType(32), ir.IntType(16), ir.IntType(8), ir.FloatType()
VECTOR, WORDS = ir.VectorType(FLOAT, LANES), ir.VectorType(WORD, LANES)
SHORTS = ir.VectorType(SHORT, 2 * LANES)
ZERO = ir.Constant(INDEX, 0)


def aligned(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Zeros that begin with a cache line; a line's length before and behind them may be read.

    From half a large page on they lie in large pages, where the system has them to give.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    large = hasattr(mmap, "MADV_HUGEPAGE") and n_bytes >= LARGE_PAGE // 2
    edge = LARGE_PAGE if large else LINE
    n_room = (-(-(n_bytes + 2 * LINE) // edge) + 1) * edge  # the last page is a whole one too
    room = np.frombuffer(_large_pages(n_room), np.uint8) if large else np.zeros(n_room, np.uint8)
    first = LINE + -room.ctypes.data % edge
    return room[first : first + n_bytes].view(dtype).reshape(shape)


def _large_pages(n_bytes: int) -> mmap.mmap:
    """Zeros of a mapping of their own: NumPy requests large pages only from 4 MiB on, and only whole ones inside."""
    room = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel built without them
        room.madvise(mmap.MADV_HUGEPAGE)
    return room


@intrinsic
def _at(typing: Any, base: Any, i: Any) -> Any:
    """Pointer to number i of an array in C order, or i numbers behind a pointer."""
    whole = isinstance(base, types.Array)
    if whole and base.layout != "C":
        raise TypingError(f"a pointer is made of arrays in C order, not of {base}; copy it with np.ascontiguousarray")
    kind = types.CPointer(base.dtype)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = context.make_array(signature.args[0])(context, builder, args[0]).data if whole else args[0]
        return builder.gep(pointer, [args[1]])

    return kind(base, types.int64), emit


at: Callable[..., Any] = _at


def full(value: float) -> Any:
    """A constant in every lane."""
    return ir.Constant(VECTOR, [value] * LANES)


class Vectors:
    """Emits instructions on vectors of LANES float32 at the place where a builder stands."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.context, self.builder = context, builder

    def rows(self, pointer: Any, stride: Any, n: int = FOUR) -> list[Any]:
        """Pointers to n rows that begin `stride` numbers apart."""
        return [self.builder.gep(pointer, [self.builder.mul(stride, ir.Constant(INDEX, r))]) for r in range(n)]

    def add(self, a: Any, b: int) -> Any:
        """A whole number and a constant."""
        return self.builder.add(a, ir.Constant(INDEX, b))

    def loop(self, n: Any, step: int, carried: Sequence[Any], body: Callable[..., list[Any]]) -> list[Any]:
        """for k in range(0, n, step): carried = body(k, *carried), n > 0; returns the last `carried`."""
        before, inside = self.builder.block, self.builder.append_basic_block("loop")
        after = self.builder.append_basic_block("after")
        self.builder.branch(inside)
        self.builder.position_at_end(inside)
        k, values = self.builder.phi(INDEX), [self.builder.phi(one.type) for one in carried]
        grown = body(k, *values)
        following, last = self.add(k, step), self.builder.block
        for phi, first, then in zip([k, *values], [ZERO, *carried], [following, *grown], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(then, last)
        self.builder.cbranch(self.builder.icmp_signed("<", following, n), inside, after)
        self.builder.position_at_end(after)
        return grown

    def load(self, pointer: Any, element: Any = types.float32) -> Any:
        """LANES numbers from a pointer on, as float32: stored so, or as its upper half."""
        bits = ir.VectorType(self.context.get_data_type(element), LANES)
        value = self.builder.load(self.builder.bitcast(pointer, bits.as_pointer()))
        value.align = element.bitwidth // 8
        if element == types.uint16:
            return self.builder.bitcast(self.builder.shl(self.builder.zext(value, WORDS), WORDS([16] * LANES)), VECTOR)
        return value

    def three_bytes(self, pointer: Any) -> Any:
        """LANES numbers of three bytes, from a pointer on, times 256, as float32. Reads some bytes to either side."""
        octets = ir.VectorType(BYTE, 4 * LANES)
        # with 256 bits half the numbers lie in each half, so that no byte crosses to the other
        before = 4 if LANES == 8 else 0
        begin = self.builder.gep(pointer, [ir.Constant(INDEX, -before)])
        value = self.builder.load(self.builder.bitcast(begin, octets.as_pointer()))
        value.align = 1
        zero = 4 * LANES  # the first of the second vector
        taken = [before + i // 4 * 3 + i % 4 - 1 if i % 4 else zero for i in range(4 * LANES)]
        moved = self.builder.shuffle_vector(value, octets([0] * (4 * LANES)), ir.VectorType(WORD, 4 * LANES)(taken))
        return self.builder.sitofp(self.builder.bitcast(moved, WORDS), VECTOR)

    def pairs(self, pointer: Any) -> Any:
        """LANES pairs of int8, from a pointer on, as int16."""
        value = self.builder.load(self.builder.bitcast(pointer, ir.VectorType(BYTE, 2 * LANES).as_pointer()))
        value.align = 1
        return self.builder.sext(value, SHORTS)

    def spread_pair(self, pointer: Any) -> Any:
        """Two int16, from a pointer on, LANES times."""
        both = self.builder.load(self.builder.bitcast(pointer, WORD.as_pointer()))
        return self.builder.bitcast(self.spread(both), SHORTS)

    def dot(self, a: Any, b: Any, c: Any) -> Any:
        """a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1] + c[i], of int16 in int32."""
        if HAS_PAIRS:
            kind = ir.FunctionType(WORDS, [SHORTS] * 2)
            found = cgutils.get_or_insert_function(self.builder.module, kind, _PAIRS)
            return self.builder.add(self.builder.call(found, [a, b]), c)
        products = []
        for first in (0, 1):
            places = ir.Constant(WORDS, list(range(first, 2 * LANES, 2)))
            x, y = (self.builder.sext(self.builder.shuffle_vector(one, one, places), WORDS) for one in (a, b))
            products.append(self.builder.mul(x, y))
        return self.builder.add(self.builder.add(*products), c)

    def store(self, value: Any, pointer: Any) -> None:
        """A vector, from a pointer on."""
        self.builder.store(value, self.builder.bitcast(pointer, VECTOR.as_pointer())).align = 4

    def spread(self, number: Any) -> Any:
        """One number in every lane."""
        empty = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
        single = self.builder.insert_element(empty, number, ir.Constant(WORD, 0))
        return self.builder.shuffle_vector(single, single, ir.Constant(WORDS, [0] * LANES))

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a b + c, rounded once."""
        kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
        name = f"llvm.fma.v{LANES}f32"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c])

    def root(self, a: Any) -> Any:
        """Square root."""
        kind, name = ir.FunctionType(VECTOR, [VECTOR]), f"llvm.sqrt.v{LANES}f32"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [a])

    def series(self, factors: Sequence[Any], x: Sequence[Any]) -> list[Any]:
        """The polynomial with these factors, highest power first, in each of several x (Horner, side by side)."""
        values = [factors[0]] * len(x)
        for factor in factors[1:]:
            values = [self.fma(value, one, factor) for value, one in zip(values, x, strict=True)]
        return values

    def greater(self, a: Any, b: Any) -> Any:
        """The greater of two; b where either is NaN."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def lesser(self, a: Any, b: Any) -> Any:
        """The lesser of two; b where either is NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def joined(self, value: Any, join: Callable[[Any, Any], Any]) -> Any:
        """A vector's lanes joined in halves to one number."""
        width = LANES
        while width > 1:
            width //= 2
            low, high = (
                self.builder.shuffle_vector(
                    value, value, ir.Constant(ir.VectorType(WORD, width), list(range(first, first + width)))
                )
                for first in (0, width)
            )
            value = join(low, high)
        return self.builder.extract_element(value, ir.Constant(WORD, 0))

    def fetch(self, pointer: Any, ahead: int) -> None:
        """Prefetch what lies so many bytes ahead of a pointer."""
        byte = BYTE.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, WORD, WORD, WORD])
        hint = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        there = self.builder.gep(self.builder.bitcast(pointer, byte), [ir.Constant(INDEX, ahead)])
        self.builder.call(hint, [there, *(ir.Constant(WORD, v) for v in (0, 3, 1))])  # to read, in all caches, as data
