"""A linear layer in one Triton launch, with the norm before it and GELU or a residual after it.

Specification: `kernels.reference.linear`.
"""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from kernels.reference import LAYER_NORM_EPS
from kernels.triton_tiles import Call, jit, next_power_of_2, tiles_over

EPS = tl.constexpr(LAYER_NORM_EPS)
PROGRAMS = 128  # about the multiprocessors of a large GPU: smaller tiles where larger ones would leave some idle


@jit(do_not_specialize=["M"])
def linear_kernel(
    p_x, p_w, p_bias, p_scale, p_shift, p_residual, p_out, x_m, r_m, M,
    N: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr, GELU: tl.constexpr, RESIDUAL: tl.constexpr,
    PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Grid (row tiles, output tiles). x (M, K) times w (N, K), to out (M, N)."""
    o_m = tl.program_id(0) * BM + tl.arange(0, BM)
    o_n = tl.program_id(1) * BN + tl.arange(0, BN)
    m_m, m_n = o_m < M, o_n < N
    p_row = p_x + o_m[:, None].to(tl.int64) * x_m
    if NORM:
        # mean and spread of whole rows [BM]
        o_w = tl.arange(0, BW)
        m_w = m_m[:, None] & (o_w < K)[None, :]
        b_all = tl.load(p_row + o_w[None, :], mask=m_w, other=0.0).to(tl.float32)
        b_mean = tl.sum(b_all, 1) / K
        b_all = tl.where(m_w, b_all - b_mean[:, None], 0.0)
        b_inverse = 1.0 / tl.sqrt(tl.sum(b_all * b_all, 1) / K + EPS)
    b_y = tl.zeros([BM, BN], tl.float32)
    for i_k in range(0, tl.cdiv(K, BK)):
        o_k = i_k * BK + tl.arange(0, BK)
        m_k = o_k < K
        # [BM, BK] and [BN, BK]
        b_x = tl.load(p_row + o_k[None, :], mask=m_m[:, None] & m_k[None, :], other=0.0)
        b_w = tl.load(p_w + o_n[:, None] * K + o_k[None, :], mask=m_n[:, None] & m_k[None, :], other=0.0)
        if NORM:
            b_scale = tl.load(p_scale + o_k, mask=m_k, other=0.0).to(tl.float32)
            b_shift = tl.load(p_shift + o_k, mask=m_k, other=0.0).to(tl.float32)
            b_x = (b_x.to(tl.float32) - b_mean[:, None]) * b_inverse[:, None] * b_scale[None, :] + b_shift[None, :]
        b_y = tl.dot(b_x.to(b_w.dtype), tl.trans(b_w), b_y, input_precision=PRECISION)
    b_y += tl.load(p_bias + o_n, mask=m_n, other=0.0).to(tl.float32)[None, :]
    if GELU:
        b_y = 0.5 * b_y * (1.0 + tl.erf(b_y * 0.7071067811865476))
    m_y = m_m[:, None] & m_n[None, :]
    if RESIDUAL:
        b_y += tl.load(p_residual + o_m[:, None].to(tl.int64) * r_m + o_n[None, :], mask=m_y, other=0.0).to(tl.float32)
    tl.store(p_out + o_m[:, None].to(tl.int64) * N + o_n[None, :], b_y.to(p_out.dtype.element_ty), mask=m_y)


def tile_of(n_rows: int, n_outputs: int, normed: bool) -> tuple[int, int]:
    """Rows and outputs of a tile: the largest that gives every multiprocessor one; of whole rows, fewer fit."""
    for rows, outputs in ((32, 64), (32, 32)) if normed else ((64, 64), (32, 64), (32, 32)):
        if tiles_over(n_rows, rows) * tiles_over(n_outputs, outputs) >= PROGRAMS:
            return rows, outputs
    return 16, 32


def linear_call(
    x: Tensor, weight: Tensor, bias: Tensor, *, norm: tuple[Tensor, Tensor] | None, gelu: bool,
    residual: Tensor | None,
) -> tuple[Call, Tensor]:  # fmt: skip
    """The launch, for arguments that `kernels.linear` has checked, and what it fills."""
    (n_rows, width), n_outputs = x.shape, weight.shape[0]
    out = torch.empty(n_rows, n_outputs, dtype=weight.dtype, device=x.device)
    rows, outputs = tile_of(n_rows, n_outputs, norm is not None)
    scale, shift = norm or (bias, bias)
    fast = torch.get_float32_matmul_precision() != "highest"  # torch's own switch to TF32
    arguments = {
        "p_x": x, "p_w": weight, "p_bias": bias, "p_scale": scale, "p_shift": shift,
        "p_residual": x if residual is None else residual, "p_out": out,
        "x_m": x.stride(0), "r_m": 0 if residual is None else residual.stride(0), "M": n_rows,
        "N": n_outputs, "K": width, "NORM": norm is not None, "GELU": gelu, "RESIDUAL": residual is not None,
        "PRECISION": "tf32" if fast else "tf32x3", "BM": rows, "BN": outputs, "BK": 32,
        "BW": next_power_of_2(width) if norm else 1,
    }  # fmt: skip
    grid = (tiles_over(n_rows, rows), tiles_over(n_outputs, outputs))
    return Call(linear_kernel, grid, arguments, {"num_warps": 4, "num_stages": 3}), out


def launch_linear(
    x: Tensor, weight: Tensor, bias: Tensor, *, norm: tuple[Tensor, Tensor] | None = None, gelu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A linear layer on the current device."""
    call, out = linear_call(x, weight, bias, norm=norm, gelu=gelu, residual=residual)
    call.launch()
    return out
