"""One streaming step of causal NEDS on a CUDA GPU: static buffers, and one CUDA graph.

The bin's data are one buffer, copied host to device at once, so the same graph serves every bin. Without a GPU the
same step runs on CPU tensors, which is how it is tested.

| bytes    | dtype        | holds                                         |
| -------- | ------------ | --------------------------------------------- |
| 24       | int64 (3,)   | position, clock, whether the bin is valid     |
| 4 M      | float32 (M,) | behaviour as the model takes it, NaN = hidden |
| 4 U      | float32 (U,) | counts                                        |
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from kernels.reference import make_cache
from neds_core.checkpoint import Checkpoint
from neds_core.errors import ConfigError
from neds_core.model.model import NEDS, Batch
from runtime.core.values import Token
from runtime.engines.cuda_fused import KERNELS, FusedStep, Kernels, fits
from runtime.engines.cuda_graph import CUDA, Pair, Replayed
from runtime.engines.layout import layout
from runtime.engines.observed import Observed
from runtime.engines.stream_weights import sinks


class CudaStep(ABC):
    """Every modality is one token a bin: a key unless it is hidden, and a query."""

    name: str
    rates = False  # behaviour in and rates out
    graphed = True  # where there is a GPU; without, every operation is a launch of its own

    def __init__(
        self,
        checkpoint: Checkpoint,
        observed: tuple[str, ...] = (),
        device: torch.device = CUDA,
        fused: bool | None = None,
        kernels: Kernels = KERNELS,
    ) -> None:
        """observed: behaviours that a token may show.

        fused: whole layers in kernels; False = torch's operations around the kernel of attention; None = fused on a
        GPU, where it fits.
        """
        if checkpoint.header.config.model.filter_taus_ms:
            raise ConfigError(
                f"engine.device 'cuda' computes no filters, and checkpoint {checkpoint.header.name!r} has "
                "model.filter_taus_ms; set engine.device to 'cpu'"
            )
        self.checkpoint, self.layout, self.attend = checkpoint, layout(checkpoint), kernels.attention
        self.observed = Observed(checkpoint, observed)
        self.model: NEDS = copy.deepcopy(checkpoint.model).to(device)
        config, n_tokens = self.model.config, 1 + len(checkpoint.specs)
        self.asked = Pair(24 + 4 * (len(checkpoint.specs) + len(checkpoint.units)), torch.uint8, device)
        self.where, self.seen, self.counts = self._views(self.asked.on_device)
        self.host_where, self.host_seen, self.host_counts = (x.numpy() for x in self._views(self.asked.on_host))
        n_values = self._n_values()
        self.answer = Pair(n_values, torch.float32, device)
        self.values = np.zeros(n_values, np.float32)
        both = [(k.to(device), v.to(device)) for k, v in sinks(checkpoint.model)]
        caches = [make_cache(k, v, config.band, n_tokens) for k, v in both]
        self.hidden = caches[0].hidden  # (W * T,) of every layer: all hide the same tokens
        self.caches = [cache._replace(hidden=self.hidden) for cache in caches]
        heads, head_width = config.heads, config.width // config.heads
        self.mixed = torch.zeros(heads, n_tokens, head_width, device=device)
        if fused is None:
            fused = device.type == "cuda" and fits(self.model, rates=self.rates)
        self.fused = FusedStep(self.model, self.caches, rates=self.rates, kernels=kernels) if fused else None
        self.name = type(self).name if fused else f"{type(self).name}-plain"
        self.position = 0
        self.run = Replayed(self._run, device, self.graphed)
        self.reset()

    def _views(self, asked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the bytes of a bin: position, clock and validity; behaviour (M,), NaN = hidden; counts (U,)."""
        values = asked[24:].view(torch.float32)
        n_seen = len(self.checkpoint.specs)
        return asked[:24].view(torch.int64), values[:n_seen], values[n_seen:]

    def reset(self, position: int = 0) -> None:
        self.hidden.fill_(True)
        self.position = position

    def skip(self, n_bins: int) -> None:
        n_tokens, band = self.mixed.shape[1], self.model.config.band
        for position in range(self.position, self.position + min(n_bins, band)):
            begin = position % band * n_tokens
            self.hidden[begin : begin + n_tokens].fill_(True)
        self.position += n_bins

    def _ask(self, token: Token) -> None:
        """One bin through the model, to what `_read` gives in `answer`."""
        self.host_counts[:] = token.counts
        self.host_seen.fill(np.nan)
        if token.observed is not None:
            self.observed.as_inputs(token.observed, self.host_seen)
            if token.valid and not self.observed.possible(token.observed):
                self.host_counts.fill(np.nan)
        self.host_where[:] = self.position, token.clock, token.valid
        self.run()
        self.position += 1

    @torch.inference_mode()
    def _run(self) -> None:
        """One bin, from the buffer on the host to the values on the host; nothing on the way waits for the device."""
        self.asked.up()
        if self.fused is not None:
            self.fused(self.counts, self.seen, self.where, self.answer.on_device)
            self.answer.down(self.answer.on_device)
        else:
            self.answer.down(self._plain())

    def _plain(self) -> Tensor:
        """The values (V,), in the model's own operations around the kernel of attention."""
        model = self.model
        position, clock, valid = self.where.split(1)
        valid = valid != 0
        hidden = self._hidden(~valid, self.seen.isnan() | ~valid)
        x = self._tokens(self._batch(self.seen, clock, valid), hidden)
        for block, cache in zip(model.layers, self.caches, strict=True):
            q, k, v = (part[0] for part in block.heads_of(x))
            self.attend(q, k, v, cache, position=position, hidden=hidden, out=self.mixed)
            x = block.finish(x, self.mixed[None])
        return self._read(model.norm(x)[0])

    def _batch(self, seen: Tensor, clock: Tensor, valid: Tensor) -> Batch:
        """This bin as a window of one."""
        traces, classes = {}, {}
        for spec, value in zip(self.model.specs, seen.split(1), strict=True):
            if spec.kind == "continuous":
                traces[spec.name] = value[None]
            else:  # an index beyond the table would end the device; `_ask` poisons the counts instead
                classes[spec.name] = value.nan_to_num(0.0).clamp(0, len(spec.classes) - 1).long()[None]
        return Batch(self.counts[None, None], valid[None], traces, classes, clock[None])

    @abstractmethod
    def _n_values(self) -> int:
        """Numbers that `_read` gives."""

    @abstractmethod
    def _hidden(self, spikes: Tensor, behaviour: Tensor) -> Tensor:
        """(1 + M,) bool: the tokens that are no keys. spikes (1,), behaviour (M,): those that the bin does not hold."""

    def _tokens(self, batch: Batch, hidden: Tensor) -> Tensor:
        """(1, 1 + M, D); counts that were poisoned poison their token."""
        return self.model.tokens(batch, hidden[None, None], None)[0]

    @abstractmethod
    def _read(self, x: Tensor) -> Tensor:
        """Outputs (V,) of tokens (1 + M, D) behind the last norm."""
