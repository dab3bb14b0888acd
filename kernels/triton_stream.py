"""One streaming attention step in Triton, one launch for all heads.

Specification: `kernels.reference.stream_attention`.
The bin and which tokens are shown are device data, so that one CUDA graph serves every step.
"""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from kernels.reference import StreamCache
from kernels.triton_tiles import (
    LOG2_E,
    Call,
    Tiles,
    absorb,
    device_frequencies,
    half_block,
    jit,
    load_frequencies,
    load_halves,
    next_power_of_2,
    product,
    rotate,
    rotation,
    store_halves,
    tiles,
)


@jit
def attend(
    i_h, o_t, m_t, p_q, p_k, p_v, p_ring_k, p_ring_v, p_visible, p_sink_k, p_sink_v, p_position, p_shown, p_frequency,
    q_h, q_n, k_h, k_n, v_h, v_n, scale,
    N: tl.constexpr, S: tl.constexpr, T: tl.constexpr, HALF: tl.constexpr,
    BH: tl.constexpr, BT: tl.constexpr, BP: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """Head i_h of a step: writes the bin's slots and their visibility; returns both halves [BT, BH] of its values."""
    p_ring_k += i_h * N * HALF * 2
    p_ring_v += i_h * N * HALF * 2
    b_at = tl.load(p_position)
    o_begin = b_at % (N // T) * T
    # [BT]
    m_shown = tl.load(p_shown + o_t, mask=m_t, other=0).to(tl.int32) != 0
    # [BT, BH]
    b_q1, b_q2 = load_halves(p_q + i_h * q_h, o_t, m_t, q_n, HALF, BH)
    b_k1, b_k2 = load_halves(p_k + i_h * k_h, o_t, m_shown, k_n, HALF, BH)
    b_v1, b_v2 = load_halves(p_v + i_h * v_h, o_t, m_shown, v_n, HALF, BH)
    b_cos, b_sin = rotation(b_at + tl.zeros([1], tl.int64), load_frequencies(p_frequency, HALF, BH))
    b_r1, b_r2 = rotate(b_q1, b_q2, b_cos, b_sin)
    b_r1, b_r2 = b_r1.to(b_q1.dtype), b_r2.to(b_q1.dtype)
    b_t1, b_t2 = rotate(b_k1, b_k2, b_cos, b_sin)
    b_t1, b_t2 = b_t1.to(b_k1.dtype), b_t2.to(b_k1.dtype)
    store_halves(p_ring_k, o_begin + o_t, m_t, HALF * 2, b_t1, b_t2, HALF, BH)
    store_halves(p_ring_v, o_begin + o_t, m_t, HALF * 2, b_v1, b_v2, HALF, BH)
    if i_h == 0:
        tl.store(p_visible + o_begin + o_t, m_shown, mask=m_t)
    b_o1, b_o2 = tl.zeros([BT, BH], tl.float32), tl.zeros([BT, BH], tl.float32)
    b_top, b_sum = tl.full([BT], float("-inf"), tl.float32), tl.zeros([BT], tl.float32)
    # sinks, un-rotated: [BT, BP]
    o_p = tl.arange(0, BP)
    b_p1, b_p2 = load_halves(p_sink_k + i_h * S * HALF * 2, o_p, o_p < S, HALF * 2, HALF, BH)
    b_sp = tl.where((o_p < S)[None, :], product(b_q1, b_q2, b_p1, b_p2) * scale, float("-inf"))
    b_p1, b_p2 = load_halves(p_sink_v + i_h * S * HALF * 2, o_p, o_p < S, HALF * 2, HALF, BH)
    b_top, b_sum, b_o1, b_o2 = absorb(b_top, b_sum, b_o1, b_o2, b_sp, b_p1, b_p2)
    # this bin, from registers, because what was just stored may not be there to be read: [BT, BT]
    b_st = tl.where(m_shown[None, :], product(b_r1, b_r2, b_t1, b_t2) * scale, float("-inf"))
    b_top, b_sum, b_o1, b_o2 = absorb(b_top, b_sum, b_o1, b_o2, b_st, b_v1, b_v2)
    for i_s in range(0, tl.cdiv(N, BS)):
        # [BS]; this bin's slots held the bin that it evicts
        o_s = i_s * BS + tl.arange(0, BS)
        m_s = (o_s < N) & ((o_s < o_begin) | (o_s >= o_begin + T))
        m_s = m_s & (tl.load(p_visible + o_s, mask=m_s, other=0).to(tl.int32) != 0)
        # [BS, BH]
        b_c1, b_c2 = load_halves(p_ring_k, o_s, m_s, HALF * 2, HALF, BH)
        b_w1, b_w2 = load_halves(p_ring_v, o_s, m_s, HALF * 2, HALF, BH)
        # [BT, BS]
        b_s = tl.where(m_s[None, :], product(b_r1, b_r2, b_c1, b_c2) * scale, float("-inf"))
        b_top, b_sum, b_o1, b_o2 = absorb(b_top, b_sum, b_o1, b_o2, b_s, b_w1, b_w2)
    b_sum = tl.where(b_sum == 0.0, 1.0, b_sum)[:, None]
    return b_o1 / b_sum, b_o2 / b_sum


@jit
def stream_kernel(
    p_q, p_k, p_v, p_ring_k, p_ring_v, p_visible, p_sink_k, p_sink_v, p_position, p_shown, p_frequency, p_out,
    q_h, q_n, k_h, k_n, v_h, v_n, o_h, o_n, scale,
    N: tl.constexpr, S: tl.constexpr, T: tl.constexpr, HALF: tl.constexpr,
    BH: tl.constexpr, BT: tl.constexpr, BP: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """Grid (H,). N ring slots, S sinks, T tokens of this bin. Writes their slots and visibility, and out (H, T, K)."""
    i_h = tl.program_id(0).to(tl.int64)
    o_t = tl.arange(0, BT)
    m_t = o_t < T
    b_o1, b_o2 = attend(
        i_h, o_t, m_t, p_q, p_k, p_v, p_ring_k, p_ring_v, p_visible, p_sink_k, p_sink_v, p_position, p_shown,
        p_frequency, q_h, q_n, k_h, k_n, v_h, v_n, scale, N, S, T, HALF, BH, BT, BP, BS,
    )  # fmt: skip
    store_halves(p_out + i_h * o_h, o_t, m_t, o_n, b_o1, b_o2, HALF, BH)


def arguments(
    q: Tensor, k: Tensor, v: Tensor, cache: StreamCache, position: Tensor, shown: Tensor, size: Tiles
) -> dict[str, object]:
    """What `attend` is given; see `kernels.reference.stream_attention`."""
    n_tokens, head_width = q.shape[1:]
    n_sinks = cache.sink_k.shape[1]
    return {
        "p_q": q, "p_k": k, "p_v": v, "p_ring_k": cache.k, "p_ring_v": cache.v, "p_visible": cache.visible,
        "p_sink_k": cache.sink_k, "p_sink_v": cache.sink_v, "p_position": position, "p_shown": shown,
        "p_frequency": device_frequencies(head_width, q.device),
        "q_h": q.stride(0), "q_n": q.stride(1), "k_h": k.stride(0), "k_n": k.stride(1),
        "v_h": v.stride(0), "v_n": v.stride(1), "scale": head_width**-0.5 * LOG2_E,
        "N": cache.k.shape[1], "S": n_sinks, "T": n_tokens,
        "HALF": head_width // 2, "BH": half_block(head_width), "BS": size.keys,
        "BT": max(16, next_power_of_2(n_tokens)), "BP": max(16, next_power_of_2(n_sinks)),
    }  # fmt: skip


def step_call(
    q: Tensor, k: Tensor, v: Tensor, cache: StreamCache, *, position: Tensor, shown: Tensor, out: Tensor
) -> Call:
    """The launch of one step, for arguments that `kernels.attention` has checked."""
    size = tiles("stream", q.shape[2], q.dtype)
    own = {"p_out": out, "o_h": out.stride(0), "o_n": out.stride(1)}
    return Call(stream_kernel, (q.shape[0],), arguments(q, k, v, cache, position, shown, size) | own, size.options())
