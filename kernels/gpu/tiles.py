"""What the Triton kernels share: tiles of half heads, rotary embedding, online softmax, and a launch as data.

A head is kept as its two halves, because the half-split rotary embedding mixes nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from kernels.reference import frequencies

jit: Callable[..., Any] = triton.jit  # typed for kernels, where a call returns a value
LOG2_E = 1.4426950408889634  # scores are kept in powers of 2


class Call(NamedTuple):
    """One launch: a kernel, its grid, what it is given by name, and how it is compiled."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, int]

    def launch(self) -> None:
        """Run it on the current device, which must be that of its tensors."""
        self.kernel[self.grid](**self.arguments, **self.options)


@functools.cache
def device_frequencies(head_width: int, device: torch.device) -> torch.Tensor:
    """`frequencies` on a device, made once."""
    return frequencies(head_width).to(device)


def tiles_over(n: int, size: int) -> int:
    """How many tiles of a size cover n."""
    return -(-n // size)


def next_power_of_2(n: int) -> int:
    """The smallest power of 2 that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def half_block(head_width: int) -> int:
    """Tile width that holds half a head; a product on tensor cores needs 16."""
    return max(16, next_power_of_2(head_width // 2))


class Tiles(NamedTuple):
    """Rows (BT) and keys (BS) of a tile, and the warps that share it."""

    rows: int
    keys: int
    warps: int

    def blocks(self) -> dict[str, int]:
        """The tile as the kernels' constants."""
        return {"BT": self.rows, "BS": self.keys}

    def options(self) -> dict[str, int]:
        """How the kernel is compiled; loads behind a branch cannot be pipelined, hence one stage."""
        return {"num_warps": self.warps, "num_stages": 1}


# By kernel, then half head; float32 first, whose products use no tensor cores, then half precision. In all of them
# `kernels.gpu.report` finds no spills. They are fixed because tuning on the device would compile while decoding.
TILES: dict[str, dict[int, tuple[Tiles, Tiles]]] = {
    "forward": {
        16: (Tiles(32, 32, 4), Tiles(64, 32, 4)),
        32: (Tiles(32, 32, 8), Tiles(16, 32, 4)),
        64: (Tiles(32, 32, 8), Tiles(16, 32, 8)),
    },
    "query_gradient": {
        16: (Tiles(32, 32, 4), Tiles(32, 16, 8)),
        32: (Tiles(32, 32, 8), Tiles(16, 16, 4)),
        64: (Tiles(32, 32, 8), Tiles(16, 32, 8)),
    },
    "key_gradient": {
        16: (Tiles(32, 32, 8), Tiles(16, 32, 4)),
        32: (Tiles(32, 16, 8), Tiles(32, 16, 8)),
        64: (Tiles(32, 16, 8), Tiles(32, 16, 8)),
    },
    "stream": {  # rows are not used: a step's are the bin's tokens
        16: (Tiles(16, 64, 4), Tiles(16, 64, 4)),
        32: (Tiles(16, 32, 4), Tiles(16, 64, 4)),
        64: (Tiles(16, 32, 4), Tiles(16, 64, 4)),
    },
}


def tiles(kernel: str, head_width: int, dtype: torch.dtype) -> Tiles:
    """The fixed choice for a kernel, a head and a dtype."""
    return TILES[kernel][half_block(head_width)][dtype != torch.float32]


@jit
def load_halves(p_x, o_n, m_n, stride, HALF: tl.constexpr, BH: tl.constexpr):
    """Both halves [N, BH] of rows o_n, 0 where m_n is False."""
    o_h = tl.arange(0, BH)
    p_first = p_x + o_n[:, None] * stride + o_h[None, :]
    m_x = m_n[:, None] & (o_h < HALF)[None, :]
    return tl.load(p_first, mask=m_x, other=0.0), tl.load(p_first + HALF, mask=m_x, other=0.0)


@jit
def store_halves(p_x, o_n, m_n, stride, b_first, b_second, HALF: tl.constexpr, BH: tl.constexpr):
    """Both halves [N, BH] into rows o_n where m_n is True."""
    o_h = tl.arange(0, BH)
    p_first = p_x + o_n[:, None] * stride + o_h[None, :]
    m_x = m_n[:, None] & (o_h < HALF)[None, :]
    tl.store(p_first, b_first.to(p_x.dtype.element_ty), mask=m_x)
    tl.store(p_first + HALF, b_second.to(p_x.dtype.element_ty), mask=m_x)


@jit
def load_frequencies(p_frequency, HALF: tl.constexpr, BH: tl.constexpr):
    """Turns per bin [BH], 0 beyond half a head."""
    o_h = tl.arange(0, BH)
    return tl.load(p_frequency + o_h, mask=o_h < HALF, other=0.0)


@jit
def rotation(b_position, b_frequency):
    """Cosine and sine [N, BH] float32 of positions [N] int64; position 0 gives exactly 1 and 0."""
    # turns in float64, so that bin 10**7 is as exact as bin 0
    b_turn = b_position.to(tl.float64)[:, None] * b_frequency[None, :]
    b_turn = (b_turn - tl.floor(b_turn + 0.5)).to(tl.float32)
    b_quarter = tl.floor(b_turn * 4.0 + 0.5)
    # Taylor's series on an eighth of a turn either way, below 1e-8; libdevice's sine would spill to local memory
    b_x = (b_turn - b_quarter * 0.25) * 6.283185307179586
    b_z = b_x * b_x
    b_sin = b_x * (1 + b_z * (-1 / 6 + b_z * (1 / 120 + b_z * (-1 / 5040 + b_z * (1 / 362880)))))
    b_cos = b_z * (1 / 24 + b_z * (-1 / 720 + b_z * (1 / 40320 + b_z * (-1 / 3628800))))
    b_cos = 1 + b_z * (-1 / 2 + b_cos)
    m_odd = tl.abs(b_quarter) == 1.0
    b_sign = tl.where(tl.abs(b_quarter) == 2.0, -1.0, 1.0)
    b_cosine = tl.where(m_odd, -b_quarter * b_sin, b_sign * b_cos)
    return b_cosine, tl.where(m_odd, b_quarter * b_cos, b_sign * b_sin)


@jit
def rotate(b_first, b_second, b_cos, b_sin):
    """Halves [N, BH] turned forward, in float32; with -b_sin, back."""
    b_first, b_second = b_first.to(tl.float32), b_second.to(tl.float32)
    return b_first * b_cos - b_second * b_sin, b_second * b_cos + b_first * b_sin


@jit
def turned(b_first, b_second, b_cos, b_sin):
    """Halves [N, BH] turned forward, rounded to their own type: what a score multiplies."""
    b_r1, b_r2 = rotate(b_first, b_second, b_cos, b_sin)
    return b_r1.to(b_first.dtype), b_r2.to(b_second.dtype)


@jit
def product(b_a1, b_a2, b_b1, b_b2):
    """[M, BH] halves times [N, BH] halves, [M, N] float32; both in one type."""
    # ieee: TF32 would keep 10 of float32's 23 bits
    b_y = tl.dot(b_a1, tl.trans(b_b1), input_precision="ieee")
    return tl.dot(b_a2, tl.trans(b_b2), b_y, input_precision="ieee")


@jit
def scores(b_a1, b_a2, b_b1, b_b2, FEW: tl.constexpr):
    """`product`; of few rows as plain sums, because a tensor core's tile of 16 rows would be mostly empty."""
    if FEW:
        b_a1, b_a2 = b_a1.to(tl.float32), b_a2.to(tl.float32)
        b_y = b_a1[:, None, :] * b_b1.to(tl.float32)[None, :, :] + b_a2[:, None, :] * b_b2.to(tl.float32)[None, :, :]
        return tl.sum(b_y, 2)
    else:
        return product(b_a1, b_a2, b_b1, b_b2)


@jit
def weighted(b_p, b_v, b_o, FEW: tl.constexpr):
    """b_o [M, BH] + weights [M, N] times values [N, BH]; of few rows as plain sums."""
    if FEW:
        return b_o + tl.sum(b_p.to(tl.float32)[:, :, None] * b_v.to(tl.float32)[None, :, :], 1)
    else:
        return tl.dot(b_p, b_v, b_o, input_precision="ieee")


@jit
def absorb(b_top, b_sum, b_o1, b_o2, b_s, b_v1, b_v2, FEW: tl.constexpr):
    """Online softmax (Milakov & Gimelshein 2018): take scores [M, N] in powers of 2 and values [N, BH] into the state.

    State: the largest score [M], the sum of weights [M], and the weighted values [M, BH] twice.
    """
    b_new = tl.maximum(b_top, tl.max(b_s, 1))
    # a row that has met nothing stays at -inf; shifting it by 0 keeps -inf - -inf out
    b_shift = tl.where(b_new == float("-inf"), 0.0, b_new)
    b_p = tl.exp2(b_s - b_shift[:, None])
    b_fade = tl.exp2(b_top - b_shift)
    b_sum = b_sum * b_fade + tl.sum(b_p, 1)
    b_p = b_p.to(b_v1.dtype)
    b_o1 = weighted(b_p, b_v1, b_o1 * b_fade[:, None], FEW)
    b_o2 = weighted(b_p, b_v2, b_o2 * b_fade[:, None], FEW)
    return b_new, b_sum, b_o1, b_o2
