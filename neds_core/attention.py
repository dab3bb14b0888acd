"""Attention in plain torch, banded block-causal with sinks or full: the specification every kernel is held to."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Attention(Protocol):
    """See `attention`."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, position: Tensor, hidden: Tensor, band: int, n_sinks: int
    ) -> Tensor: ...


QUERY_BLOCK = 128  # tokens; bounds the score matrix however long the recording is


def rotary(position: Tensor, head_width: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables (N, K) for int64 positions (N,).

    Angles are computed in float64 and cast, so position 10**7 is as exact as position 0.
    Rotary embedding: Su et al. 2021 (RoFormer), half-split layout.
    """
    half = torch.arange(0, head_width, 2, dtype=torch.float64, device=position.device)
    angle = position.to(torch.float64)[:, None] * base ** (-half / head_width)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate x (..., N, K) by a `rotary` table."""
    cos, sin = table
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def attention(q: Tensor, k: Tensor, v: Tensor, *, position: Tensor, hidden: Tensor, band: int, n_sinks: int) -> Tensor:
    """Attend within a band of bins, and always to the sinks.

    q, k, v (B, H, N, K), not yet rotated; the first n_sinks tokens are sinks. position (N,)
    int64 bin of each token, non-decreasing after the sinks (whose entries are ignored).
    hidden (B, N) bool, True = never a key, not even to itself. A token meets keys of its own
    bin and of the band - 1 bins before it. Sinks attend only to sinks, and every query meets
    a sink un-rotated. Returns (B, H, N, K). Needs n_sinks >= 1, so that no row is empty.
    """
    scale = q.shape[-1] ** -0.5
    q = q * scale
    sink_k, sink_v = k[:, :, :n_sinks], v[:, :, :n_sinks]
    sink_score = q @ sink_k.transpose(-1, -2)
    outputs = [sink_score[:, :, :n_sinks].softmax(-1) @ sink_v]
    bins = position[n_sinks:]
    table = rotary(bins, q.shape[-1])
    q_r, k_r = rotate(q[:, :, n_sinks:], table), rotate(k[:, :, n_sinks:], table)
    v, hidden, sink_score = v[:, :, n_sinks:], hidden[:, n_sinks:], sink_score[:, :, n_sinks:]
    for begin in range(0, len(bins), QUERY_BLOCK):
        rows = slice(begin, min(begin + QUERY_BLOCK, len(bins)))
        first = int(torch.searchsorted(bins, bins[rows.start] - (band - 1)))
        last = int(torch.searchsorted(bins, bins[rows.stop - 1], right=True))
        keys = slice(first, last)
        age = bins[rows, None] - bins[None, keys]
        masked = (age < 0) | (age >= band) | hidden[:, None, None, keys]
        # added in place, not filled: training then keeps one copy of the scores instead of three
        bias = q.new_zeros(masked.shape).masked_fill_(masked, float("-inf"))
        score = (q_r[:, :, rows] @ k_r[:, :, keys].transpose(-1, -2)).add_(bias)
        weight = torch.cat([sink_score[:, :, rows], score], dim=-1).softmax(-1)
        outputs.append(weight @ torch.cat([sink_v, v[:, :, keys]], dim=2))
    return torch.cat(outputs, dim=2)


def full(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    position: Tensor,
    hidden: Tensor,
    band: int = 0,
    n_sinks: int = 0,
    dropout: float = 0.0,
) -> Tensor:
    """Attend to every key of the window, before and after: the published pattern.

    Arguments as in `attention`; band is ignored, n_sinks has to be 0, dropout is the share of
    attention weights dropped. A window without any key attends to all of it: its outputs mean
    nothing, but they are numbers. Returns (B, H, N, K).
    """
    if n_sinks:
        raise ValueError("full attention has no sinks")
    table = rotary(position, q.shape[-1])
    key = ~hidden
    key = key | ~key.any(1, keepdim=True)
    return functional.scaled_dot_product_attention(
        rotate(q, table), rotate(k, table), v, attn_mask=key[:, None, None], dropout_p=dropout
    )
