"""One streaming attention step in Triton, one launch for all heads.

Specification: `kernels.reference.stream_attention`.
The bin and which of its tokens are hidden are device data, so that one CUDA graph serves every step.

Tiles of a program, which is one head (BH numbers in half a head, twice):

| tile     | holds                                   | loaded                                       |
| -------- | --------------------------------------- | -------------------------------------------- |
| [BS, BH] | a tile of the ring's slots              | the first before anything is waited for      |
| [BT, BH] | queries, keys, values of this bin       | once; its keys are met from registers        |
| [BP, BH] | the sinks                               | once                                         |
"""

from __future__ import annotations

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
    next_power_of_2,
    rotation,
    scores,
    store_halves,
    tiles,
    turned,
)
from kernels.reference import StreamCache


@jit
def attend(
    i_h, o_t, m_t, p_q, p_k, p_v, p_ring_k, p_ring_v, p_ring_hidden, p_sink_k, p_sink_v, p_position, p_hidden,
    p_frequency, q_h, q_n, k_h, k_n, v_h, v_n, scale,
    N: tl.constexpr, S: tl.constexpr, T: tl.constexpr, HALF: tl.constexpr,
    BH: tl.constexpr, BT: tl.constexpr, BP: tl.constexpr, BS: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """Head i_h of a step: writes the bin's slots and which are hidden; returns both halves [BT, BH] of its values."""
    p_ring_k += i_h * N * HALF * 2
    p_ring_v += i_h * N * HALF * 2
    # prefetched, hidden or not: nothing that the loads of this bin wait for delays the first slots [BS, BH]
    o_s = tl.arange(0, BS)
    b_hidden = tl.load(p_ring_hidden + o_s, mask=o_s < N, other=1).to(tl.int32)
    b_c1, b_c2 = load_halves(p_ring_k, o_s, o_s < N, HALF * 2, HALF, BH)
    b_w1, b_w2 = load_halves(p_ring_v, o_s, o_s < N, HALF * 2, HALF, BH)
    b_at = tl.load(p_position)
    o_begin = b_at % (N // T) * T
    # [BT]
    m_key = tl.load(p_hidden + o_t, mask=m_t, other=1).to(tl.int32) == 0
    # [BT, BH]
    b_q1, b_q2 = load_halves(p_q + i_h * q_h, o_t, m_t, q_n, HALF, BH)
    b_k1, b_k2 = load_halves(p_k + i_h * k_h, o_t, m_key, k_n, HALF, BH)
    b_v1, b_v2 = load_halves(p_v + i_h * v_h, o_t, m_key, v_n, HALF, BH)
    # sinks [BP, BH]
    o_p = tl.arange(0, BP)
    b_p1, b_p2 = load_halves(p_sink_k + i_h * S * HALF * 2, o_p, o_p < S, HALF * 2, HALF, BH)
    b_u1, b_u2 = load_halves(p_sink_v + i_h * S * HALF * 2, o_p, o_p < S, HALF * 2, HALF, BH)
    b_cos, b_sin = rotation(b_at + tl.zeros([1], tl.int64), load_frequencies(p_frequency, HALF, BH))
    b_r1, b_r2 = turned(b_q1, b_q2, b_cos, b_sin)
    b_t1, b_t2 = turned(b_k1, b_k2, b_cos, b_sin)
    store_halves(p_ring_k, o_begin + o_t, m_t, HALF * 2, b_t1, b_t2, HALF, BH)
    store_halves(p_ring_v, o_begin + o_t, m_t, HALF * 2, b_v1, b_v2, HALF, BH)
    if i_h == 0:
        tl.store(p_ring_hidden + o_begin + o_t, m_key == 0, mask=m_t)
    b_o1, b_o2 = tl.zeros([BT, BH], tl.float32), tl.zeros([BT, BH], tl.float32)
    b_top, b_sum = tl.full([BT], float("-inf"), tl.float32), tl.zeros([BT], tl.float32)
    # sinks, un-rotated: [BT, BP]
    b_sp = tl.where((o_p < S)[None, :], scores(b_q1, b_q2, b_p1, b_p2, FEW) * scale, float("-inf"))
    b_top, b_sum, b_o1, b_o2 = absorb(b_top, b_sum, b_o1, b_o2, b_sp, b_u1, b_u2, FEW)
    # this bin, from registers: other threads' stores may not be visible yet: [BT, BT]
    b_st = tl.where(m_key[None, :], scores(b_r1, b_r2, b_t1, b_t2, FEW) * scale, float("-inf"))
    b_top, b_sum, b_o1, b_o2 = absorb(b_top, b_sum, b_o1, b_o2, b_st, b_v1, b_v2, FEW)
    for i_s in range(0, tl.cdiv(N, BS)):
        if i_s > 0:
            o_s = i_s * BS + tl.arange(0, BS)
            b_hidden = tl.load(p_ring_hidden + o_s, mask=o_s < N, other=1).to(tl.int32)
            b_c1, b_c2 = load_halves(p_ring_k, o_s, o_s < N, HALF * 2, HALF, BH)
            b_w1, b_w2 = load_halves(p_ring_v, o_s, o_s < N, HALF * 2, HALF, BH)
        # [BS]; this bin's slots held the bin that it evicts, and a hidden slot may hold anything
        m_s = (b_hidden == 0) & ((o_s < o_begin) | (o_s >= o_begin + T))
        b_e1, b_e2 = tl.where(m_s[:, None], b_w1, 0.0), tl.where(m_s[:, None], b_w2, 0.0)
        # [BT, BS]
        b_s = tl.where(m_s[None, :], scores(b_r1, b_r2, b_c1, b_c2, FEW) * scale, float("-inf"))
        b_top, b_sum, b_o1, b_o2 = absorb(b_top, b_sum, b_o1, b_o2, b_s, b_e1.to(b_w1.dtype), b_e2.to(b_w2.dtype), FEW)
    b_sum = tl.where(b_sum == 0.0, 1.0, b_sum)[:, None]
    return b_o1 / b_sum, b_o2 / b_sum


@jit
def stream_kernel(
    p_q, p_k, p_v, p_ring_k, p_ring_v, p_ring_hidden, p_sink_k, p_sink_v, p_position, p_hidden, p_frequency, p_out,
    q_h, q_n, k_h, k_n, v_h, v_n, o_h, o_n, scale,
    N: tl.constexpr, S: tl.constexpr, T: tl.constexpr, HALF: tl.constexpr,
    BH: tl.constexpr, BT: tl.constexpr, BP: tl.constexpr, BS: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """Grid (H,). N ring slots, S sinks, T tokens of this bin. Writes their slots, and out (H, T, K)."""
    i_h = tl.program_id(0).to(tl.int64)
    o_t = tl.arange(0, BT)
    m_t = o_t < T
    b_o1, b_o2 = attend(
        i_h, o_t, m_t, p_q, p_k, p_v, p_ring_k, p_ring_v, p_ring_hidden, p_sink_k, p_sink_v, p_position, p_hidden,
        p_frequency, q_h, q_n, k_h, k_n, v_h, v_n, scale, N, S, T, HALF, BH, BT, BP, BS, FEW,
    )  # fmt: skip
    store_halves(p_out + i_h * o_h, o_t, m_t, o_n, b_o1, b_o2, HALF, BH)


FEW_TOKENS = 4  # of a bin, up to which sums are faster than tensor cores
FEW_WARPS = 8


def few_values(half: int) -> int:
    """Numbers of half a key tile; its other half and the values' two take as many registers again each."""
    return 4096 if half <= 16 else 2048


def arguments(
    q: Tensor, k: Tensor, v: Tensor, cache: StreamCache, position: Tensor, hidden: Tensor
) -> tuple[dict[str, object], dict[str, int]]:
    """What `attend` is given, see `kernels.reference.stream_attention`, and how its kernel is compiled."""
    n_tokens, head_width = q.shape[1:]
    n_slots, n_sinks, few = cache.k.shape[1], cache.sink_k.shape[1], n_tokens <= FEW_TOKENS
    size = tiles("stream", head_width, q.dtype)
    if few:
        half = next_power_of_2(head_width // 2)
        keys = min(next_power_of_2(n_slots), few_values(half) // half)
        shape = {"BH": half, "BS": keys, "BT": next_power_of_2(n_tokens), "BP": next_power_of_2(n_sinks)}
        options = {"num_warps": FEW_WARPS, "num_stages": 1}
    else:
        rows = {"BT": max(16, next_power_of_2(n_tokens)), "BP": max(16, next_power_of_2(n_sinks))}
        shape, options = {"BH": half_block(head_width), "BS": size.keys} | rows, size.options()
    given = {
        "p_q": q, "p_k": k, "p_v": v, "p_ring_k": cache.k, "p_ring_v": cache.v, "p_ring_hidden": cache.hidden,
        "p_sink_k": cache.sink_k, "p_sink_v": cache.sink_v, "p_position": position, "p_hidden": hidden,
        "p_frequency": device_frequencies(head_width, q.device),
        "q_h": q.stride(0), "q_n": q.stride(1), "k_h": k.stride(0), "k_n": k.stride(1),
        "v_h": v.stride(0), "v_n": v.stride(1), "scale": head_width**-0.5 * LOG2_E,
        "N": n_slots, "S": n_sinks, "T": n_tokens, "HALF": head_width // 2, "FEW": few, **shape,
    }  # fmt: skip
    return given, options


def step_call(
    q: Tensor, k: Tensor, v: Tensor, cache: StreamCache, *, position: Tensor, hidden: Tensor, out: Tensor
) -> Call:
    """The launch of one step, for arguments that `kernels.attention` has checked."""
    given, options = arguments(q, k, v, cache, position, hidden)
    own = {"p_out": out, "o_h": out.stride(0), "o_n": out.stride(1)}
    return Call(stream_kernel, (q.shape[0],), given | own, options)
