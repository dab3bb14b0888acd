"""The stream engines on a CUDA GPU: behaviour from spikes, and rates from behaviour."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neds_core.checkpoint import Checkpoint
from neds_core.model.model import Batch
from runtime.core.values import Token
from runtime.engines.cuda_fused import KERNELS, Kernels
from runtime.engines.cuda_graph import CUDA
from runtime.engines.cuda_step import CudaStep
from runtime.engines.stream_offline import StreamDecoder


class CudaStreamEngine(StreamDecoder, CudaStep):
    """Spikes, and what is observed of behaviour, in; behaviour out."""

    window_bins = 0
    name = "stream-triton-cuda"

    def step(self, token: Token) -> np.ndarray:
        self._ask(token)
        np.multiply(self.answer.host, self.layout.scale, out=self.values)
        self.values += self.layout.offset
        if token.valid:
            self.observed.write_outputs(token.observed, self.values)
        return self.values

    def _n_values(self) -> int:
        return self.layout.n_values

    def _hidden(self, spikes: Tensor, behaviour: Tensor) -> Tensor:
        return torch.cat([spikes, behaviour])

    def _read(self, x: Tensor) -> Tensor:
        """(V,): z-scores and probabilities, of tokens (1 + M, D) behind the last norm."""
        specs = self.model.specs
        read = [self.model.head(spec.name)(x[m]) for m, spec in enumerate(specs, start=1)]
        return torch.cat([y.softmax(-1) if spec.kind == "class" else y for spec, y in zip(specs, read, strict=True)])


class CudaRateEngine(CudaStep):
    """The encoding direction: behaviour in, expected rates of the units out; every spike is hidden."""

    name = "rates-triton-cuda"
    rates = True

    def __init__(
        self,
        checkpoint: Checkpoint,
        observed: tuple[str, ...] | None = None,
        device: torch.device = CUDA,
        fused: bool | None = None,
        kernels: Kernels = KERNELS,
    ) -> None:
        """observed: behaviours that a token may show; None = all. The rest as in `CudaStep`."""
        every = tuple(spec.name for spec in checkpoint.specs)
        super().__init__(checkpoint, every if observed is None else observed, device, fused, kernels)

    def step(self, token: Token) -> np.ndarray:
        """Take in a bin's observed behaviour; returns rates (U,) float32, spikes a bin, reused by the next step."""
        self._ask(token)
        self.values[:] = self.answer.host
        return self.values

    def _n_values(self) -> int:
        return len(self.checkpoint.units)

    def _hidden(self, spikes: Tensor, behaviour: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(spikes), behaviour])

    def _tokens(self, batch: Batch, hidden: Tensor) -> Tensor:
        """The spike token is hidden, so poisoned counts have to poison every token."""
        return super()._tokens(batch, hidden) + batch.counts.sum() * 0.0

    def _read(self, x: Tensor) -> Tensor:
        return self.model.rate_head()(x[0]).exp()
