"""NEDS on a CUDA GPU, behind the contract of the CPU engines: static buffers, and one CUDA graph a step.

What a bin holds, where it stands and what it shows are device data, so the same graph serves every
bin. Without a GPU the same steps run on CPU tensors, which is how they are tested.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels import attention as door
from kernels.reference import make_cache
from neds_core.checkpoint import Checkpoint
from neds_core.model import offline
from neds_core.model.model import NEDS, Batch
from runtime.core.values import Token
from runtime.engines.cuda_fused import FusedStep, Kernels, fits
from runtime.engines.cuda_graph import Pair, Replayed
from runtime.engines.layout import layout
from runtime.engines.observed import Observed
from runtime.engines.stream import decoded
from runtime.engines.stream_weights import sinks
from runtime.engines.window import WindowEngine

CUDA = torch.device("cuda")


class _CudaStep(ABC):
    """Every modality is one token a bin: a key where it is shown, and a query for what is hidden."""

    name: str
    rates = False  # behaviour in and rates out
    graphed = True  # where there is a GPU; without, every operation is a launch of its own

    def __init__(
        self,
        checkpoint: Checkpoint,
        observed: tuple[str, ...] = (),
        device: torch.device = CUDA,
        attend: Callable[..., Any] = door.stream_attention,
        fused: bool | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        """observed: behaviours that a token may show. attend: as `kernels.attention.stream_attention`.

        fused: `kernels` alone, else torch's operations around `attend`; None = on a GPU, where it fits.
        """
        self.checkpoint, self.layout, self.attend = checkpoint, layout(checkpoint), attend
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
        self.visible = caches[0].visible  # of every layer: a bin shows them all the same
        self.caches = [cache._replace(visible=self.visible) for cache in caches]
        heads, head_width = config.heads, config.width // config.heads
        self.mixed = torch.zeros(heads, n_tokens, head_width, device=device)
        if fused is None:
            fused = device.type == "cuda" and fits(self.model, rates=self.rates)
        made = kernels or Kernels()
        self.fused = FusedStep(self.model, self.caches, rates=self.rates, kernels=made) if fused else None
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
        self.visible.zero_()
        self.position = position

    def skip(self, n_bins: int) -> None:
        n_tokens, band = self.mixed.shape[1], self.model.config.band
        for position in range(self.position, self.position + min(n_bins, band)):
            begin = position % band * n_tokens
            self.visible[begin : begin + n_tokens].zero_()
        self.position += n_bins

    def _ask(self, token: Token) -> None:
        """One bin through the model; its `_read` lies in `answer`."""
        self.host_counts[:] = token.counts
        self.host_seen.fill(np.nan)
        if token.observed is not None:
            self.observed.as_seen(token.observed, self.host_seen)
            if token.valid and not self.observed.possible(token.observed):
                self.host_counts.fill(np.nan)
        self.host_where[:] = self.position, token.clock, token.valid
        self.run()
        self.position += 1

    @torch.inference_mode()
    def _run(self) -> None:
        """One bin, from the buffer on the host to the values on the host; reads no number on the way."""
        self.asked.up()
        if self.fused is not None:
            self.fused(self.counts, self.seen, self.where, self.answer.on_device)
            self.answer.down(self.answer.on_device)
        else:
            self.answer.down(self._plain())

    def _plain(self) -> Tensor:
        """The same in torch's operations, as the model has them; the values."""
        model = self.model
        position, clock, valid = self.where.split(1)
        valid = valid != 0
        shown = self._shown(valid, ~self.seen.isnan() & valid)
        x = self._tokens(self._batch(self.seen, clock, valid), ~shown)
        for block, cache in zip(model.layers, self.caches, strict=True):
            q, k, v = (part[0] for part in block.heads_of(x))
            self.attend(q, k, v, cache, position=position, shown=shown, out=self.mixed)
            x = block.finish(x, self.mixed[None])
        return self._read(model.norm(x)[0])

    def _batch(self, seen: Tensor, clock: Tensor, valid: Tensor) -> Batch:
        """This bin as a window of one."""
        traces, classes = {}, {}
        for spec, value in zip(self.model.specs, seen.split(1), strict=True):
            if spec.kind == "continuous":
                traces[spec.name] = value[None]
            else:  # what is no class poisons the counts instead: an index beyond the table ends the device
                classes[spec.name] = value.nan_to_num(0.0).clamp(0, len(spec.classes) - 1).long()[None]
        return Batch(self.counts[None, None], valid[None], traces, classes, clock[None])

    @abstractmethod
    def _n_values(self) -> int:
        """Numbers that `_read` gives."""

    @abstractmethod
    def _shown(self, spikes: Tensor, behaviour: Tensor) -> Tensor:
        """(1 + M,) bool: the tokens that are keys, of those that the bin holds."""

    def _tokens(self, batch: Batch, hidden: Tensor) -> Tensor:
        """(1, 1 + M, D); counts that were poisoned poison their token."""
        return self.model.tokens(batch, hidden[None, None], None)[0]

    @abstractmethod
    def _read(self, x: Tensor) -> Tensor:
        """(V,): what is said, of tokens (1 + M, D) behind the last norm."""


class CudaStreamEngine(_CudaStep):
    """Spikes in, behaviour out; observed behaviour beside the spikes."""

    window_bins = 0
    name = "stream-triton-cuda"

    def step(self, token: Token) -> np.ndarray:
        self._ask(token)
        np.multiply(self.answer.host, self.layout.scale, out=self.values)
        self.values += self.layout.offset
        if token.valid:
            self.observed.say(token.observed, self.values)
        return self.values

    def offline(
        self,
        counts: np.ndarray,
        valid: np.ndarray,
        clock: np.ndarray,
        reset: np.ndarray,
        observed: np.ndarray | None = None,
    ) -> np.ndarray:
        """The same values (T, V) computed at once on the CPU; observed (T, M) as in its tokens."""
        shown = None if observed is None else self.observed
        return decoded(self.checkpoint.model, self.layout, counts, valid, clock, reset, shown, observed)

    def _n_values(self) -> int:
        return self.layout.n_values

    def _shown(self, spikes: Tensor, behaviour: Tensor) -> Tensor:
        return torch.cat([spikes, behaviour])

    def _read(self, x: Tensor) -> Tensor:
        """(V,): z-scores and probabilities, of tokens (1 + M, D) behind the last norm."""
        specs = self.model.specs
        read = [self.model.head(spec.name)(x[m]) for m, spec in enumerate(specs, start=1)]
        return torch.cat([y.softmax(-1) if spec.kind == "class" else y for spec, y in zip(specs, read, strict=True)])


class CudaRateEngine(_CudaStep):
    """The encoding direction: behaviour in, the rates expected of the units out; no spike is seen."""

    name = "rates-triton-cuda"
    rates = True

    def __init__(
        self,
        checkpoint: Checkpoint,
        observed: tuple[str, ...] | None = None,
        device: torch.device = CUDA,
        attend: Callable[..., Any] = door.stream_attention,
        fused: bool | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        """observed: behaviours that a token may show; None = all. The rest as in `_CudaStep`."""
        every = tuple(spec.name for spec in checkpoint.specs)
        super().__init__(checkpoint, every if observed is None else observed, device, attend, fused, kernels)

    def step(self, token: Token) -> np.ndarray:
        """Take in what a bin shows of behaviour; returns rates (U,) float32, spikes a bin, reused by the next step."""
        self._ask(token)
        self.values[:] = self.answer.host
        return self.values

    def _n_values(self) -> int:
        return len(self.checkpoint.units)

    def _shown(self, spikes: Tensor, behaviour: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(spikes), behaviour])

    def _tokens(self, batch: Batch, hidden: Tensor) -> Tensor:
        """The spike token is hidden, so that the poison of counts has to be given to all."""
        return super()._tokens(batch, hidden) + batch.counts.sum() * 0.0

    def _read(self, x: Tensor) -> Tensor:
        return self.model.rate_head()(x[0]).exp()


class CudaWindowEngine(WindowEngine):
    """The whole window at its full length for every bin: bins to come are not valid, so that they are no keys."""

    name = "window-triton-cuda"
    graphed = True

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device = CUDA,
        attend: Callable[..., Tensor] = door.attention,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """attend: as `kernels.attention.attention`. dtype: of weights and activations; half precision is less exact."""
        super().__init__(checkpoint)
        self.attend = attend
        self.on_device: NEDS = copy.deepcopy(checkpoint.model).to(device, dtype)
        self.row = Pair(len(checkpoint.units), torch.float32, device)
        self.where = Pair(2, torch.int64, device)  # place, whether the bin is valid
        self.answer = Pair(self.layout.n_values, torch.float32, device)
        shape = (1, self.window_bins)
        self.window = torch.zeros(*shape, len(checkpoint.units), device=device, dtype=dtype)
        self.live = torch.zeros(shape, dtype=torch.bool, device=device)
        specs = checkpoint.specs
        self.batch = Batch(
            self.window, self.live,
            {s.name: torch.full(shape, torch.nan, device=device, dtype=dtype) for s in specs if s.kind == "continuous"},
            {s.name: torch.full(shape, -1, device=device) for s in specs if s.kind == "class"},
            torch.full(shape, -1, device=device),
        )  # fmt: skip
        self.run = Replayed(self._run, device, self.graphed)
        self.reset()

    def reset(self, position: int = 0) -> None:
        super().reset(position)
        self.window.zero_()
        self.live.zero_()

    def _decode(self, at: int, token: Token) -> None:
        self.row.host[:] = token.counts
        self.where.host[:] = at, token.valid
        self.run()
        self.values[:] = self.answer.host

    @torch.inference_mode()
    def _run(self) -> None:
        """One bin into the window, and its values."""
        self.row.up()
        self.where.up()
        at, valid = self.where.on_device.split(1)
        self.window.index_copy_(1, at, self.row.on_device[None, None].to(self.window.dtype))
        self.live.index_copy_(1, at, valid[None] != 0)
        self.answer.down(self._values(at))

    def _values(self, at: Tensor) -> Tensor:
        """(V,) z-scores and probabilities of the bin at (1,)."""
        found = offline.read_at(self.on_device, self.batch, at, self._attend)
        return torch.cat([values.reshape(-1) for values in found.values()])

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, position: Tensor, hidden: Tensor, band: int, n_sinks: int
    ) -> Tensor:
        """Every bin of the window, whatever the configuration's band."""
        return self.attend(q, k, v, position=position, hidden=hidden, band=None, n_sinks=n_sinks)
