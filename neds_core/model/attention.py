"""Attention in plain torch, banded block-causal with sinks or full: the specification every kernel is held to."""

from __future__ import annotations

from dataclasses import dataclass
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
    half = x.shape[-1] // 2
    return torch.addcmul(x * cos, x.roll(half, -1), torch.cat([-sin[..., :half], sin[..., half:]], dim=-1))


def attention(q: Tensor, k: Tensor, v: Tensor, *, position: Tensor, hidden: Tensor, band: int, n_sinks: int) -> Tensor:
    """Attend within a band of bins, and always to the sinks.

    q, k, v (B, H, N, K), not yet rotated; the first n_sinks tokens are sinks. position (N,)
    int64 bin of each token, non-decreasing after the sinks (whose entries are ignored).
    hidden (B, N) bool, True = never a key, not even to itself. A token meets keys of its own
    bin and of the band - 1 bins before it. Sinks attend only to sinks, and every query meets
    a sink un-rotated. Returns (B, H, N, K). Needs n_sinks >= 1, so that no row is empty.
    """
    bins, scale = position[n_sinks:], q.shape[-1] ** -0.5
    sink_k, sink_v = k[:, :, :n_sinks], v[:, :, :n_sinks]
    to_sink = (q @ sink_k.mT) * scale
    outputs = [to_sink[:, :, :n_sinks].softmax(-1) @ sink_v]
    table = rotary(bins, q.shape[-1])
    queries, keys, values = rotate(q[:, :, n_sinks:], table), rotate(k[:, :, n_sinks:], table), v[:, :, n_sinks:]
    for begin in range(0, len(bins), QUERY_BLOCK):
        rows = slice(begin, min(begin + QUERY_BLOCK, len(bins)))
        first = int(torch.searchsorted(bins, bins[rows.start] - (band - 1)))
        near = slice(first, int(torch.searchsorted(bins, bins[rows.stop - 1], right=True)))
        age = bins[rows, None] - bins[None, near]
        unmet = (age < 0) | (age >= band) | hidden[:, None, None, n_sinks:][..., near]
        score = (queries[:, :, rows] @ keys[:, :, near].mT * scale).masked_fill(unmet, float("-inf"))
        weight = torch.cat([to_sink[:, :, n_sinks:][:, :, rows], score], dim=-1).softmax(-1)
        outputs.append(weight[..., :n_sinks] @ sink_v + weight[..., n_sinks:] @ values[:, :, near])
    return torch.cat(outputs, dim=2)


@dataclass(frozen=True, slots=True)
class Full:
    """Attend to every key of the window, before and after: the published pattern.

    dropout: share of the attention weights that is dropped.
    """

    dropout: float = 0.0

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, position: Tensor, hidden: Tensor, band: int = 0, n_sinks: int = 0
    ) -> Tensor:
        """Arguments as in `attention`; band is ignored, n_sinks has to be 0. Returns (B, H, N, K).

        A window without any key attends to all of it: its outputs mean nothing, but they are numbers.
        """
        if n_sinks:
            raise ValueError("full attention has no sinks")
        table = rotary(position, q.shape[-1])
        key = ~hidden
        key = key | ~key.any(1, keepdim=True)
        # A mask of nothing costs a CPU a fifth of the attention; a GPU would have to stop and look.
        mask = None if hidden.is_cpu and not hidden.any() else key[:, None, None]
        return functional.scaled_dot_product_attention(
            rotate(q, table), rotate(k, table), v, attn_mask=mask, dropout_p=self.dropout
        )
