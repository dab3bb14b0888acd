"""Attention and the layer around it in plain torch: the specification that the Triton kernels are held to.

Half precision is computed in float32, float64 stays float64. Rotary embedding: Su et al. 2021
(RoFormer), half-split layout.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

LAYER_NORM_EPS = 1e-5  # of torch's LayerNorm
QUERY_BLOCK = 128  # rows; bounds the score matrix however many tokens there are


class Pattern(NamedTuple):
    """Which of N tokens meet which.

    | field    | shape, dtype  | meaning                                                                        |
    | -------- | ------------- | ------------------------------------------------------------------------------ |
    | position | (N,) int64    | bin of each token; a sink's is ignored                                         |
    | hidden   | (B, N) bool   | True = never a key, not even to itself; a sink's is ignored                    |
    | band     | int or None   | a token meets keys of its own bin and of the band - 1 before it; None: of all  |
    | n_sinks  | int           | the first tokens: met by all, un-rotated; they meet only each other            |
    | rows     | (R,) int64    | the tokens that the queries are of; None: all N                                |
    """

    position: Tensor
    hidden: Tensor
    band: int | None
    n_sinks: int
    rows: Tensor | None = None


class StreamCache(NamedTuple):
    """Keys and values of one layer: the last W bins with one slot for each of a bin's T tokens, and the sinks.

    k (H, W * T, K) rotated, v (H, W * T, K), hidden (W * T,) bool; token t of bin p has slot
    p % W * T + t, so a bin evicts the one W before it. sink_k, sink_v (H, S, K), not rotated.
    What a hidden slot holds is never used.
    """

    k: Tensor
    v: Tensor
    hidden: Tensor
    sink_k: Tensor
    sink_v: Tensor

    def forget(self) -> None:
        """A cold start: only the sinks remain."""
        self.hidden.fill_(True)


class BlockWeights(NamedTuple):
    """Of one pre-LayerNorm layer, width D and M hidden units: all of one dtype, all contiguous.

    norm_scale, norm_shift (D,) before the attention; qkv (3D, D), out (D, D) as torch's Linear
    has them; mlp_scale, mlp_shift (D,) before the MLP; up (M, D), and down (M, D): the transpose
    of a Linear's, so that a hidden unit has a row in both.
    """

    norm_scale: Tensor
    norm_shift: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    out_bias: Tensor
    mlp_scale: Tensor
    mlp_shift: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor


class TokenTables(NamedTuple):
    """What a bin's tokens are computed from, for U units, M behaviours and width D; float32 and int64.

    | token       | is                                                       |
    | ----------- | -------------------------------------------------------- |
    | spikes      | base[0] + sum over units of sqrt(count) rows[unit]       |
    | trace m     | base[m] + value * values[first[m]]; n_classes[m] is 0    |
    | class m     | base[m] + values[first[m] + class]                       |
    | hidden, any | blank[m]                                                 |

    Each also adds codes[clock + 1], at most the last row. rows (U, D), base and blank (1 + M, D), values (R, D),
    first and n_classes (M,), codes (C, D).
    """

    rows: Tensor
    base: Tensor
    blank: Tensor
    values: Tensor
    first: Tensor
    n_classes: Tensor
    codes: Tensor


class ReadOut(NamedTuple):
    """Last norm (D,) twice, and V linear outputs: weight (V, D), bias (V,), of token (V,) int64.

    group (V,) int64: outputs of one group 0, 1, ... are logits of a class; -1 = no class.
    """

    scale: Tensor
    shift: Tensor
    weight: Tensor
    bias: Tensor
    token: Tensor
    group: Tensor


def make_cache(sink_k: Tensor, sink_v: Tensor, band: int, n_tokens: int) -> StreamCache:
    """An empty cache of `band` bins with n_tokens tokens each, beside sinks (H, S, K), on their device."""
    heads, _, head_width = sink_k.shape
    shape = (heads, band * n_tokens, head_width)
    hidden = torch.ones(shape[1], dtype=torch.bool, device=sink_k.device)
    return StreamCache(sink_k.new_zeros(shape), sink_k.new_zeros(shape), hidden, sink_k, sink_v)


def frequencies(head_width: int, base: float = 10000.0) -> Tensor:
    """Rotary frequencies (K / 2,) float64 in turns per bin, on the CPU."""
    half = torch.arange(0, head_width, 2, dtype=torch.float64)
    return base ** (-half / head_width) / (2 * torch.pi)


def rotate(x: Tensor, position: Tensor) -> Tensor:
    """Rotate x (..., N, K) to positions (N,) int64; angles are taken in float64, so bin 10**7 is as exact as bin 0."""
    turns = position.to(torch.float64)[:, None] * frequencies(x.shape[-1]).to(x.device)
    angle = (turns - turns.round()) * (2 * torch.pi)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def softmax(score: Tensor, hidden: Tensor) -> Tensor:
    """Softmax of score (..., N) over the keys that are not hidden from a row; zeros where all are."""
    empty = hidden.all(-1, keepdim=True)
    return score.masked_fill(hidden & ~empty, float("-inf")).softmax(-1).masked_fill(empty, 0.0)


def attention(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
    """Attend within a band of bins, or everywhere, and always to the sinks.

    q (B, H, R, K), k and v (B, H, N, K), not yet rotated. Returns (B, H, R, K); a row that
    meets no key (only possible without sinks) is 0.
    """
    position, hidden, band, n_sinks, rows = pattern
    kind, n = q.dtype, k.shape[2]
    exact = torch.float64 if kind == torch.float64 else torch.float32
    q, k, v = q.to(exact) * q.shape[-1] ** -0.5, k.to(exact), v.to(exact)
    asked = torch.arange(n, device=q.device) if rows is None else rows
    sink = torch.arange(n, device=q.device) < n_sinks
    turned_k = rotate(k, position)
    v = v.masked_fill((hidden & ~sink)[:, None, :, None], 0.0)
    out: list[Tensor] = []
    for begin in range(0, len(asked), QUERY_BLOCK):
        some, mine = asked[begin : begin + QUERY_BLOCK], q[:, :, begin : begin + QUERY_BLOCK]
        unmet = hidden[:, None] | sink[some, None]  # (B, R', N): a sink meets only sinks
        if band is not None:
            age = position[some, None] - position[None, :]
            unmet = unmet | (age < 0) | (age >= band)
        turned = rotate(mine, position[some]) @ turned_k.mT
        score = torch.where(sink, mine @ k.mT, turned)
        out.append(softmax(score, (unmet & ~sink)[:, None]) @ v)
    return torch.cat(out, dim=2).to(kind)


def stream_attention(
    q: Tensor, k: Tensor, v: Tensor, cache: StreamCache, *, position: Tensor, hidden: Tensor, out: Tensor
) -> Tensor:
    """One bin: its tokens enter the cache, then each attends to the slots that are not hidden and to the sinks.

    q, k, v, out (H, T, K), not yet rotated; position (1,) int64 bin; hidden (T,) bool, True =
    never a key. Writes the cache and `out`, which it returns.
    """
    n_tokens, kind = q.shape[1], torch.float32
    band = cache.k.shape[1] // n_tokens
    slots = position % band * n_tokens + torch.arange(n_tokens, device=q.device)
    q = q.to(kind) * q.shape[-1] ** -0.5
    cache.k[:, slots] = rotate(k.to(kind), position).to(cache.k.dtype)
    cache.v[:, slots] = v
    cache.hidden[slots] = hidden
    values = cache.v.to(kind).masked_fill(cache.hidden[:, None], 0.0)
    score = torch.cat([q @ cache.sink_k.to(kind).mT, rotate(q, position) @ cache.k.to(kind).mT], dim=-1)
    unmet = torch.cat([cache.hidden.new_zeros(cache.sink_k.shape[1]), cache.hidden])
    return out.copy_(softmax(score, unmet) @ torch.cat([cache.sink_v.to(kind), values], dim=1))


def stream_block(
    parts: Tensor, weights: BlockWeights, cache: StreamCache, *, position: Tensor, hidden: Tensor
) -> Tensor:
    """One layer of a streaming step: LayerNorm, QKV, `stream_attention`, projection; LayerNorm, MLP with exact GELU.

    parts (P, T, D) float32: the residual stream is their sum. Writes the cache; returns the
    parts of the stream behind the layer, here (1, T, D). What attention reads and gives has the
    weights' dtype, all else is float32.
    """
    kind, (_, n_tokens, width) = weights.qkv.dtype, parts.shape
    w = BlockWeights(*(x.float() for x in weights))
    x = parts.sum(0)
    normed = functional.layer_norm(x, (width,), w.norm_scale, w.norm_shift, LAYER_NORM_EPS)
    qkv = functional.linear(normed, w.qkv, w.qkv_bias).to(kind)
    q, k, v = qkv.view(n_tokens, 3, cache.k.shape[0], -1).permute(1, 2, 0, 3)
    mixed = stream_attention(q, k, v, cache, position=position, hidden=hidden, out=torch.empty_like(q))
    x = x + functional.linear(mixed.transpose(0, 1).flatten(1).float(), w.out, w.out_bias)
    normed = functional.layer_norm(x, (width,), w.mlp_scale, w.mlp_shift, LAYER_NORM_EPS)
    return (x + functional.gelu(functional.linear(normed, w.up, w.up_bias)) @ w.down + w.down_bias)[None]


def stream_tokens(
    counts: Tensor, seen: Tensor, where: Tensor, tables: TokenTables, *, spikes: bool, hidden: Tensor
) -> Tensor:
    """A bin's tokens: the parts of a sum, here (1, 1 + M, D).

    counts (U,) float32; seen (M,) float32, NaN = hidden; where (3,) int64: position, clock and whether the bin is
    valid; spikes: False = their token is always hidden. Writes hidden (1 + M,) bool. Counts that are NaN poison every
    token that depends on them, and all where spikes are hidden.
    """
    clock, invalid = where[1], where[2] == 0
    hidden.copy_(torch.cat([invalid[None] | (not spikes), seen.isnan() | invalid]))
    row = tables.first + seen.nan_to_num(0.0).clamp(min=0).minimum((tables.n_classes - 1).clamp(min=0)).long()
    factor = torch.where(tables.n_classes > 0, 1.0, seen.nan_to_num(0.0, torch.inf, -torch.inf))
    behaviour = factor[:, None] * tables.values[row]
    token = tables.base + torch.cat([(counts.sqrt() @ tables.rows)[None], behaviour])
    x = torch.where(hidden[:, None], tables.blank, token) + tables.codes[(clock + 1).clamp(0, len(tables.codes) - 1)]
    return (x if spikes else x + counts.sum() * 0.0)[None]


def stream_read(parts: Tensor, head: ReadOut, *, rates: bool, out: Tensor) -> Tensor:
    """Outputs (V,) of the stream, the sum of parts (P, T, D), behind the last norm: softmax within a group, or exp."""
    x = functional.layer_norm(parts.sum(0), head.scale.shape, head.scale, head.shift, LAYER_NORM_EPS)
    y = (x[head.token] * head.weight).sum(1) + head.bias
    if rates:
        return out.copy_(y.exp())
    same = head.group[:, None] == head.group
    top = torch.where(same, y, -torch.inf).amax(1)
    total = torch.where(same, (y - top[:, None]).exp(), 0.0).sum(1)
    return out.copy_(torch.where(head.group >= 0, (y - top).exp() / total, y))
