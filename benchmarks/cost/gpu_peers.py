"""What our GPU engines are measured against: the same step and the same window in torch's own operations.

A peer is our engine with its inside replaced, so that the host's part, the buffers and the checks are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from neds_core.checkpoint import Checkpoint
from neds_core.model.attention import rotary, rotate
from runtime.engines.cuda_stream import CudaStreamEngine
from runtime.engines.cuda_window import CudaWindowEngine

Mode = str  # "eager", "graph", "compiled": launches one by one, in a CUDA graph, or what torch.compile makes in a graph
INDUCTOR = "max-autotune-no-cudagraphs"  # the graph is captured by hand, as ours is, which costs less at each replay


def compiled(step: Callable[..., Any], mode: Mode) -> Callable[..., Any]:
    """What a mode makes of torch's operations."""
    return torch.compile(step, mode=INDUCTOR, dynamic=False) if mode == "compiled" else step


class TorchStep(CudaStreamEngine):
    """The KV step as one would write it in torch: the cache is written in place, and its length is fixed.

    Sinks lie before the ring in one cache, so that nothing is concatenated on the way. A query meets sinks as it is and
    the ring rotated: a head twice as wide, with zeros where the other kind is, lets one product serve both.
    """

    def __init__(self, checkpoint: Checkpoint, mode: Mode, sdpa: bool, device: torch.device) -> None:
        self.graphed, self.sdpa = mode != "eager", sdpa
        self.past: list[tuple[Tensor, Tensor]] = []
        self.step_of_bin = compiled(self._step_of_bin, mode)
        super().__init__(checkpoint, device=device, fused=False)
        self.name = f"KV step in torch, {'SDPA' if sdpa else 'matmul'}, {mode}"

    def reset(self, position: int = 0) -> None:
        super().reset(position)
        if self.past:
            self.seen_keys[self.n_sinks :].zero_()

    def _make_past(self) -> None:
        """Keys (H, S + N, 2K) and values (H, S + N, K) of each layer."""
        self.n_sinks = self.caches[0].sink_k.shape[1]
        for cache in self.caches:
            keys = torch.cat([cache.sink_k, torch.zeros_like(cache.k)], 1)
            keys = torch.cat([keys, torch.zeros_like(keys)], 2)
            self.past.append((keys, torch.cat([cache.sink_v, torch.zeros_like(cache.v)], 1)))
        n = self.past[0][0].shape[1]
        self.seen_keys = torch.arange(n, device=self.hidden.device) < self.n_sinks

    def _plain(self) -> Tensor:
        if not self.past:
            self._make_past()
        return self.step_of_bin(self.where, self.seen, self.counts)

    def _step_of_bin(self, where: Tensor, seen: Tensor, counts: Tensor) -> Tensor:
        model = self.model
        position, clock, valid = where.split(1)
        valid = valid != 0
        hidden = self._hidden(~valid, seen.isnan() | ~valid)
        n_tokens, head_width = self.mixed.shape[1:]
        slots = self.n_sinks + position % model.config.band * n_tokens + torch.arange(n_tokens, device=where.device)
        table = rotary(position, head_width)
        self.seen_keys.index_copy_(0, slots, ~hidden)
        x = self._tokens(self._batch(seen, clock, valid), hidden)
        for block, (keys, values) in zip(model.layers, self.past, strict=True):
            q, k, v = (part[0] for part in block.heads_of(x))
            keys.index_copy_(1, slots, torch.cat([torch.zeros_like(k), rotate(k, table)], 2))
            values.index_copy_(1, slots, v)
            both = torch.cat([q, rotate(q, table)], 2)
            if self.sdpa:
                mask = self.seen_keys.expand(n_tokens, -1)
                mixed = functional.scaled_dot_product_attention(both, keys, values, mask, scale=head_width**-0.5)
            else:
                score = (both @ keys.mT * head_width**-0.5).masked_fill(~self.seen_keys, -torch.inf)
                mixed = score.softmax(-1) @ values
            x = block.finish(x, mixed[None])
        return self._read(model.norm(x)[0])


class TorchWindow(CudaWindowEngine):
    """The window through torch's attention, in one of its forms."""

    def __init__(
        self, checkpoint: Checkpoint, mode: Mode, attention: str, dtype: torch.dtype, device: torch.device
    ) -> None:
        """attention: "flash", "efficient", "cudnn", "math", "flex", or "any", which is left to torch."""
        self.graphed, self.kind = mode != "eager", attention
        self.values_of_bin = compiled(super()._values, mode)
        config = checkpoint.model.config  # a window's places never change, so their angles are looked up
        places = torch.arange(config.window_bins, device=device).repeat_interleave(1 + len(checkpoint.specs))
        self.cos, self.sin = (x.to(dtype) for x in rotary(places, config.width // config.heads))
        super().__init__(checkpoint, device, attend=self._torch, dtype=dtype)
        self.name = f"window in torch, {attention}, {mode}"

    def _values(self, at: Tensor) -> Tensor:
        backend = {
            "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION,
            "cudnn": SDPBackend.CUDNN_ATTENTION, "math": SDPBackend.MATH,
        }.get(self.kind)  # fmt: skip
        with sdpa_kernel(backend) if backend is not None else nullcontext():
            return self.values_of_bin(at)

    def _torch(self, q: Tensor, k: Tensor, v: Tensor, *, hidden: Tensor, **_: Any) -> Tensor:
        q, k = rotate(q, (self.cos, self.sin)), rotate(k, (self.cos, self.sin))
        if self.kind == "flex":
            from torch.nn.attention.flex_attention import flex_attention

            def bias(score: Tensor, _b: Tensor, _h: Tensor, _q: Tensor, key: Tensor) -> Tensor:
                return torch.where(hidden[0, key], -torch.inf, score)

            return flex_attention(q, k, v, score_mod=bias)  # pyright: ignore[reportReturnType]
        if self.kind == "flash":  # takes no mask: right only where every bin is valid, as here where it is timed
            return functional.scaled_dot_product_attention(q, k, v)
        return functional.scaled_dot_product_attention(q, k, v, ~hidden[:, None, None])
