"""Window attention in Triton: rotary embedding, mask, online softmax and value product in one launch.

Specification: `kernels.reference.attention`. The online softmax follows Dao et al. 2022 (FlashAttention).
"""

from __future__ import annotations

from typing import Any

import triton.language as tl
from torch import Tensor

from kernels.gpu.tiles import (
    LOG2_E,
    Call,
    absorb,
    device_frequencies,
    half_block,
    jit,
    load_frequencies,
    load_halves,
    product,
    rotation,
    store_halves,
    tiles,
    tiles_over,
    turned,
)
from kernels.reference import Pattern

SIZES = ["H", "N", "R", "S", "band"]  # one compilation serves every value of these


@jit
def keys_of(i_s, p_position, p_hidden, N, S, BS: tl.constexpr):
    """Tile i_s of the keys, the sinks' tiles first: (is it of sinks, offsets, usable keys, bins; a sink's is 0)."""
    n_sink_tiles = tl.cdiv(S, BS)
    is_sink = i_s < n_sink_tiles
    o_s = tl.where(is_sink, i_s * BS, S + (i_s - n_sink_tiles) * BS) + tl.arange(0, BS)
    m_s = o_s < tl.where(is_sink, S, N)
    b_hidden = tl.load(p_hidden + o_s, mask=m_s, other=1).to(tl.int32)
    m_s = m_s & (is_sink | (b_hidden == 0))
    b_from = tl.load(p_position + o_s, mask=m_s, other=0)
    return is_sink, o_s, m_s, tl.where(is_sink, 0, b_from)


@jit
def rows_of(i_t, p_rows, p_position, R, S, BT: tl.constexpr, SOME: tl.constexpr):
    """Tile i_t of the queries: (offsets, which exist, which are no sinks, bins; a sink's is 0)."""
    o_t = i_t * BT + tl.arange(0, BT)
    m_t = o_t < R
    o_row = o_t
    if SOME:
        o_row = tl.load(p_rows + o_t, mask=m_t, other=0)
    m_free = m_t & (o_row >= S)
    return o_t, m_t, m_free, tl.load(p_position + o_row, mask=m_free, other=0)


@jit
def pairs(m_t, m_free, b_at, is_sink, m_s, b_from, band, BANDED: tl.constexpr):
    """Which query meets which key [BT, BS]."""
    m_pair = ((is_sink & m_t) | m_free)[:, None] & m_s[None, :]
    if BANDED:
        b_age = b_at[:, None] - b_from[None, :]
        m_pair = m_pair & (is_sink | ((b_age >= 0) & (b_age < band)))
    return m_pair


@jit
def load_keys(p_k, p_v, o_s, m_s, k_n, v_n, b_from, b_frequency, HALF: tl.constexpr, BH: tl.constexpr):
    """Both halves [BS, BH] of keys, rotated to their bins, and of their values."""
    b_k1, b_k2 = load_halves(p_k, o_s, m_s, k_n, HALF, BH)
    b_v1, b_v2 = load_halves(p_v, o_s, m_s, v_n, HALF, BH)
    b_cos, b_sin = rotation(b_from, b_frequency)
    b_t1, b_t2 = turned(b_k1, b_k2, b_cos, b_sin)
    return b_t1, b_t2, b_v1, b_v2


@jit(do_not_specialize=SIZES)
def forward_kernel(
    p_q, p_k, p_v, p_position, p_hidden, p_rows, p_frequency, p_out, p_lse,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_n, hidden_b,
    H, N, R, S, band, scale,
    HALF: tl.constexpr, BH: tl.constexpr, BT: tl.constexpr, BS: tl.constexpr,
    BANDED: tl.constexpr, SOME: tl.constexpr,
):  # fmt: skip
    """Grid (row tiles, H, B). Writes out (B, H, R, K) and lse (B, H, R) float32, the log2 of the sum of 2^score."""
    i_t, i_h, i_b = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    p_k += i_b * k_b + i_h * k_h
    p_v += i_b * v_b + i_h * v_h
    b_frequency = load_frequencies(p_frequency, HALF, BH)
    # [BT]
    o_t, m_t, m_free, b_at = rows_of(i_t, p_rows, p_position, R, S, BT, SOME)
    # [BT, BH]
    b_q1, b_q2 = load_halves(p_q + i_b * q_b + i_h * q_h, o_t, m_t, q_n, HALF, BH)
    b_cos, b_sin = rotation(b_at, b_frequency)
    b_r1, b_r2 = turned(b_q1, b_q2, b_cos, b_sin)
    b_o1, b_o2 = tl.zeros([BT, BH], tl.float32), tl.zeros([BT, BH], tl.float32)
    b_top, b_sum = tl.full([BT], float("-inf"), tl.float32), tl.zeros([BT], tl.float32)
    for i_s in range(0, tl.cdiv(S, BS) + tl.cdiv(N - S, BS)):
        # [BS]
        is_sink, o_s, m_s, b_from = keys_of(i_s, p_position, p_hidden + i_b * hidden_b, N, S, BS)
        # [BT, BS]
        m_pair = pairs(m_t, m_free, b_at, is_sink, m_s, b_from, band, BANDED)
        if tl.max(tl.max(m_pair.to(tl.int32), 1), 0) > 0:
            # [BS, BH]; a sink is met un-rotated: its bin is 0, and so is the query's to it
            b_t1, b_t2, b_v1, b_v2 = load_keys(p_k, p_v, o_s, m_s, k_n, v_n, b_from, b_frequency, HALF, BH)
            b_a1, b_a2 = tl.where(is_sink, b_q1, b_r1), tl.where(is_sink, b_q2, b_r2)
            # [BT, BS]
            b_s = product(b_a1, b_a2, b_t1, b_t2) * scale
            b_s = tl.where(m_pair, b_s, float("-inf"))
            b_top, b_sum, b_o1, b_o2 = absorb(b_top, b_sum, b_o1, b_o2, b_s, b_v1, b_v2, False)
    # a row without a key is 0
    m_empty = b_sum == 0.0
    b_sum = tl.where(m_empty, 1.0, b_sum)
    b_lse = tl.where(m_empty, 0.0, b_top) + tl.log2(b_sum)
    store_halves(p_out + i_b * o_b + i_h * o_h, o_t, m_t, o_n, b_o1 / b_sum[:, None], b_o2 / b_sum[:, None], HALF, BH)
    tl.store(p_lse + (i_b * H + i_h) * R + o_t, b_lse, mask=m_t)


def strides(name: str, x: Tensor) -> dict[str, int]:
    """The kernel's names for the first three strides of x (B, H, N, K)."""
    return {f"{name}_{axis}": x.stride(i) for i, axis in enumerate("bhn")}


def common(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern) -> dict[str, Any]:
    """What every kernel of the window is given; see `kernels.reference.attention`."""
    position, hidden, band, n_sinks, rows = pattern
    heads, head_width = q.shape[1], q.shape[3]
    return {
        "p_q": q, "p_k": k, "p_v": v, "p_position": position, "p_hidden": hidden,
        "p_rows": position if rows is None else rows, "p_frequency": device_frequencies(head_width, q.device),
        **strides("q", q), **strides("k", k), **strides("v", v), "hidden_b": hidden.stride(0),
        "H": heads, "N": k.shape[2], "R": q.shape[2], "S": n_sinks, "band": band or 0,
        "scale": head_width**-0.5 * LOG2_E,
        "HALF": head_width // 2, "BH": half_block(head_width), "BANDED": band is not None, "SOME": rows is not None,
    }  # fmt: skip


def forward_call(shared: dict[str, Any], out: Tensor, lse: Tensor) -> Call:
    """The launch that fills out (B, H, R, K) and lse (B, H, R)."""
    n_batch, heads, n_rows, head_width = out.shape
    size = tiles("forward", head_width, out.dtype)
    grid = (tiles_over(n_rows, size.rows), heads, n_batch)
    own = {"p_out": out, "p_lse": lse, **strides("o", out)}
    return Call(forward_kernel, grid, {**shared, **size.blocks(), **own}, size.options())
