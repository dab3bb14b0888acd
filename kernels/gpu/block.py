"""A layer of a streaming step in three Triton launches: norm and QKV, attention and output projection, norm and MLP.

Specification: `kernels.reference.stream_block`.

| launch          | grid              | reads                       | writes                      |
| --------------- | ----------------- | --------------------------- | --------------------------- |
| `qkv_kernel`    | tiles of outputs  | parts (P, T, D)             | q, k, v (T, 3D)             |
| `mixing_kernel` | heads             | q, k, v, the cache, parts   | a part for each head        |
| `mlp_kernel`    | slices of the MLP | a part for each head        | a part for each slice       |

The residual stream is the sum of its parts, float32. The reader adds them in order, so that no block has to wait for
another block's part.

Three launches under a CUDA graph, not one persistent kernel: Triton has no barrier over a grid, and blocks that wait
for each other without a cooperative launch may deadlock.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from kernels.gpu.stream import arguments, attend, few_values
from kernels.gpu.tiles import Call, jit, load_halves, next_power_of_2, scores, tiles_over
from kernels.reference import LAYER_NORM_EPS, BlockWeights, StreamCache

EPS = tl.constexpr(LAYER_NORM_EPS)
OUTPUTS = 16  # of the QKV projection that a block computes
PROJECTED = 64  # outputs of the output projection in a tile, where the bin has more than a few tokens
LANES = 32  # of a warp, which share a weight row


class Rows(NamedTuple):
    """A tile of rows (BT) as wide as the stream (BW), which is BK times LK."""

    rows: int
    width: int
    steps: int
    lanes: int

    def blocks(self) -> dict[str, int]:
        """The tile as the kernels' constants."""
        return {"BT": self.rows, "BW": self.width, "BK": self.steps, "LK": self.lanes}


def rows_of(n_tokens: int, width: int) -> Rows:
    """The fixed choice for a shape."""
    wide = next_power_of_2(width)
    lanes = min(LANES, wide)
    return Rows(next_power_of_2(n_tokens), wide, wide // lanes, lanes)


def slice_units(mlp: int) -> int:
    """Hidden units of a block of the MLP: more blocks read the weights faster but leave more parts to add."""
    return max(32, next_power_of_2(tiles_over(mlp, 32)))


def units_at_once(width: int) -> int:
    """Hidden units of a block's loop: their weights have to fit its registers."""
    return 32 if width <= 256 else 8


@jit
def add_parts(b_x, p_x, m_x, p_parts, i_first, n_parts, step, stride):
    """b_x plus every step-th part from i_first on, at offsets p_x."""
    for i_p in range(i_first, n_parts, step):
        b_x += tl.load(p_parts + i_p * stride + p_x, mask=m_x, other=0.0)
    return b_x


@jit
def normalised(p_parts, p_scale, p_shift, o_t, P: tl.constexpr, T: tl.constexpr, D: tl.constexpr, BW: tl.constexpr):
    """LayerNorm [BT, BW] of the stream; rows beyond T and columns beyond D mean nothing."""
    o_d = tl.arange(0, BW)
    m_d = o_d < D
    m_x = (o_t < T)[:, None] & m_d[None, :]
    p_x = p_parts + o_t[:, None] * D + o_d[None, :]
    b_x = tl.load(p_x, mask=m_x, other=0.0)
    # unrolled, so that the loads of all parts overlap
    for i_p in tl.static_range(1, P):  # pyright: ignore[reportGeneralTypeIssues]
        b_x += tl.load(p_x + i_p * T * D, mask=m_x, other=0.0)
    b_mean = tl.sum(b_x, 1) / D
    b_x = tl.where(m_d[None, :], b_x - b_mean[:, None], 0.0)
    b_inverse = 1.0 / tl.sqrt(tl.sum(b_x * b_x, 1) / D + EPS)
    b_scale = tl.load(p_scale + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_shift = tl.load(p_shift + o_d, mask=m_d, other=0.0).to(tl.float32)
    return b_x * b_inverse[:, None] * b_scale[None, :] + b_shift[None, :]


@jit
def load_folded(p_w, o_o, m_o, D: tl.constexpr, BK: tl.constexpr, LK: tl.constexpr):
    """Rows o_o of a weight (O, D) in float32 as [BK, BO, LK], 0 where m_o is False.

    Folded, so that a product is summed within threads, then across the lanes of a warp, and never across warps.
    """
    o_d = tl.arange(0, BK)[:, None, None] * LK + tl.arange(0, LK)[None, None, :]
    m_w = m_o[None, :, None] & (o_d < D)
    return tl.load(p_w + o_o[None, :, None] * D + o_d, mask=m_w, other=0.0).to(tl.float32)


@jit
def row(b_x, o_t, i_t):
    """Row i_t of a tile [BT, ...] with two axes."""
    return tl.sum(tl.where((o_t == i_t)[:, None], b_x, 0.0), 0)


@jit
def times(
    b_x, b_w, o_t, T: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr, LK: tl.constexpr, BO: tl.constexpr
):  # fmt: skip
    """T rows of b_x [BT, BW] times folded weight rows [BK, BO, LK]: [BT, BO]; rows beyond T are 0."""
    b_y = tl.zeros([BT, BO], tl.float32)
    for i_t in tl.static_range(T):
        b_r = tl.reshape(row(b_x, o_t, i_t), [BK, LK])
        b_one = tl.sum(tl.sum(b_w * b_r[:, None, :], 0), 1)
        b_y += tl.where((o_t == i_t)[:, None], b_one[None, :], 0.0)
    return b_y


@jit
def qkv_kernel(
    p_parts, p_scale, p_shift, p_w, p_bias, p_out,
    P: tl.constexpr, T: tl.constexpr, D: tl.constexpr,
    BT: tl.constexpr, BW: tl.constexpr, BK: tl.constexpr, LK: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of BO outputs,). LayerNorm of the stream times w (3D, D), and its bias: out (T, 3D)."""
    o_t = tl.arange(0, BT)
    o_o = tl.program_id(0) * BO + tl.arange(0, BO)
    m_o = o_o < 3 * D
    # prefetched: the weights do not depend on the stream
    b_w = load_folded(p_w, o_o, m_o, D, BK, LK)
    b_bias = tl.load(p_bias + o_o, mask=m_o, other=0.0).to(tl.float32)
    b_x = normalised(p_parts, p_scale, p_shift, o_t, P, T, D, BW)
    b_y = times(b_x, b_w, o_t, T, BT, BK, LK, BO) + b_bias[None, :]
    m_y = (o_t < T)[:, None] & m_o[None, :]
    tl.store(p_out + o_t[:, None] * (3 * D) + o_o[None, :], b_y.to(p_out.dtype.element_ty), mask=m_y)


@jit
def mixing_kernel(
    p_q, p_k, p_v, p_ring_k, p_ring_v, p_ring_hidden, p_sink_k, p_sink_v, p_position, p_hidden, p_frequency,
    q_h, q_n, k_h, k_n, v_h, v_n, scale, p_parts, p_w, p_bias, p_out,
    N: tl.constexpr, S: tl.constexpr, T: tl.constexpr, HALF: tl.constexpr,
    BH: tl.constexpr, BT: tl.constexpr, BP: tl.constexpr, BS: tl.constexpr, FEW: tl.constexpr,
    P: tl.constexpr, H: tl.constexpr, D: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """Grid (H,). A head's attention times its columns of w (D, D): a part of out (H, T, D), stream and bias in it."""
    i_h = tl.program_id(0)
    o_t, o_o = tl.arange(0, BT), tl.arange(0, BO)
    m_t = o_t < T
    p_w += i_h * HALF * 2
    # the first weights [BO, BH] are prefetched: they do not depend on the attention
    b_w1, b_w2 = load_halves(p_w, o_o, o_o < D, D, HALF, BH)
    # [BT, BH]
    b_o1, b_o2 = attend(
        i_h.to(tl.int64), o_t, m_t, p_q, p_k, p_v, p_ring_k, p_ring_v, p_ring_hidden, p_sink_k, p_sink_v,
        p_position, p_hidden, p_frequency, q_h, q_n, k_h, k_n, v_h, v_n, scale, N, S, T, HALF, BH, BT, BP, BS, FEW,
    )  # fmt: skip
    b_o1, b_o2 = b_o1.to(p_w.dtype.element_ty), b_o2.to(p_w.dtype.element_ty)
    for i_o in range(0, tl.cdiv(D, BO)):
        if i_o > 0:
            o_o = i_o * BO + tl.arange(0, BO)
            b_w1, b_w2 = load_halves(p_w, o_o, o_o < D, D, HALF, BH)
        # [BT, BO]
        b_y = scores(b_o1, b_o2, b_w1, b_w2, FEW)
        p_y, m_y = o_t[:, None] * D + o_o[None, :], m_t[:, None] & (o_o < D)[None, :]
        b_y = add_parts(b_y, p_y, m_y, p_parts, i_h, P, H, T * D)
        b_y += tl.load(p_bias + o_o, mask=(o_o < D) & (i_h == 0), other=0.0).to(tl.float32)[None, :]
        tl.store(p_out + i_h * T * D + p_y, b_y, mask=m_y)


@jit
def gelu(b_x):
    """Exact, by the error function."""
    return 0.5 * b_x * (1.0 + tl.erf(b_x * 0.7071067811865476))


@jit
def mlp_kernel(
    p_parts, p_scale, p_shift, p_up, p_up_bias, p_down, p_down_bias, p_out,
    P: tl.constexpr, T: tl.constexpr, D: tl.constexpr, M: tl.constexpr,
    BT: tl.constexpr, BW: tl.constexpr, BK: tl.constexpr, LK: tl.constexpr, BO: tl.constexpr, N: tl.constexpr,
    SLICES: tl.constexpr,
):  # fmt: skip
    """Grid (SLICES,). N of the M hidden units, whose rows are those of up and down (M, D).

    Writes their part of out (SLICES, T, D), stream and bias in it.
    """
    i_s = tl.program_id(0)
    o_t, o_d = tl.arange(0, BT), tl.arange(0, BW)
    m_d = o_d < D
    o_o = i_s * N + tl.arange(0, BO)
    # the first weights, [BK, BO, LK] and [BO, BW], are prefetched: they do not depend on the stream
    b_up = load_folded(p_up, o_o, o_o < M, D, BK, LK)
    b_down = tl.load(p_down + o_o[:, None] * D + o_d[None, :], mask=(o_o < M)[:, None] & m_d[None, :], other=0.0)
    b_x = normalised(p_parts, p_scale, p_shift, o_t, P, T, D, BW)
    b_y = tl.zeros([BT, BW], tl.float32)
    for i_o in range(0, N // BO):
        if i_o > 0:
            o_o = i_s * N + i_o * BO + tl.arange(0, BO)
            b_up = load_folded(p_up, o_o, o_o < M, D, BK, LK)
            b_down = tl.load(
                p_down + o_o[:, None] * D + o_d[None, :], mask=(o_o < M)[:, None] & m_d[None, :], other=0.0
            )
        # [BT, BO]
        b_h = times(b_x, b_up, o_t, T, BT, BK, LK, BO)
        b_h = gelu(b_h + tl.load(p_up_bias + o_o, mask=o_o < M, other=0.0).to(tl.float32)[None, :])
        for i_t in tl.static_range(T):
            b_one = tl.sum(row(b_h, o_t, i_t)[:, None] * b_down.to(tl.float32), 0)
            b_y += tl.where((o_t == i_t)[:, None], b_one[None, :], 0.0)
    p_y, m_y = o_t[:, None] * D + o_d[None, :], (o_t < T)[:, None] & m_d[None, :]
    b_y = add_parts(b_y, p_y, m_y, p_parts, i_s, P, SLICES, T * D)
    b_y += tl.load(p_down_bias + o_d, mask=m_d & (i_s == 0), other=0.0).to(tl.float32)[None, :]
    tl.store(p_out + i_s * T * D + p_y, b_y, mask=m_y)


def block_calls(
    parts: Tensor, weights: BlockWeights, cache: StreamCache, *, position: Tensor, hidden: Tensor
) -> tuple[tuple[Call, Call, Call], Tensor]:
    """The launches of one layer, in order, for arguments that `kernels.streaming` checked, and the parts they fill."""
    n_parts, n_tokens, width = parts.shape
    heads, _, head_width = cache.k.shape
    mlp, rows = weights.up.shape[0], rows_of(n_tokens, width)
    units = slice_units(mlp)
    slices = tiles_over(mlp, units)
    qkv = torch.empty(n_tokens, 3 * width, dtype=weights.qkv.dtype, device=parts.device)
    mixed, out = parts.new_empty(heads, n_tokens, width), parts.new_empty(slices, n_tokens, width)
    shape = {"T": n_tokens, "D": width}
    tile = rows.blocks()
    project = {
        "p_parts": parts, "p_scale": weights.norm_scale, "p_shift": weights.norm_shift, "p_w": weights.qkv,
        "p_bias": weights.qkv_bias, "p_out": qkv, "P": n_parts, "BO": OUTPUTS, **shape, **tile,
    }  # fmt: skip
    q, k, v = qkv.view(n_tokens, 3, heads, head_width).permute(1, 2, 0, 3)
    given, attending = arguments(q, k, v, cache, position, hidden)
    half = next_power_of_2(head_width // 2)
    outputs = (
        min(next_power_of_2(width), few_values(half) // half) if given["FEW"] else PROJECTED // (1 if half <= 16 else 2)
    )
    mix = given | {
        "p_parts": parts, "p_w": weights.out, "p_bias": weights.out_bias, "p_out": mixed,
        "P": n_parts, "H": heads, "D": width, "BO": outputs,
    }  # fmt: skip
    transform = {
        "p_parts": mixed, "p_scale": weights.mlp_scale, "p_shift": weights.mlp_shift,
        "p_up": weights.up, "p_up_bias": weights.up_bias, "p_down": weights.down, "p_down_bias": weights.down_bias,
        "p_out": out, "P": heads, "M": mlp, "BO": units_at_once(width), "N": units, "SLICES": slices, **shape, **tile,
    }  # fmt: skip
    four, more = ({"num_warps": n, "num_stages": 1} for n in (4, 4 if width <= 128 else 8))
    calls = (
        Call(qkv_kernel, (tiles_over(3 * width, OUTPUTS),), project, four),
        Call(mixing_kernel, (heads,), mix, attending),
        Call(mlp_kernel, (slices,), transform, more),
    )
    return calls, out


def launch_block(
    parts: Tensor, weights: BlockWeights, cache: StreamCache, *, position: Tensor, hidden: Tensor
) -> Tensor:
    """One layer on the current device: the parts (P', T, D) of the stream behind it."""
    calls, out = block_calls(parts, weights, cache, position=position, hidden=hidden)
    for call in calls:
        call.launch()
    return out
