"""Products of a few token rows with a tall matrix on one CPU core: each weight is read once for all tokens.

The inner tile is V vectors of outputs times T tokens, V x T accumulators that never leave registers. A lane is an
output and adds up alone: nothing is summed across lanes, and a sum does not depend on their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.numba_jit import jit
from kernels.numba_vectors import FLOAT, LANES, LINE, VECTOR, WORDS, ZERO, Vectors, aligned, at, full

# vectors of outputs in a tile of 4, 3, 2 and 1 tokens: each reads weights in a place of its own, which a memory serves
# sooner than one; as many accumulators as keep both multipliers busy and fit the 16 registers (32 of 512 bits)
_V4, _V3, _V2, _V1 = (4, 4, 4, 8) if LANES == 16 else (2, 4, 4, 4)
# bytes, of all vectors of a tile, that are asked for before they are read: between two steps, 20 ms apart, others have
# used the cache. With half the lanes asking costs a tenth where that cache holds all, and gained nothing sure elsewhere
AHEAD = 4096 if LANES == 16 else 0


def panels(w: np.ndarray) -> np.ndarray:
    """Weights (..., N, K) as `product` reads them, (..., N / LANES, K, LANES): column by column of LANES rows.

    Of int8 two columns at once: each pair of rows behind another holds LANES pairs of neighbours.
    """
    *outer, n, k = w.shape
    out = aligned((*outer, n // LANES, k, LANES), w.dtype)
    together = 2 if w.dtype == np.int8 else 1
    pieces = w.reshape(*outer, n // LANES, LANES, k // together, together)
    out[...] = np.swapaxes(pieces, -3, -2).reshape(out.shape)
    return out


def _tile(n_tokens: int, n_vectors: int) -> Any:
    """A function (w, between, n, x (T, x_stride), x_stride, y (T, y_stride), y_stride, apart) that writes y.

    Vector v, the LANES numbers from w[v between + k LANES] on for each k < n, becomes the LANES of y[t, v apart]
    and on: the sum over k of x[t, k] times it. n is a multiple of LANES. Beside int8, x is as `product` says.
    """

    @intrinsic
    def tile(
        typing: Any, w: Any, between: Any, n: Any, x: Any, x_stride: Any, y: Any, y_stride: Any, apart: Any
    ) -> Any:  # fmt: skip
        number = types.int64
        return types.void(w, number, number, x, number, y, number, number), _emit

    def _emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        make, stored = Vectors(context, builder), signature.args[0].dtype
        w, between, n, x, x_stride, y, y_stride, apart = args
        whole = stored == types.int8
        together = 2 if whole else 1
        turns = LINE // (LANES * together * stored.bitwidth // 8)  # through a line; the one ahead is asked for once
        sources = make.rows(w, between, n_vectors)
        tokens = make.rows(x, x_stride, n_tokens)

        def body(k: Any, here: Any, *sums: Any) -> list[Any]:
            grown = list(sums)
            for turn in range(turns):
                numbers = [builder.gep(one, [make.add(k, turn * together)]) for one in tokens]
                shown = [make.spread_pair(one) if whole else make.spread(builder.load(one)) for one in numbers]
                for v in range(n_vectors):
                    pointer = builder.gep(sources[v], [here])
                    if AHEAD and turn == 0:
                        make.fetch(pointer, AHEAD // n_vectors)
                    weight = make.pairs(pointer) if whole else make.load(pointer, stored)
                    for i, number in enumerate(shown, v * n_tokens):
                        grown[i] = (make.dot if whole else make.fma)(weight, number, grown[i])
                here = make.add(here, LANES * together)
            return [here, *grown]

        nothing = ir.Constant(WORDS, [0] * LANES) if whole else full(0.0)
        _, *sums = make.loop(n, turns * together, [ZERO, *[nothing] * (n_vectors * n_tokens)], body)
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
def product(w, n, n_vectors, x, x_stride, n_tokens, y, y_stride):
    """y[t, v LANES + i] = sum over k < n of x[t, k] w[v, k, i], for v < n_vectors and i < LANES.

    w: pointer to `panels` (n_vectors, n, LANES) of float32, int8, or uint16 (bfloat16's bits); x, y: to float32, of
    rows x_stride and y_stride numbers apart, but beside int8 x is what `numba_rows.shortened` left, of rows n + 2
    apart. n is a multiple of LANES.
    """
    panel = n * LANES
    while n_tokens > 0:
        now = min(4, n_tokens)
        of_tile = _V4 if now == 4 else _V3 if now == 3 else _V2 if now == 2 else _V1
        n_tiles = n_vectors // of_tile
        for g in range(n_tiles):
            here, there, by, apart = at(w, g * panel), at(y, g * LANES), n_tiles * panel, n_tiles * LANES
            if now == 4:
                _tiles_4(here, by, n, x, x_stride, there, y_stride, apart)
            elif now == 3:
                _tiles_3(here, by, n, x, x_stride, there, y_stride, apart)
            elif now == 2:
                _tiles_2(here, by, n, x, x_stride, there, y_stride, apart)
            else:
                _tiles_1(here, by, n, x, x_stride, there, y_stride, apart)
        for v in range(n_tiles * of_tile, n_vectors):
            here, there = at(w, v * panel), at(y, v * LANES)
            if now == 4:
                _tile_4(here, 0, n, x, x_stride, there, y_stride, 0)
            elif now == 3:
                _tile_3(here, 0, n, x, x_stride, there, y_stride, 0)
            elif now == 2:
                _tile_2(here, 0, n, x, x_stride, there, y_stride, 0)
            else:
                _tile_1(here, 0, n, x, x_stride, there, y_stride, 0)
        n_tokens -= now
        x, y = at(x, now * x_stride), at(y, now * y_stride)
