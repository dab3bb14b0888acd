"""The layers of a causal model as `kernels.attention.stream_block` takes them: packed once, run bin by bin."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from kernels.reference import BlockWeights, StreamCache
from neds_core.model import NEDS, Block


def pack(block: Block) -> BlockWeights:
    """A layer's weights on their device, detached; the same memory but for `down`, which is turned."""
    return BlockWeights(
        *(
            x.detach()
            for layer in (block.norm_attention, block.qkv, block.out, block.norm_mlp, block.up)
            for x in (layer.weight, layer.bias)
        ),
        block.down.weight.detach().T.contiguous(),
        block.down.bias.detach(),
    )


class FusedLayers:
    """Every layer of a model, over the caches that it is given."""

    def __init__(self, model: NEDS, caches: list[StreamCache], block: Callable[..., Tensor]) -> None:
        """block: as `kernels.attention.stream_block`."""
        self.layers = [(pack(layer), cache) for layer, cache in zip(model.layers, caches, strict=True)]
        self.block = block

    def __call__(self, x: Tensor, position: Tensor, shown: Tensor) -> Tensor:
        """Tokens (1, T, D) of the bin at position (1,) through every layer; shown (T,) are keys from now on."""
        for weights, cache in self.layers:
            x = self.block(x, weights, cache, position=position, shown=shown)  # the parts of a sum
        return x.sum(0, keepdim=True)
