"""Products of a few token rows with a tall matrix on one CPU core: each weight is read once for all tokens.

The inner tile is V vectors of outputs times T tokens: V x T accumulators that never leave registers. A lane is one
output; nothing is summed across lanes.

A panel holds LANES rows (outputs) of K columns:

| weights     | dtype   | panel             | a number is                              | made by              |
| ----------- | ------- | ----------------- | ---------------------------------------- | -------------------- |
| float32     | float32 | (K, LANES)        | the weight                               | `in_parts`, `panels` |
| bfloat16    | uint16  | (K, LANES)        | the upper 16 bits of a float32           | `in_parts`           |
| three bytes | uint8   | (K, LANES, 3)     | a 24-bit integer, multiplied as 256 of it| `in_parts` of int32  |
| int8        | int8    | (K / 2, LANES, 2) | the weight; pairs of columns             | `in_parts`           |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.cpu.jit import jit
from kernels.cpu.vectors import FLOAT, INDEX, LANES, LINE, VECTOR, WORDS, ZERO, Vectors, aligned, at, full

MOST = 6  # tokens of a tile; more are taken in shares of about the same size
# Vectors of outputs in a tile of 0 to MOST tokens. Each vector reads weights at its own address, and memory serves
# several streams faster than one. The V x T accumulators keep both FMA units busy and fit the 16 registers (32 of 512
# bits).
_V = (0, 8, 4, 4, 4, 4, 4) if LANES == 16 else (0, 4, 4, 4, 2, 2, 2)
# Bytes prefetched, over all vectors of a tile: in the 20 ms between two steps other processes use the cache. With 8
# lanes, prefetching costs a tenth where the L3 cache holds everything and gained nothing elsewhere, so there it is off,
# except for keys and values: a head's are over before the hardware prefetcher starts, so each call prefetches what the
# next head reads. That saves 4 of the 17 us of a layer's attention beyond the L3 cache.
AHEAD = 4096 if LANES == 16 else 0
# Parts of the columns of float32 and bfloat16 weights, read interleaved: with two vectors these are four streams.
# Measured with 8 lanes, in float32: a step of 22 layers, beyond the L3 cache, takes 10 to 14% less, and one of 5
# layers, within it, as long. int8 weights would take longer, so they have one part.
PARTS = 1 if LANES == 16 else 2


def panels(w: np.ndarray) -> np.ndarray:
    """Numbers (..., N, K) as `product` reads one part, (..., N / LANES, K, LANES): see the table above.

    Of int8 the last two axes hold the bytes of (K / 2, LANES, 2).
    """
    *outer, n, k = w.shape
    out = aligned((*outer, n // LANES, k, LANES), w.dtype)
    together = 2 if w.dtype == np.int8 else 1
    pieces = w.reshape(*outer, n // LANES, LANES, k // together, together)
    out[...] = np.swapaxes(pieces, -3, -2).reshape(out.shape)
    return out


def in_parts(w: np.ndarray) -> np.ndarray:
    """Weights (..., N, K) as the `panels` of each part of their columns, (..., parts, N / LANES, K / parts, LANES).

    Of int32, below 2^23 in magnitude, the lower three bytes as uint8: the last axis is then 3 LANES long.
    """
    *outer, n, k = w.shape
    parts = 1 if w.dtype == np.int8 else PARTS
    found = panels(np.moveaxis(w.reshape(*outer, n, parts, k // parts), -2, -3))
    if w.dtype != np.int32:
        return found
    out = aligned((*found.shape[:-1], 3 * LANES), np.uint8)
    out.reshape(*found.shape, 3)[...] = found.astype("<i4").view(np.uint8).reshape(*found.shape, 4)[..., :3]
    return out


def _emit(n_tokens: int, n_vectors: int, make: Vectors, kinds: Any, args: Any) -> None:
    """The code of a tile of some size: see `_tile`."""
    builder, stored = make.builder, kinds[0].dtype
    w, between, part, ahead, n, x, x_stride, y, y_stride, apart = args
    whole, one_part = stored == types.int8, kinds[2] == types.none
    together = 2 if whole else 1  # columns
    width = 3 * LANES if stored == types.uint8 else LANES * together
    # one iteration a cache line, so that each is prefetched once; of three bytes two lines, which was faster
    turns = 4 if stored == types.uint8 else LINE // (width * stored.bitwidth // 8)
    parts = 1 if whole or one_part else PARTS
    columns = builder.udiv(n, ir.Constant(INDEX, parts))
    starts = [w] if parts == 1 else make.rows(w, part, parts)
    sources = [make.rows(one, between, n_vectors) for one in starts]
    tokens = make.rows(x, x_stride, n_tokens)
    shares = list(zip(*(make.rows(token, columns, parts) for token in tokens), strict=True))

    def weight(pointer: Any) -> Any:
        if whole:
            return make.pairs(pointer)
        return make.three_bytes(pointer) if stored == types.uint8 else make.load(pointer, stored)

    def body(k: Any, here: Any, *sums: Any) -> list[Any]:
        grown = list(sums)
        for panels_of, share in zip(sources, shares, strict=True):
            for turn in range(turns):
                pointers = [builder.gep(one, [make.add(here, turn * width)]) for one in panels_of]
                if AHEAD and turn == 0:
                    for pointer in pointers:
                        make.fetch(pointer, AHEAD // n_vectors)
                elif one_part and turn == 0:
                    for pointer in pointers:
                        make.fetch(builder.gep(pointer, [ahead]), 0)
                weights = [weight(pointer) for pointer in pointers]
                for t, token in enumerate(share):  # one at a time, which leaves the registers to the sums
                    number = builder.gep(token, [make.add(k, turn * together)])
                    spread = make.spread_pair(number) if whole else make.spread(builder.load(number))
                    for i, one in enumerate(weights):
                        place = i * n_tokens + t
                        grown[place] = (make.dot if whole else make.fma)(one, spread, grown[place])
        return [make.add(here, turns * width), *grown]

    nothing = ir.Constant(WORDS, [0] * LANES) if whole else full(0.0)
    _, *sums = make.loop(columns, turns * together, [ZERO, *[nothing] * (n_vectors * n_tokens)], body)
    if whole:
        steps = [builder.load(builder.bitcast(builder.gep(one, [n]), FLOAT.as_pointer())) for one in tokens]
        sums = [
            builder.fmul(builder.sitofp(one, VECTOR), make.spread(steps[i % n_tokens]))
            for i, one in enumerate(sums)
        ]  # fmt: skip
    targets = [column for row in make.rows(y, y_stride, n_tokens) for column in make.rows(row, apart, n_vectors)]
    for i, target in enumerate(targets):
        t, v = divmod(i, n_vectors)
        make.store(sums[v * n_tokens + t], target)


def _function(n_tokens: int, n_vectors: int, context: Any, module: Any, kinds: Any, given: Any) -> Any:
    """The code of a tile, as a function of its own: with all of them inlined a step would take 14 s to compile, not 9,
    and run as long."""
    name = f"tile_{n_tokens}_{n_vectors}_{kinds[0].dtype}_{'one' if kinds[2] == types.none else 'all'}"
    function = cgutils.get_or_insert_function(module, ir.FunctionType(ir.VoidType(), [one.type for one in given]), name)
    if not function.blocks:
        function.linkage = "internal"
        function.attributes.add("noinline")
        builder = ir.IRBuilder(function.append_basic_block())
        _emit(n_tokens, n_vectors, Vectors(context, builder), kinds, function.args)
        builder.ret_void()
    return function


@intrinsic
def _tile(
    typing: Any, n_tokens: Any, n_vectors: Any, w: Any, between: Any, part: Any, ahead: Any, n: Any, x: Any,
    x_stride: Any, y: Any, y_stride: Any, apart: Any,
) -> Any:  # fmt: skip
    """Compute a tile of y for 1 to MOST tokens t and _V[n_tokens], two or one vectors v:

    y[t, v apart + i] = sum over parts p and k < n / parts of x[t, p n / parts + k] w[v between + p part + k LANES + i]

    | argument           | is                                                                                   |
    | ------------------ | ------------------------------------------------------------------------------------ |
    | between, part      | numbers from one vector's weights to the next's, and from one part's to the next's   |
    | part None          | one part; what lies `ahead` numbers on is prefetched                                 |
    | n                  | columns, a multiple of LANES                                                         |
    | x_stride, y_stride | numbers from one token to the next                                                   |
    | apart              | numbers from one vector of outputs to the next                                       |

    int8 has one part, and x as `product` says. Of three bytes, y is 256 times as large.
    """
    number = types.int64
    part = part if part == types.none else number

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        n_tokens, n_vectors, *given = args
        end, kinds = builder.append_basic_block("end"), signature.args[2:]
        choice = builder.switch(builder.add(builder.mul(n_tokens, ir.Constant(INDEX, 16)), n_vectors), end)
        for t in range(1, MOST + 1):
            for v in sorted({_V[t], 2, 1}):
                block = builder.append_basic_block("tile")
                choice.add_case(ir.Constant(INDEX, 16 * t + v), block)
                builder.position_at_end(block)
                builder.call(_function(t, v, context, builder.module, kinds, given), given)
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(number, number, w, number, part, number, number, x, number, y, number, number), emit


tile: Callable[..., Any] = _tile


@jit
def product(w, panel, part, n, n_vectors, x, x_stride, n_tokens, y, y_stride):
    """y[t, v LANES + i] = sum over k < n of x[t, k] w[v, k, i], for v < n_vectors and i < LANES.

    | argument    | is                                                                                          |
    | ----------- | ------------------------------------------------------------------------------------------- |
    | w           | pointer to n_vectors panels, `panel` numbers apart                                          |
    | part        | numbers from one of the parts of `in_parts` to the next                                     |
    | part None   | w is `panels` of float32, followed by as many, which are prefetched for the next call       |
    | n           | columns, a multiple of LANES                                                                |
    | x, x_stride | pointer to float32 tokens; beside int8 what `rows.shortened` wrote, n + 2 numbers apart     |
    | y, y_stride | pointer to float32 outputs                                                                  |
    """
    ahead = n_vectors * panel
    while n_tokens > 0:
        shares = (n_tokens + MOST - 1) // MOST
        now = (n_tokens + shares - 1) // shares
        n_tiles = n_vectors // _V[now]
        for g in range(n_tiles):
            here, there = at(w, g * panel), at(y, g * LANES)
            tile(now, _V[now], here, n_tiles * panel, part, ahead, n, x, x_stride, there, y_stride, n_tiles * LANES)
        v = n_tiles * _V[now]
        while v < n_vectors:
            few = min(2, n_vectors - v)
            tile(now, few, at(w, v * panel), panel, part, ahead, n, x, x_stride, at(y, v * LANES), y_stride, LANES)
            v += few
        n_tokens -= now
        x, y = at(x, now * x_stride), at(y, now * y_stride)
