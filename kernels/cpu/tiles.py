"""Products of a few token rows with a tall matrix on one CPU core: each weight is read once for all tokens.

The inner tile is V vectors of outputs times T tokens, V x T accumulators that never leave registers. A lane is an
output and adds up alone: nothing is summed across lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.cpu.jit import jit
from kernels.cpu.vectors import FLOAT, INDEX, LANES, LINE, VECTOR, WORDS, ZERO, Vectors, aligned, at, full

# vectors of outputs in a tile of 4, 3, 2 and 1 tokens: each reads weights in a place of its own, which a memory serves
# sooner than one; as many accumulators as keep both multipliers busy and fit the 16 registers (32 of 512 bits)
_V4, _V3, _V2, _V1 = (4, 4, 4, 8) if LANES == 16 else (2, 4, 4, 4)
# bytes, of all vectors of a tile, that are asked for before they are read: between two steps, 20 ms apart, others have
# used the cache. With half the lanes asking costs a tenth where that cache holds all, and gained nothing sure elsewhere
# but for keys and values: those of a head end before the processor asks by itself, so each call asks for what the next
# head reads (4 of the 17 us that a layer's attention takes beyond the last cache)
AHEAD = 4096 if LANES == 16 else 0
# in which the columns of float32 and bfloat16 weights lie, read side by side: with two vectors these are four places.
# Measured with half the lanes alone, in float32: a step of 22 layers, beyond the last cache, takes a tenth to a seventh
# less, and one of 5 layers within it as long; with int8 weights it would take more there
PARTS = 1 if LANES == 16 else 2


def panels(w: np.ndarray) -> np.ndarray:
    """Numbers (..., N, K) as `product` reads one part, (..., N / LANES, K, LANES): column by column of LANES rows.

    Of int8 two columns at once: each pair of rows behind another holds LANES pairs of neighbours.
    """
    *outer, n, k = w.shape
    out = aligned((*outer, n // LANES, k, LANES), w.dtype)
    together = 2 if w.dtype == np.int8 else 1
    pieces = w.reshape(*outer, n // LANES, LANES, k // together, together)
    out[...] = np.swapaxes(pieces, -3, -2).reshape(out.shape)
    return out


def in_parts(w: np.ndarray) -> np.ndarray:
    """Weights (..., N, K) as the `panels` of each part of their columns, (..., parts, N / LANES, K / parts, LANES).

    Of int32 below 2^23 in magnitude the three bytes that matter, uint8, so that the last axis is 3 LANES long.
    """
    *outer, n, k = w.shape
    parts = 1 if w.dtype == np.int8 else PARTS
    found = panels(np.moveaxis(w.reshape(*outer, n, parts, k // parts), -2, -3))
    if w.dtype != np.int32:
        return found
    out = aligned((*found.shape[:-1], 3 * LANES), np.uint8)
    out.reshape(*found.shape, 3)[...] = found.astype("<i4").view(np.uint8).reshape(*found.shape, 4)[..., :3]
    return out


def _tile(n_tokens: int, n_vectors: int) -> Any:
    """A function (w, between, part, ahead, n, x (T, x_stride), x_stride, y (T, y_stride), y_stride, apart) making y.

    Vector v, the LANES numbers from w[v between + p part + k LANES] on for each part p and k < n / parts, becomes the
    LANES of y[t, v apart] and on: the sum of x[t, p n / parts + k] times it. n is a multiple of LANES. Of uint8 three
    are a number, and y is 256 times as large. There is one part of int8, beside which x is as `product` says, and where
    `part` is None: then what lies `ahead` numbers on is asked for.
    """

    @intrinsic
    def tile(
        typing: Any, w: Any, between: Any, part: Any, ahead: Any, n: Any, x: Any, x_stride: Any, y: Any, y_stride: Any,
        apart: Any,
    ) -> Any:  # fmt: skip
        number = types.int64
        part = part if part == types.none else number
        return types.void(w, number, part, number, number, x, number, y, number, number), _emit

    def _emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        make, stored = Vectors(context, builder), signature.args[0].dtype
        w, between, part, ahead, n, x, x_stride, y, y_stride, apart = args
        whole, one_part = stored == types.int8, signature.args[2] == types.none
        together = 2 if whole else 1  # columns
        width = 3 * LANES if stored == types.uint8 else LANES * together
        # through a line, so that the one ahead is asked for once; of three bytes twice as far, which was faster
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
                    for t, token in enumerate(share):  # one at a time: with all of them in registers, sums were not
                        number = builder.gep(token, [make.add(k, turn * together)])
                        shown = make.spread_pair(number) if whole else make.spread(builder.load(number))
                        for i, one in enumerate(weights):
                            place = i * n_tokens + t
                            grown[place] = (make.dot if whole else make.fma)(one, shown, grown[place])
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
        return context.get_dummy_value()

    return tile


_tiles_4, _tiles_3, _tiles_2, _tiles_1 = _tile(4, _V4), _tile(3, _V3), _tile(2, _V2), _tile(1, _V1)
_tile_4, _tile_3, _tile_2, _tile_1 = _tile(4, 1), _tile(3, 1), _tile(2, 1), _tile(1, 1)


@jit
def product(w, panel, part, n, n_vectors, x, x_stride, n_tokens, y, y_stride):
    """y[t, v LANES + i] = sum over k < n of x[t, k] w[v, k, i], for v < n_vectors and i < LANES.

    w: pointer to n_vectors panels, `panel` numbers apart, of float32, int8, uint16 (bfloat16's bits) or uint8 (three a
    number, which counts 256 times): `in_parts`, of which each begins `part` numbers behind the one before, or `panels`
    of float32, where part is None and as many follow for the next call; x, y: to float32, of rows x_stride and y_stride
    numbers apart, but beside int8 x is what `numba_rows.shortened` left, of rows n + 2 apart. n is a multiple of LANES.
    """
    ahead = n_vectors * panel
    while n_tokens > 0:
        now = min(4, n_tokens)
        of_tile = _V4 if now == 4 else _V3 if now == 3 else _V2 if now == 2 else _V1
        n_tiles = n_vectors // of_tile
        for g in range(n_tiles):
            here, there, by, apart = at(w, g * panel), at(y, g * LANES), n_tiles * panel, n_tiles * LANES
            if now == 4:
                _tiles_4(here, by, part, ahead, n, x, x_stride, there, y_stride, apart)
            elif now == 3:
                _tiles_3(here, by, part, ahead, n, x, x_stride, there, y_stride, apart)
            elif now == 2:
                _tiles_2(here, by, part, ahead, n, x, x_stride, there, y_stride, apart)
            else:
                _tiles_1(here, by, part, ahead, n, x, x_stride, there, y_stride, apart)
        for v in range(n_tiles * of_tile, n_vectors):
            here, there = at(w, v * panel), at(y, v * LANES)
            if now == 4:
                _tile_4(here, 0, part, ahead, n, x, x_stride, there, y_stride, 0)
            elif now == 3:
                _tile_3(here, 0, part, ahead, n, x, x_stride, there, y_stride, 0)
            elif now == 2:
                _tile_2(here, 0, part, ahead, n, x, x_stride, there, y_stride, 0)
            else:
                _tile_1(here, 0, part, ahead, n, x, x_stride, there, y_stride, 0)
        n_tokens -= now
        x, y = at(x, now * x_stride), at(y, now * y_stride)
