"""Products of a few token rows with a tall matrix on one CPU core: each weight is read once for all tokens.

Numba keeps no array element in a register across a loop, so the inner tile is written as vector
instructions: R rows of weights times T tokens, R x T accumulators of 8 lanes that never leave registers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_jit import jit

LANES = 8  # float32; every inner width is padded to this
PAIR = 2  # rows of weights lie together, see `paired`: four tokens, the usual step, then read memory in one stream
AHEAD = 4096  # bytes: from memory, half the time of a step without it; 1, 2 and 8 kB were slower
LINE = 64  # bytes of a cache line; weights that lie across lines cost a fifth more


def aligned(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Zeros that begin with a cache line."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.zeros(n_bytes + LINE, np.uint8)
    first = -room.ctypes.data % LINE
    return room[first : first + n_bytes].view(dtype).reshape(shape)


def paired(w: np.ndarray) -> np.ndarray:
    """Weights (..., N, K) in the order in which `linear` reads them: of two rows, LANES columns of each in turn."""
    n, k = w.shape[-2:]
    out = aligned(w.shape, w.dtype)
    by_pair = (*w.shape[:-2], n // PAIR)
    out.reshape(*by_pair, k // LANES, PAIR, LANES)[...] = np.swapaxes(
        w.reshape(*by_pair, PAIR, k // LANES, LANES), -3, -2
    )
    return out


def _tile(n_rows: int, n_tokens: int) -> Any:
    """A function (w (N, K), row, x (T, M), token, column) -> n_rows * n_tokens sums over w's K columns.

    Sum [r * n_tokens + t] is w[row + r] . x[token + t, column : column + K] of `paired` w; K is a multiple of LANES.
    """

    @intrinsic
    def tile(typing: Any, w: Any, row: Any, x: Any, token: Any, column: Any) -> Any:
        signature = types.UniTuple(types.float32, n_rows * n_tokens)(w, row, x, token, column)
        return signature, _emit

    def _emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w, x = (context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 2))
        index, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), LANES)
        width, stride = builder.extract_value(w.shape, 1), builder.extract_value(x.shape, 1)

        def at(base: Any, i: int) -> Any:
            return builder.add(base, ir.Constant(index, i))

        pairs = [builder.gep(w.data, [builder.mul(at(args[1], r), width)]) for r in range(0, n_rows, PAIR)]
        tokens = [
            builder.gep(x.data, [builder.add(builder.mul(at(args[3], t), stride), args[4])]) for t in range(n_tokens)
        ]
        before, loop, end = builder.block, builder.append_basic_block("tile"), builder.append_basic_block("tile.end")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(index)
        k.add_incoming(ir.Constant(index, 0), before)
        sums = [builder.phi(vector) for _ in range(n_rows * n_tokens)]
        for one in sums:
            one.add_incoming(ir.Constant(vector, [0.0] * LANES), before)

        def load(pointer: Any, at: Any, element: Any = types.float32) -> Any:
            """Eight numbers of an array, as float32: stored so, as int8, or as the upper half of float32."""
            bits = ir.VectorType(context.get_data_type(element), LANES)
            value = builder.load(builder.bitcast(builder.gep(pointer, [at]), bits.as_pointer()))
            value.align = element.bitwidth // 8
            whole = ir.VectorType(ir.IntType(32), LANES)
            if element == types.int8:
                return builder.sitofp(builder.sext(value, whole), vector)
            if element == types.uint16:
                return builder.bitcast(builder.shl(builder.zext(value, whole), whole([16] * LANES)), vector)
            return value

        fma = _fma(builder, vector)
        shown = [load(pointer, k) for pointer in tokens]
        grown, pair_k = [], builder.mul(k, ir.Constant(index, PAIR))
        for r in range(n_rows):
            pointer = pairs[r // PAIR]
            if n_tokens > 1 and r % PAIR == 0:  # a single token is bound by its loads, and a hint is one more
                _fetch(builder, builder.gep(pointer, [pair_k]))
            weight = load(pointer, at(pair_k, r % PAIR * LANES), signature.args[0].dtype)
            grown += [builder.call(fma, [weight, shown[t], sums[r * n_tokens + t]]) for t in range(n_tokens)]
        following = at(k, LANES)
        k.add_incoming(following, loop)
        for one, value in zip(sums, grown, strict=True):
            one.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, width), loop, end)
        builder.position_at_end(end)
        return context.make_tuple(builder, signature.return_type, [_across(builder, value) for value in grown])

    return tile


def _outer(n_tokens: int) -> Any:
    """A function (w (N, P), n, first, x (T, M), token, column, y (T, Q), out) that writes two vectors a token.

    y[token + t, out : out + 2 LANES] = sum over the first n rows of x[token + t, column + row] w[row, first : ...].
    """

    @intrinsic
    def outer(typing: Any, w: Any, n: Any, first: Any, x: Any, token: Any, column: Any, y: Any, out: Any) -> Any:
        return types.void(w, n, first, x, token, column, y, out), _emit

    def _emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w, x, y = (context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 3, 6))
        _, n, first, _, token, column, _, out = args
        index, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), LANES)
        width, x_width, y_width = (builder.extract_value(a.shape, 1) for a in (w, x, y))

        def at(base: Any, i: int) -> Any:
            return builder.add(base, ir.Constant(index, i))

        def place(array: Any, row: Any, stride: Any, first: Any) -> Any:
            return builder.gep(array.data, [builder.add(builder.mul(row, stride), first)])

        tokens = [place(x, at(token, t), x_width, column) for t in range(n_tokens)]
        before, loop, end = builder.block, builder.append_basic_block("outer"), builder.append_basic_block("outer.end")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(index)
        k.add_incoming(ir.Constant(index, 0), before)
        sums = [builder.phi(vector) for _ in range(2 * n_tokens)]
        for one in sums:
            one.add_incoming(ir.Constant(vector, [0.0] * LANES), before)
        fma = _fma(builder, vector)
        shown = [_spread(builder, builder.load(builder.gep(pointer, [k])), vector) for pointer in tokens]
        grown = []
        for half in range(2):
            weight = _eight(builder, place(w, k, width, at(first, half * LANES)), vector)
            grown += [builder.call(fma, [weight, shown[t], sums[half * n_tokens + t]]) for t in range(n_tokens)]
        following = at(k, 1)
        k.add_incoming(following, loop)
        for one, value in zip(sums, grown, strict=True):
            one.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, n), loop, end)
        builder.position_at_end(end)
        for half in range(2):
            for t in range(n_tokens):
                target = place(y, at(token, t), y_width, at(out, half * LANES))
                store = builder.store(grown[half * n_tokens + t], builder.bitcast(target, vector.as_pointer()))
                store.align = 4
        return context.get_dummy_value()

    return outer


@intrinsic
def _top(typing: Any, x: Any, row: Any) -> Any:
    """The largest number of x[row] (width a multiple of LANES), or -inf; a NaN is passed over."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        index, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), LANES)
        width = builder.extract_value(array.shape, 1)
        begin = builder.gep(array.data, [builder.mul(args[1], width)])
        before, loop, end = builder.block, builder.append_basic_block("top"), builder.append_basic_block("top.end")
        builder.branch(loop)
        builder.position_at_end(loop)
        k, best = builder.phi(index), builder.phi(vector)
        k.add_incoming(ir.Constant(index, 0), before)
        best.add_incoming(ir.Constant(vector, [float("-inf")] * LANES), before)
        value = _eight(builder, builder.gep(begin, [k]), vector)
        better = builder.select(builder.fcmp_ordered(">", value, best), value, best)
        following = builder.add(k, ir.Constant(index, LANES))
        k.add_incoming(following, loop)
        best.add_incoming(better, loop)
        builder.cbranch(builder.icmp_signed("<", following, width), loop, end)
        builder.position_at_end(end)
        return _across(
            builder, better, lambda low, high: builder.select(builder.fcmp_ordered(">", low, high), low, high)
        )

    return types.float32(x, row), emit


top: Callable[..., Any] = _top


def _eight(builder: Any, pointer: Any, vector: Any) -> Any:
    """LANES numbers from a pointer on."""
    value = builder.load(builder.bitcast(pointer, vector.as_pointer()))
    value.align = 4
    return value


def _spread(builder: Any, number: Any, vector: Any) -> Any:
    """One number in every lane."""
    lane = ir.IntType(32)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(lane, 0))
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(lane, LANES), [0] * LANES))


def _fetch(builder: Any, pointer: Any) -> None:
    """Ask for the weights that lie AHEAD: between two steps, 20 ms apart, others have used the cache."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    ahead = builder.gep(builder.bitcast(pointer, byte), [ir.Constant(ir.IntType(64), AHEAD)])
    builder.call(hint, [ahead, *(ir.Constant(word, value) for value in (0, 3, 1))])  # to read, in all caches, as data


def _fma(builder: Any, vector: Any) -> Any:
    kind = ir.FunctionType(vector, [vector] * 3)
    return cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")


def _across(builder: Any, value: Any, join: Callable[[Any, Any], Any] | None = None) -> Any:
    """A vector's lanes joined in halves; None = added."""
    lane, width = ir.IntType(32), LANES
    while width > 1:
        width //= 2
        low, high = (
            builder.shuffle_vector(
                value, value, ir.Constant(ir.VectorType(lane, width), list(range(first, first + width)))
            )
            for first in (0, width)
        )
        value = (join or builder.fadd)(low, high)
    return builder.extract_element(value, ir.Constant(lane, 0))


# As many accumulators as keep both multipliers busy and still fit 16 registers.
_tile_4, _tile_3, _tile_2, _tile_1 = _tile(2, 4), _tile(4, 3), _tile(4, 2), _tile(8, 1)
_outer_4, _outer_3, _outer_2, _outer_1 = _outer(4), _outer(3), _outer(2), _outer(1)


@jit
def linear(w, scale, bias, row, n_rows, x, token, n_tokens, column, y, out):
    """y[token + t, out + r] = scale[row + r] w[row + r] . x[token + t, column : column + K] + bias[row + r].

    w (N, K) `paired`: float32, int8, or uint16 (bfloat16's bits); scale, bias (N,), x (T, M), y (T, P)
    float32; all in C order; K and n_rows are multiples of 8.
    """
    end = token + n_tokens
    while end - token >= 4:
        for r in range(row, row + n_rows, 2):
            a = _tile_4(w, r, x, token, column)
            for i in range(2):
                j, s, b = out + r - row + i, scale[r + i], bias[r + i]
                y[token, j], y[token + 1, j] = s * a[4 * i] + b, s * a[4 * i + 1] + b
                y[token + 2, j], y[token + 3, j] = s * a[4 * i + 2] + b, s * a[4 * i + 3] + b
        token += 4
    if end - token == 3:
        for r in range(row, row + n_rows, 4):
            a = _tile_3(w, r, x, token, column)
            for i in range(4):
                j, s, b = out + r - row + i, scale[r + i], bias[r + i]
                y[token, j], y[token + 1, j] = s * a[3 * i] + b, s * a[3 * i + 1] + b
                y[token + 2, j] = s * a[3 * i + 2] + b
    elif end - token == 2:
        for r in range(row, row + n_rows, 4):
            a = _tile_2(w, r, x, token, column)
            for i in range(4):
                j, s, b = out + r - row + i, scale[r + i], bias[r + i]
                y[token, j], y[token + 1, j] = s * a[2 * i] + b, s * a[2 * i + 1] + b
    elif end - token == 1:
        for r in range(row, row + n_rows, 8):
            a = _tile_1(w, r, x, token, column)
            for i in range(8):
                y[token, out + r - row + i] = scale[r + i] * a[i] + bias[r + i]


@jit
def across(w, n, first, n_columns, x, token, n_tokens, column, y, out):
    """y[token + t, out + c] = sum over the first n rows of x[token + t, column + row] w[row, first + c].

    w (N, P), x (T, M), y (T, Q): float32, C order; n_columns is a multiple of 16.
    """
    end = token + n_tokens
    while end - token >= 4:
        for c in range(0, n_columns, 2 * LANES):
            _outer_4(w, n, first + c, x, token, column, y, out + c)
        token += 4
    for c in range(0, n_columns, 2 * LANES):
        if end - token == 3:
            _outer_3(w, n, first + c, x, token, column, y, out + c)
        elif end - token == 2:
            _outer_2(w, n, first + c, x, token, column, y, out + c)
        elif end - token == 1:
            _outer_1(w, n, first + c, x, token, column, y, out + c)
