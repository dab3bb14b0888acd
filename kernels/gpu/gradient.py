"""Gradients of window attention in Triton, and the differentiable function over both passes.

Recomputes the weights from the saved row sums (Dao et al. 2022, algorithm 4; two kernels as in FlashAttention-2).
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.gpu.tiles import (
    LOG2_E,
    Call,
    jit,
    load_frequencies,
    load_halves,
    product,
    rotate,
    rotation,
    store_halves,
    tiles,
    tiles_over,
    turned,
)
from kernels.gpu.window import SIZES, common, forward_call, keys_of, load_keys, pairs, rows_of, strides
from kernels.reference import Pattern


@jit(do_not_specialize=SIZES)
def query_gradient_kernel(
    p_q, p_k, p_v, p_position, p_hidden, p_rows, p_frequency, p_g, p_lse, p_delta, p_dq,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_b, g_h, g_n, dq_b, dq_h, dq_n, hidden_b,
    H, N, R, S, band, scale,
    HALF: tl.constexpr, BH: tl.constexpr, BT: tl.constexpr, BS: tl.constexpr,
    BANDED: tl.constexpr, SOME: tl.constexpr, LOG2_E: tl.constexpr,
):  # fmt: skip
    """Grid (row tiles, H, B). Writes dq (B, H, R, K) from the output's gradient g and delta (B, H, R): g . out."""
    i_t, i_h, i_b = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    p_k += i_b * k_b + i_h * k_h
    p_v += i_b * v_b + i_h * v_h
    b_frequency = load_frequencies(p_frequency, HALF, BH)
    # [BT]
    o_t, m_t, m_free, b_at = rows_of(i_t, p_rows, p_position, R, S, BT, SOME)
    b_lse = tl.load(p_lse + (i_b * H + i_h) * R + o_t, mask=m_t, other=0.0)
    b_delta = tl.load(p_delta + (i_b * H + i_h) * R + o_t, mask=m_t, other=0.0)
    # [BT, BH]
    b_q1, b_q2 = load_halves(p_q + i_b * q_b + i_h * q_h, o_t, m_t, q_n, HALF, BH)
    b_g1, b_g2 = load_halves(p_g + i_b * g_b + i_h * g_h, o_t, m_t, g_n, HALF, BH)
    b_cos, b_sin = rotation(b_at, b_frequency)
    b_r1, b_r2 = turned(b_q1, b_q2, b_cos, b_sin)
    b_d1, b_d2 = tl.zeros([BT, BH], tl.float32), tl.zeros([BT, BH], tl.float32)
    for i_s in range(0, tl.cdiv(S, BS) + tl.cdiv(N - S, BS)):
        # [BS]
        is_sink, o_s, m_s, b_from = keys_of(i_s, p_position, p_hidden + i_b * hidden_b, N, S, BS)
        # [BT, BS]
        m_pair = pairs(m_t, m_free, b_at, is_sink, m_s, b_from, band, BANDED)
        if tl.max(tl.max(m_pair.to(tl.int32), 1), 0) > 0:
            # [BS, BH]
            b_t1, b_t2, b_v1, b_v2 = load_keys(p_k, p_v, o_s, m_s, k_n, v_n, b_from, b_frequency, HALF, BH)
            b_a1, b_a2 = tl.where(is_sink, b_q1, b_r1), tl.where(is_sink, b_q2, b_r2)
            # [BT, BS]
            b_s = product(b_a1, b_a2, b_t1, b_t2) * scale - b_lse[:, None]
            b_p = tl.exp2(tl.where(m_pair, b_s, float("-inf")))
            b_ds = (b_p * (product(b_g1, b_g2, b_v1, b_v2) - b_delta[:, None])).to(b_t1.dtype)
            # [BT, BH]; summed in the rotated frame, so a sink's part is rotated first
            b_c1 = tl.dot(b_ds, b_t1, input_precision="ieee")
            b_c2 = tl.dot(b_ds, b_t2, input_precision="ieee")
            b_c1, b_c2 = rotate(b_c1, b_c2, tl.where(is_sink, b_cos, 1.0), tl.where(is_sink, b_sin, 0.0))
            b_d1, b_d2 = b_d1 + b_c1, b_d2 + b_c2
    b_d1, b_d2 = rotate(b_d1, b_d2, b_cos, -b_sin)
    p_dq += i_b * dq_b + i_h * dq_h
    store_halves(p_dq, o_t, m_t, dq_n, b_d1 * (scale / LOG2_E), b_d2 * (scale / LOG2_E), HALF, BH)


@jit(do_not_specialize=SIZES)
def key_gradient_kernel(
    p_q, p_k, p_v, p_position, p_hidden, p_rows, p_frequency, p_g, p_lse, p_delta, p_dk, p_dv,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_b, g_h, g_n, dk_b, dk_h, dk_n, dv_b, dv_h, dv_n, hidden_b,
    H, N, R, S, band, scale,
    HALF: tl.constexpr, BH: tl.constexpr, BT: tl.constexpr, BS: tl.constexpr,
    BANDED: tl.constexpr, SOME: tl.constexpr, LOG2_E: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of sinks, then of keys; H; B). Writes dk and dv (B, H, N, K), 0 for a key that no query meets."""
    i_s, i_h, i_b = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    b_frequency = load_frequencies(p_frequency, HALF, BH)
    # [BS]
    is_sink, o_s, m_s, b_from = keys_of(i_s, p_position, p_hidden + i_b * hidden_b, N, S, BS)
    # [BS, BH]
    b_k1, b_k2 = load_halves(p_k + i_b * k_b + i_h * k_h, o_s, m_s, k_n, HALF, BH)
    b_v1, b_v2 = load_halves(p_v + i_b * v_b + i_h * v_h, o_s, m_s, v_n, HALF, BH)
    b_key_cos, b_key_sin = rotation(b_from, b_frequency)
    b_t1, b_t2 = turned(b_k1, b_k2, b_key_cos, b_key_sin)
    b_dk1, b_dk2 = tl.zeros([BS, BH], tl.float32), tl.zeros([BS, BH], tl.float32)
    b_dv1, b_dv2 = tl.zeros([BS, BH], tl.float32), tl.zeros([BS, BH], tl.float32)
    for i_t in range(0, tl.cdiv(R, BT)):
        # [BT]
        o_t, m_t, m_free, b_at = rows_of(i_t, p_rows, p_position, R, S, BT, SOME)
        # [BT, BS]
        m_pair = pairs(m_t, m_free, b_at, is_sink, m_s, b_from, band, BANDED)
        if tl.max(tl.max(m_pair.to(tl.int32), 1), 0) > 0:
            b_lse = tl.load(p_lse + (i_b * H + i_h) * R + o_t, mask=m_t, other=0.0)
            b_delta = tl.load(p_delta + (i_b * H + i_h) * R + o_t, mask=m_t, other=0.0)
            # [BT, BH]
            b_q1, b_q2 = load_halves(p_q + i_b * q_b + i_h * q_h, o_t, m_t, q_n, HALF, BH)
            b_g1, b_g2 = load_halves(p_g + i_b * g_b + i_h * g_h, o_t, m_t, g_n, HALF, BH)
            b_cos, b_sin = rotation(tl.where(is_sink, 0, b_at), b_frequency)
            b_r1, b_r2 = turned(b_q1, b_q2, b_cos, b_sin)
            # [BS, BT]
            b_s = product(b_t1, b_t2, b_r1, b_r2) * scale - b_lse[None, :]
            b_p = tl.exp2(tl.where(tl.trans(m_pair), b_s, float("-inf")))
            b_ds = (b_p * (product(b_v1, b_v2, b_g1, b_g2) - b_delta[None, :])).to(b_q1.dtype)
            b_p = b_p.to(b_g1.dtype)
            # [BS, BH]
            b_dv1 = tl.dot(b_p, b_g1, b_dv1, input_precision="ieee")
            b_dv2 = tl.dot(b_p, b_g2, b_dv2, input_precision="ieee")
            b_dk1 = tl.dot(b_ds, b_r1, b_dk1, input_precision="ieee")
            b_dk2 = tl.dot(b_ds, b_r2, b_dk2, input_precision="ieee")
    b_dk1, b_dk2 = rotate(b_dk1, b_dk2, b_key_cos, -b_key_sin)
    b_dk1, b_dk2 = b_dk1 * (scale / LOG2_E), b_dk2 * (scale / LOG2_E)
    m_all = o_s < tl.where(is_sink, S, N)  # hidden keys too: their gradient is 0
    store_halves(p_dk + i_b * dk_b + i_h * dk_h, o_s, m_all, dk_n, b_dk1, b_dk2, HALF, BH)
    store_halves(p_dv + i_b * dv_b + i_h * dv_h, o_s, m_all, dv_n, b_dv1, b_dv2, HALF, BH)


def gradient_calls(
    shared: dict[str, Any], grad: Tensor, lse: Tensor, delta: Tensor, dq: Tensor, dk: Tensor, dv: Tensor
) -> tuple[Call, Call]:
    """The launches that fill dq, and dk with dv, from grad (B, H, R, K) and delta, lse (B, H, R)."""
    n_batch, heads, n_rows, head_width = grad.shape
    given = {**shared, "p_g": grad, **strides("g", grad), "p_lse": lse, "p_delta": delta, "LOG2_E": LOG2_E}
    size = tiles("query_gradient", head_width, grad.dtype)
    to_queries = Call(
        query_gradient_kernel,
        (tiles_over(n_rows, size.rows), heads, n_batch),
        {**given, **size.blocks(), "p_dq": dq, **strides("dq", dq)},
        size.options(),
    )
    size = tiles("key_gradient", head_width, grad.dtype)
    n_key_tiles = sum(tiles_over(n, size.keys) for n in (shared["S"], shared["N"] - shared["S"]))
    to_keys = Call(
        key_gradient_kernel,
        (n_key_tiles, heads, n_batch),
        {**given, **size.blocks(), "p_dk": dk, "p_dv": dv, **strides("dk", dk), **strides("dv", dv)},
        size.options(),
    )
    return to_queries, to_keys


def like_tokens(x: Tensor) -> Tensor:
    """Room for a tensor like x (B, H, N, K), laid out (B, N, H, K): what the projections beside attention read."""
    n_batch, heads, n, head_width = x.shape
    return x.new_empty(n_batch, n, heads, head_width).transpose(1, 2)


class WindowAttention(torch.autograd.Function):
    """`kernels.reference.attention` for checked arguments, by Triton, with gradients of q, k and v."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
        out = like_tokens(q)
        lse = q.new_empty(q.shape[:3], dtype=torch.float32)
        forward_call(common(q, k, v, pattern), out, lse).launch()
        ctx.save_for_backward(q, k, v, pattern.position, pattern.hidden, pattern.rows, out, lse)
        ctx.band, ctx.n_sinks = pattern.band, pattern.n_sinks
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] (once_differentiable drops the names)
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, k, v, position, hidden, rows, out, lse = ctx.saved_tensors
        grad = grads[0].contiguous()
        delta = (grad.float() * out.float()).sum(-1)
        dq, dk, dv = like_tokens(q), like_tokens(k), like_tokens(v)
        shared = common(q, k, v, Pattern(position, hidden, ctx.band, ctx.n_sinks, rows))
        for call in gradient_calls(shared, grad, lse, delta, dq, dk, dv):
            call.launch()
        return dq, dk, dv, None
