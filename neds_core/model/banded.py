"""Banded attention with sinks for the CPU, forward and backward: what `attention.attention` says, several times faster.

A hidden token is nobody's key, so samples that hide the same tokens are taken together and their keys gathered: what is
hidden costs a query and no more. Blocks of queries go through torch's own fused CPU attention, rotated, without the
sinks; what the sinks add, met un-rotated, is merged by the sums of exponentials that it returns. Its backward pass
recomputes the weights from output and log-sum, so the merged ones give the gradients of the whole softmax (Dao et al.
2022, FlashAttention, B.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neds_core.model.attention import rotary, rotate

QUERY_BLOCK = 128  # tokens; smaller ones meet fewer keys outside of their bands, larger ones make better products
SHORT = 256  # tokens; up to here gathering the keys that are shown costs more than it saves
UNMET = -1e9  # added to the score of a key outside of the band: its weight is 0 exactly, beside sinks
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attention(q: Tensor, k: Tensor, v: Tensor, *, position: Tensor, hidden: Tensor, band: int, n_sinks: int) -> Tensor:
    """See `neds_core.model.attention.attention`; on the CPU, differentiable once.

    Keys and values have to be finite, hidden ones too: a weight of 0 does not silence a NaN.
    """
    values = v if v.stride(-1) == 1 else v.contiguous()  # as the fused kernel takes them; q and k are rotated anyway
    return Banded.apply(q, k, values, Tokens(position, hidden, band, n_sinks))


class Tokens(NamedTuple):
    """What `attention` is told of its tokens: position (N,) int64, hidden (B, N) bool, band in bins, sinks."""

    position: Tensor
    hidden: Tensor
    band: int
    n_sinks: int


class Group(NamedTuple):
    """Samples that are taken together: some of B, and the tokens seen (n,) of which they have keys; a slice = all."""

    some: slice | Tensor
    seen: slice | Tensor
    hidden: Tensor  # (B, N) of all samples: where all tokens have keys, nobody may meet those of hidden ones


def groups(hidden: Tensor) -> list[Group]:
    """Samples that hide the same tokens of hidden (B, N); all in one where windows are too short for that to pay."""
    n_tokens = hidden.shape[1]
    if n_tokens <= SHORT:
        return [Group(slice(None), slice(None), hidden)]
    patterns, which = hidden.unique(dim=0, return_inverse=True)
    alike = [(which == number).nonzero()[:, 0] for number in range(len(patterns))]
    return [
        Group(slice(int(s[0]), int(s[0]) + 1) if len(s) == 1 else s, (~pattern).nonzero()[:, 0], hidden)
        for s, pattern in zip(alike, patterns, strict=True)
    ]


def blocks(bins: Tensor, band: int, dtype: torch.dtype) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows of bins (N,), the tokens in reach of some of them, and what is added to their scores (rows, near)."""
    for begin in range(0, len(bins), QUERY_BLOCK):
        rows = slice(begin, min(begin + QUERY_BLOCK, len(bins)))
        first = int(torch.searchsorted(bins, bins[rows.start] - (band - 1)))
        near = slice(first, int(torch.searchsorted(bins, bins[rows.stop - 1], right=True)))
        age = bins[rows, None] - bins[None, near]
        yield rows, near, ((age < 0) | (age >= band)).to(dtype).mul_(UNMET)


def met_by(group: Group, near: slice, added: Tensor) -> tuple[slice, Tensor] | None:
    """Of its keys those in `near`, and what is added to their scores (1 | B, 1, rows, n); None without any."""
    if isinstance(group.seen, slice):
        return near, added + group.hidden[:, None, None, near] * UNMET
    first, last = torch.searchsorted(group.seen, torch.tensor([near.start, near.stop])).tolist()
    return (slice(first, last), added[None, None, :, group.seen[first:last] - near.start]) if last > first else None


class Banded(torch.autograd.Function):
    """See `attention`. Inside, tokens come before heads, (B, N, H, K), as the layers around store them."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, tokens: Tokens) -> Tensor:
        n_sinks = tokens.n_sinks
        scale, bins, hidden = q.shape[-1] ** -0.5, tokens.position[n_sinks:], tokens.hidden[:, n_sinks:]
        table = rotary(bins, q.shape[-1])
        queries, keys = (rotate(x[:, :, n_sinks:], table).transpose(1, 2) for x in (q, k))
        values, sink_k, sink_v = v[:, :, n_sinks:].transpose(1, 2), k[:, :, :n_sinks], v[:, :, :n_sinks]
        out = q.new_zeros(q.transpose(1, 2).shape)
        met = torch.full_like(out[..., 0], float("-inf"))  # log of the summed exponentials of the keys in the band
        shared, near_rows = groups(hidden), blocks(bins, tokens.band, q.dtype)
        if any(ctx.needs_input_grad):  # else one block at a time, however long the recording
            near_rows = list(near_rows)
        every = [(one, queries[one.some], keys[one.some][:, one.seen], values[one.some][:, one.seen]) for one in shared]
        for rows, near, added in near_rows:
            for one, its_q, its_k, its_v in every:
                if (found := met_by(one, near, added)) is not None:
                    at, its_added = found
                    asked, key, value = (x.transpose(1, 2) for x in (its_q[:, rows], its_k[:, at], its_v[:, at]))
                    mixed, log_sum = _forward(asked, key, value, attn_mask=its_added, scale=scale)
                    out[:, n_sinks:][one.some, rows] = mixed.transpose(1, 2)
                    met[:, n_sinks:][one.some, rows] = log_sum.transpose(1, 2)
        out, met = out.transpose(1, 2), met.transpose(1, 2)
        score = (q @ sink_k.mT) * scale
        total = torch.logaddexp(met, score.logsumexp(-1))
        weight = (score - total[..., None]).exp_()
        out.mul_((met - total).exp_()[..., None]).add_(weight @ sink_v)
        ctx.save_for_backward(q, queries, keys, values, sink_k, sink_v, out, total, weight)
        ctx.table, ctx.groups, ctx.blocks = table, shared, near_rows
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, queries, keys, values, sink_k, sink_v, out, total, weight = ctx.saved_tensors
        grad = grad if grad.stride(-1) == 1 else grad.contiguous()
        n_sinks, scale = sink_k.shape[2], q.shape[-1] ** -0.5
        wanted, given, log_sum = (x.transpose(1, 2)[:, n_sinks:] for x in (grad, out, total))
        to_q, to_k, to_v = (torch.zeros_like(queries) for _ in range(3))
        every = []
        for one in ctx.groups:
            its_k, its_v = keys[one.some][:, one.seen], values[one.some][:, one.seen]
            by_row = [x[one.some] for x in (wanted, queries, given, log_sum)]
            every.append((one, by_row, its_k, its_v, torch.zeros_like(its_k), torch.zeros_like(its_v)))
        for rows, near, added in ctx.blocks:
            for one, by_row, its_k, its_v, sum_k, sum_v in every:
                if (found := met_by(one, near, added)) is not None:
                    at, its_added = found
                    its_wanted, its_q, its_out, its_log_sum = (x[:, rows].transpose(1, 2) for x in by_row)
                    of_q, of_k, of_v = _backward(
                        its_wanted, its_q, its_k[:, at].transpose(1, 2), its_v[:, at].transpose(1, 2), its_out,
                        its_log_sum, 0.0, False, attn_mask=its_added, scale=scale,
                    )  # fmt: skip
                    to_q[one.some, rows] = of_q.transpose(1, 2)
                    sum_k[:, at] += of_k.transpose(1, 2)
                    sum_v[:, at] += of_v.transpose(1, 2)
        for one, *_, sum_k, sum_v in every:
            at = (one.some if isinstance(one.some, slice) else one.some[:, None], one.seen)
            to_k[at], to_v[at] = sum_k, sum_v
        back = ctx.table[0], -ctx.table[1]
        to_score = weight * (grad @ sink_v.mT - (grad * out).sum(-1, keepdim=True)) * scale
        grad_q, grad_k, grad_v = (x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (q, q, q))
        grad_q.copy_(to_score @ sink_k)
        grad_q[:, :, n_sinks:] += rotate(to_q.transpose(1, 2), back)
        grad_k[:, :, :n_sinks], grad_k[:, :, n_sinks:] = to_score.mT @ q, rotate(to_k.transpose(1, 2), back)
        grad_v[:, :, :n_sinks], grad_v[:, :, n_sinks:] = weight.mT @ grad, to_v.transpose(1, 2)
        return grad_q, grad_k, grad_v, None
