"""A causal model's streaming step as `kernels.streaming` takes it: two launches, and three for each layer.

The weights are packed once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from kernels import streaming
from kernels.attention import stream_attention
from kernels.reference import BlockWeights, ReadOut, StreamCache, TokenTables
from neds_core.model.embed import UnitTokenizer
from neds_core.model.model import NEDS, Block


class Kernels(NamedTuple):
    """What launches a step: as in `kernels.streaming`, and for a step that is not fused `kernels.attention`."""

    tokens: Callable[..., Tensor] = streaming.stream_tokens
    block: Callable[..., Tensor] = streaming.stream_block
    read: Callable[..., Tensor] = streaming.stream_read
    attention: Callable[..., Tensor] = stream_attention


KERNELS = Kernels()  # those of the tensors' device


def pack_layer(block: Block) -> BlockWeights:
    """A layer's weights on their device, detached; the same memory, except `down`, which is transposed."""
    layers = (block.norm_attention, block.qkv, block.out, block.norm_mlp, block.up)
    both = [x.detach() for layer in layers for x in (layer.weight, layer.bias)]
    return BlockWeights._make([*both, block.down.weight.detach().T.contiguous(), block.down.bias.detach()])


@torch.inference_mode()
def pack_tokens(model: NEDS) -> TokenTables:
    """What a bin's tokens are computed from, on the model's device."""
    tokenizer = cast(UnitTokenizer, model.tokenizer())
    base = [tokenizer.bias - (tokenizer.mean * tokenizer.gain) @ tokenizer.rows]
    values, first = [], []
    for spec in model.specs:
        module, at = model.behaviour[spec.name], sum(len(rows) for rows in values)
        first.append(at)
        if isinstance(module, nn.Linear):
            base.append(module.bias)
            values.append(module.weight.T)
        else:
            table = cast(nn.Embedding, module).weight
            base.append(torch.zeros_like(table[0]))
            values.append(table)
    device = model.mask_token.device
    n_classes = [0 if spec.kind == "continuous" else len(spec.classes) for spec in model.specs]
    return TokenTables(
        rows=(tokenizer.rows * tokenizer.gain[:, None]).contiguous(),
        base=(torch.stack(base) + model.modality).contiguous(),
        blank=(model.mask_token + model.modality).contiguous(),
        values=torch.cat(values).contiguous(),
        first=torch.tensor(first, device=device),
        n_classes=torch.tensor(n_classes, device=device),
        codes=torch.zeros_like(model.modality[:1]) if model.clock is None else model.clock.weight.detach().clone(),
    )


@torch.inference_mode()
def pack_read(model: NEDS, *, rates: bool) -> ReadOut:
    """The last norm, and the rate head of the spike token or the heads of the behaviours."""
    heads = [model.rate_head()] if rates else [model.head(spec.name) for spec in model.specs]
    token, group = [], []
    for place, head in enumerate(heads):
        n, is_class = len(head.bias), not rates and model.specs[place].kind == "class"
        token += [0 if rates else 1 + place] * n
        group += [place if is_class else -1] * n
    device = model.mask_token.device
    return ReadOut(
        model.norm.weight.detach(),
        model.norm.bias.detach(),
        torch.cat([head.weight for head in heads]).contiguous(),
        torch.cat([head.bias for head in heads]).contiguous(),
        torch.tensor(token, device=device),
        torch.tensor(group, device=device),
    )


class FusedStep:
    """One bin through a model, over caches that the caller owns."""

    def __init__(self, model: NEDS, caches: list[StreamCache], *, rates: bool, kernels: Kernels) -> None:
        """rates: behaviour in and rates out, every spike hidden; else spikes and behaviour in, behaviour out."""
        self.layers = [(pack_layer(layer), cache) for layer, cache in zip(model.layers, caches, strict=True)]
        self.tables, self.head = pack_tokens(model), pack_read(model, rates=rates)
        self.rates, self.kernels = rates, kernels
        self.hidden = torch.ones(1 + len(model.specs), dtype=torch.bool, device=model.mask_token.device)

    def __call__(self, counts: Tensor, seen: Tensor, where: Tensor, out: Tensor) -> None:
        """From counts (U,), seen (M,), NaN = hidden, and where (3,): position, clock, validity; writes out (V,)."""
        kernels, position = self.kernels, where[:1]
        x = kernels.tokens(counts, seen, where, self.tables, spikes=not self.rates, hidden=self.hidden)
        for weights, cache in self.layers:
            x = kernels.block(x, weights, cache, position=position, hidden=self.hidden)  # the parts of a sum
        kernels.read(x, self.head, rates=self.rates, out=out)


def fits(model: NEDS, *, rates: bool) -> bool:
    """Whether a model's step can be fused."""
    n_outputs = 0 if rates else sum(max(1, len(spec.classes)) for spec in model.specs)
    config = model.config
    return config.tokenizer == "rows" and streaming.fits(1 + len(model.specs), config.width, config.mlp, n_outputs)
