"""The door to a fused streaming step: a bin's data to tokens, tokens through every layer, tokens to outputs.

Checks its arguments, refuses in one sentence, and picks by the device: CUDA tensors go to Triton, CPU tensors to
`kernels.reference`, which is the specification. No function here has a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import reference
from kernels.attention import check_bin, check_device, check_shape, named, refuse
from kernels.reference import BlockWeights, ReadOut, StreamCache, TokenTables

MAX_BLOCK_TOKENS, MAX_BLOCK_WIDTH, MAX_BLOCK_MLP = 16, 512, 2048  # a fused layer holds its rows in registers
MAX_GROUPED = 64  # outputs of which some are classes: they are one tile


def fits(n_tokens: int, width: int, mlp: int, n_outputs: int) -> bool:
    """Whether a step of such sizes can be fused; n_outputs: where there are classes among them, else 0."""
    return (
        n_tokens <= MAX_BLOCK_TOKENS and width <= MAX_BLOCK_WIDTH and mlp <= MAX_BLOCK_MLP and n_outputs <= MAX_GROUPED
    )


def _no_gradient(*given: Tensor) -> None:
    asks = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    refuse(not asks, "a streaming step has no gradient; call it under torch.no_grad")


def _check_parts(parts: Tensor) -> None:
    refuse(parts.ndim == 3 and parts.shape[0] > 0, f"parts has shape {tuple(parts.shape)}; give it as (P, T, D)")
    check_shape("parts", parts, tuple(parts.shape), torch.float32)
    refuse(parts.is_contiguous(), "parts is not contiguous; call contiguous()")


def _check_table(name: str, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check_shape(name, x, shape, dtype)
    refuse(x.is_contiguous(), f"{name} is not contiguous; make it so once")


def stream_tokens(
    counts: Tensor, seen: Tensor, where: Tensor, tables: TokenTables, *, spikes: bool, hidden: Tensor
) -> Tensor:
    """A bin's tokens as parts (P, 1 + M, D) of a sum: see `kernels.reference.stream_tokens` for the meaning.

    On a GPU it is one launch that a CUDA graph can capture, after one call outside the graph has compiled it. Raises
    ValueError.
    """
    check_device({"counts": counts, "seen": seen, "where": where, "hidden": hidden} | tables._asdict())
    refuse(tables.rows.ndim == 2, f"rows has {tables.rows.ndim} axes; give it as (U, D)")
    (n_units, width), n_seen = tables.rows.shape, len(tables.first)
    single, whole = torch.float32, torch.int64
    refuse(n_seen < MAX_BLOCK_TOKENS, f"{n_seen} behaviours; a fused step takes fewer than {MAX_BLOCK_TOKENS}")
    refuse(width <= MAX_BLOCK_WIDTH, f"tokens {width} wide; a fused step takes at most {MAX_BLOCK_WIDTH}")
    for name, x, shape, dtype in (
        ("counts", counts, (n_units,), single), ("seen", seen, (n_seen,), single), ("where", where, (3,), whole),
        ("rows", tables.rows, (n_units, width), single), ("base", tables.base, (1 + n_seen, width), single),
        ("blank", tables.blank, (1 + n_seen, width), single),
        ("values", tables.values, (len(tables.values), width), single), ("first", tables.first, (n_seen,), whole),
        ("n_classes", tables.n_classes, (n_seen,), whole), ("codes", tables.codes, (len(tables.codes), width), single),
        ("hidden", hidden, (1 + n_seen,), torch.bool),
    ):  # fmt: skip
        _check_table(name, x, shape, dtype)
    _no_gradient(counts, seen, *tables)
    if counts.device.type == "cpu":
        return reference.stream_tokens(counts, seen, where, tables, spikes=spikes, hidden=hidden)
    from kernels.gpu.ends import launch_tokens

    with torch.cuda.device(counts.device):
        return launch_tokens(counts, seen, where, tables, spikes=spikes, hidden=hidden)


def stream_read(parts: Tensor, head: ReadOut, *, rates: bool, out: Tensor) -> Tensor:
    """Outputs into out (V,) float32: see `kernels.reference.stream_read` for the meaning.

    parts (P, T, D) as of the last layer. On a GPU it is one launch, as `stream_tokens`. Raises ValueError.
    """
    check_device({"parts": parts, "out": out} | head._asdict())
    _check_parts(parts)
    width, n = parts.shape[2], len(out)
    refuse(rates or n <= MAX_GROUPED, f"{n} outputs; a fused step takes at most {MAX_GROUPED}")
    single, whole = torch.float32, torch.int64
    for name, x, shape, dtype in (
        ("scale", head.scale, (width,), single), ("shift", head.shift, (width,), single),
        ("weight", head.weight, (n, width), single), ("bias", head.bias, (n,), single),
        ("token", head.token, (n,), whole), ("group", head.group, (n,), whole), ("out", out, (n,), single),
    ):  # fmt: skip
        _check_table(name, x, shape, dtype)
    _no_gradient(parts, *head)
    if parts.device.type == "cpu":
        return reference.stream_read(parts, head, rates=rates, out=out)
    from kernels.gpu.ends import launch_read

    with torch.cuda.device(parts.device):
        return launch_read(parts, head, rates=rates, out=out)


def stream_block(
    parts: Tensor, weights: BlockWeights, cache: StreamCache, *, position: Tensor, hidden: Tensor
) -> Tensor:
    """One layer of a streaming step, fused: see `kernels.reference.stream_block` for the meaning.

    parts (P, T, D) float32, at most 16 tokens and 512 wide; weights with at most 2048 hidden
    units, of the cache's dtype; position and hidden as for `stream_attention`. On a GPU it is
    three launches that a CUDA graph can capture, after one call outside the graph has compiled
    them. Returns any number of parts. Raises ValueError.
    """
    given = {"parts": parts, "position": position, "hidden": hidden}
    check_device(given | named(cache) | weights._asdict())
    _check_parts(parts)
    (_, n_tokens, width), mlp, heads = parts.shape, weights.up.shape[0], cache.k.shape[0]
    refuse(
        fits(n_tokens, width, mlp, 0),
        f"{n_tokens} tokens, {width} wide, {mlp} hidden units; a fused layer takes at most {MAX_BLOCK_TOKENS}, "
        f"{MAX_BLOCK_WIDTH} and {MAX_BLOCK_MLP}, so step through the plain layers",
    )
    refuse(width % heads == 0, f"a stream {width} wide is not shared evenly by the cache's {heads} heads")
    shapes = (
        (width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,), (width,), (width,),
        (mlp, width), (mlp,), (mlp, width), (width,),
    )  # fmt: skip
    for (name, x), shape in zip(weights._asdict().items(), shapes, strict=True):
        _check_table(name, x, shape, cache.k.dtype)
    check_bin(cache, heads, n_tokens, width // heads, position, hidden)
    _no_gradient(parts, *weights)
    if parts.device.type == "cpu":
        return reference.stream_block(parts, weights, cache, position=position, hidden=hidden)
    from kernels.gpu.block import launch_block

    with torch.cuda.device(parts.device):
        return launch_block(parts, weights, cache, position=position, hidden=hidden)
