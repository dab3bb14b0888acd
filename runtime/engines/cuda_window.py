"""The window engine on a CUDA GPU: static buffers, and one CUDA graph."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from kernels.attention import attention
from neds_core.checkpoint import Checkpoint
from neds_core.model import offline
from neds_core.model.model import NEDS, Batch
from runtime.core.values import Token
from runtime.engines.cuda_graph import CUDA, Pair, Replayed
from runtime.engines.window import WindowEngine


class CudaWindowEngine(WindowEngine):
    """The window at its full length for every bin: later bins are not valid, so that they are no keys."""

    name = "window-triton-cuda"
    graphed = True

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device = CUDA,
        attend: Callable[..., Tensor] = attention,
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
