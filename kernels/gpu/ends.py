"""Both ends of a streaming step in Triton, a launch each: a bin's data to tokens, and tokens to outputs.

Specification: `kernels.reference.stream_tokens` and `stream_read`. Between them run the layers of
`kernels.gpu.block`: the first launch writes the parts that they read, the second reads the parts that they write.
"""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from kernels.gpu.block import load_folded, normalised, rows_of, times
from kernels.gpu.tiles import Call, jit, next_power_of_2, tiles_over
from kernels.reference import ReadOut, TokenTables

MOST_PARTS = 16  # slices of the units, each a part of the stream
UNITS = 16  # rows of units in a tile
READ = 16  # outputs in a tile


@jit
def token_kernel(
    p_counts, p_seen, p_where, p_rows, p_base, p_blank, p_values, p_first, p_classes, p_codes, p_hidden, p_out,
    U: tl.constexpr, T: tl.constexpr, D: tl.constexpr, C: tl.constexpr, SPIKES: tl.constexpr,
    BT: tl.constexpr, BW: tl.constexpr, BU: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Grid (slices of N units,). Writes each one's part of out (slices, T, D), the first one also hidden (T,)."""
    i_s = tl.program_id(0)
    o_t, o_d = tl.arange(0, BT), tl.arange(0, BW)
    m_d = o_d < D
    is_valid = tl.load(p_where + 2) != 0
    # [BW]: this slice of the spike token
    b_spike = tl.zeros([BW], tl.float32)
    b_poison = 0.0
    for i_u in range(0, N // BU):
        o_u = i_s * N + i_u * BU + tl.arange(0, BU)
        b_count = tl.load(p_counts + o_u, mask=o_u < U, other=0.0)
        if SPIKES:
            b_row = tl.load(p_rows + o_u[:, None] * D + o_d[None, :], mask=(o_u < U)[:, None] & m_d[None, :], other=0.0)
            b_spike += tl.sum(tl.sqrt(b_count)[:, None] * b_row, 0)
        else:
            b_poison += tl.sum(b_count, 0) * 0.0
    # [BT]: which tokens the bin holds
    m_first = i_s == 0
    m_t = m_first & (o_t < T)
    m_seen = m_t & (o_t > 0)
    b_seen = tl.load(p_seen + o_t - 1, mask=m_seen, other=float("nan"))
    b_classes = tl.load(p_classes + o_t - 1, mask=m_seen, other=0)
    m_seen = m_seen & (b_seen == b_seen) & is_valid
    m_spike = (o_t == 0) & is_valid & SPIKES
    b_class = tl.minimum(tl.maximum(tl.where(m_seen & (b_classes > 0), b_seen, 0.0), 0.0), 1.0 * (b_classes - 1))
    b_at = tl.load(p_first + o_t - 1, mask=m_seen, other=0) + tl.where(b_classes > 0, b_class, 0.0).to(tl.int64)
    b_times = tl.where(b_classes > 0, 1.0, b_seen)
    # [BT, BW]
    p_x, m_x = o_t[:, None] * D + o_d[None, :], m_t[:, None] & m_d[None, :]
    m_key = m_seen | m_spike
    b_x = tl.load(p_blank + p_x, mask=m_x & (~m_key)[:, None], other=0.0)
    b_x += tl.load(p_base + p_x, mask=m_x & m_key[:, None], other=0.0)
    b_row = tl.load(p_values + b_at[:, None] * D + o_d[None, :], mask=m_seen[:, None] & m_d[None, :], other=0.0)
    b_x += tl.where(m_seen[:, None], b_times[:, None] * b_row, 0.0)
    b_code = tl.minimum(tl.maximum(tl.load(p_where + 1) + 1, 0), C - 1)
    b_x += tl.load(p_codes + b_code * D + o_d, mask=m_d & m_first, other=0.0)[None, :]
    b_x += tl.where(m_spike[:, None], b_spike[None, :], 0.0)
    b_x += b_poison
    tl.store(p_out + i_s * T * D + p_x, b_x, mask=(o_t < T)[:, None] & m_d[None, :])
    tl.store(p_hidden + o_t, m_key == 0, mask=m_t)


@jit
def read_kernel(
    p_parts, p_scale, p_shift, p_w, p_bias, p_token, p_group, p_out,
    P: tl.constexpr, T: tl.constexpr, D: tl.constexpr, V: tl.constexpr, RATES: tl.constexpr,
    BT: tl.constexpr, BW: tl.constexpr, BK: tl.constexpr, LK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of V outputs,); a group lies in one tile. Norm of the stream, times w (V, D), to out (V,)."""
    o_t = tl.arange(0, BT)
    o_v = tl.program_id(0) * BV + tl.arange(0, BV)
    m_v = o_v < V
    b_w = load_folded(p_w, o_v, m_v, D, BK, LK)
    b_token = tl.load(p_token + o_v, mask=m_v, other=0)
    b_y = tl.load(p_bias + o_v, mask=m_v, other=0.0)
    b_x = normalised(p_parts, p_scale, p_shift, o_t, P, T, D, BW)
    # [BT, BV], of which each output keeps its own token's
    b_each = times(b_x, b_w, o_t, T, BT, BK, LK, BV)
    b_y += tl.sum(tl.where(o_t[:, None] == b_token[None, :], b_each, 0.0), 0)
    if RATES:
        b_y = tl.exp(b_y)
    else:
        b_group = tl.load(p_group + o_v, mask=m_v, other=-2)
        m_same = b_group[:, None] == b_group[None, :]
        b_all = tl.zeros([BV, BV], tl.float32) + b_y[None, :]
        b_top = tl.max(tl.where(m_same, b_all, float("-inf")), 1)
        b_sum = tl.sum(tl.where(m_same, tl.exp(b_all - b_top[:, None]), 0.0), 1)
        b_y = tl.where(b_group >= 0, tl.exp(b_y - b_top) / b_sum, b_y)
    tl.store(p_out + o_v, b_y, mask=m_v)


def token_call(
    counts: Tensor, seen: Tensor, where: Tensor, tables: TokenTables, *, spikes: bool, hidden: Tensor
) -> tuple[Call, Tensor]:
    """The launch, for arguments that `kernels.streaming` has checked, and the parts that it fills."""
    n_units, width = tables.rows.shape
    n_tokens = len(hidden)
    units = max(UNITS, next_power_of_2(tiles_over(n_units, MOST_PARTS)))
    slices = tiles_over(n_units, units)
    out = torch.empty(slices, n_tokens, width, device=counts.device)
    arguments = {
        "p_counts": counts, "p_seen": seen, "p_where": where, "p_rows": tables.rows, "p_base": tables.base,
        "p_blank": tables.blank, "p_values": tables.values, "p_first": tables.first,
        "p_classes": tables.n_classes, "p_codes": tables.codes, "p_hidden": hidden, "p_out": out,
        "U": n_units, "T": n_tokens, "D": width, "C": len(tables.codes), "SPIKES": spikes,
        "BT": next_power_of_2(n_tokens), "BW": next_power_of_2(width), "BU": UNITS, "N": units,
    }  # fmt: skip
    return Call(token_kernel, (slices,), arguments, {"num_warps": 4, "num_stages": 1}), out


def read_call(parts: Tensor, head: ReadOut, *, rates: bool, out: Tensor) -> Call:
    """The launch, for arguments that `kernels.streaming` has checked."""
    n_parts, n_tokens, width = parts.shape
    rows, n_outputs = rows_of(n_tokens, width), len(out)
    outputs = READ if rates else max(READ, next_power_of_2(n_outputs))
    arguments = {
        "p_parts": parts, "p_scale": head.scale, "p_shift": head.shift, "p_w": head.weight, "p_bias": head.bias,
        "p_token": head.token, "p_group": head.group, "p_out": out,
        "P": n_parts, "T": n_tokens, "D": width, "V": n_outputs, "RATES": rates,
        "BV": outputs, **rows.blocks(),
    }  # fmt: skip
    return Call(read_kernel, (tiles_over(n_outputs, outputs),), arguments, {"num_warps": 4, "num_stages": 1})


def launch_tokens(
    counts: Tensor, seen: Tensor, where: Tensor, tables: TokenTables, *, spikes: bool, hidden: Tensor
) -> Tensor:
    """A bin's tokens on the current device: the parts (P, 1 + M, D) of the stream before the layers."""
    call, parts = token_call(counts, seen, where, tables, spikes=spikes, hidden=hidden)
    call.launch()
    return parts


def launch_read(parts: Tensor, head: ReadOut, *, rates: bool, out: Tensor) -> Tensor:
    """Outputs, on the current device, into out (V,)."""
    read_call(parts, head, rates=rates, out=out).launch()
    return out
