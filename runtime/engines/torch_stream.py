"""The stream engine in plain torch: what the kernels' step is compared with, and several times slower."""

from __future__ import annotations

import numpy as np
import torch

from kernels import ring
from kernels.ring import Ring
from neds_core.checkpoint import Checkpoint
from neds_core.model.attention import rotary, rotate
from neds_core.model.model import NEDS, Block
from runtime.core.values import Token
from runtime.engines.layout import layout
from runtime.engines.stream import decoded
from runtime.engines.stream_weights import sinks, spike_rows


class TorchStreamEngine:
    """One cached spike token a bin and one query for each output, in plain torch."""

    name = "stream-torch-cpu"
    window_bins = 0

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.layout = checkpoint, layout(checkpoint)
        self.model: NEDS = checkpoint.model
        config = self.model.config
        self.head_width = config.width // config.heads
        self.rings = [Ring(config.heads, config.band, self.head_width) for _ in self.model.layers]
        self.values = np.zeros(self.layout.n_values, np.float32)
        self.position = 0
        with torch.inference_mode():
            self.rows, self.constant = spike_rows(self.model)
            ask = [self.model.mask_token + self.model.modality[m] for m in range(1, 1 + len(self.model.specs))]
            self.queries = torch.stack(ask)
            self.codes = torch.zeros(1, config.width) if self.model.clock is None else self.model.clock.weight
        self.sinks = sinks(self.model)

    def reset(self, position: int = 0) -> None:
        for r in self.rings:
            r.clear()
        self.position = position

    def skip(self, n_bins: int) -> None:
        band = self.model.config.band
        for slot in {(self.position + i) % band for i in range(min(n_bins, band))}:
            for r in self.rings:
                r.hide(slot)
        self.position += n_bins

    @torch.inference_mode()
    def step(self, token: Token) -> np.ndarray:
        code = self.codes[min(token.clock + 1, len(self.codes) - 1)]
        x = self.queries + code
        if token.valid:
            active = np.flatnonzero(token.counts)
            root = torch.from_numpy(np.sqrt(token.counts[active].astype(np.float32)))
            spike = root @ self.rows[torch.from_numpy(active)] + self.constant + code
            x = torch.cat([spike[None], x])
        table = rotary(torch.tensor([self.position]), self.head_width)
        slot = self.position % self.model.config.band
        last = len(self.rings) - 1
        for i, block in enumerate(self.model.layers):
            x = self._layer(i, block, x, table, slot, token.valid, drop_spike=i == last)
        self._read(self.model.norm(x))
        self.position += 1
        return self.values

    def _layer(
        self,
        i: int,
        block: Block,
        x: torch.Tensor,
        table: tuple[torch.Tensor, torch.Tensor],
        slot: int,
        visible: bool,
        drop_spike: bool,
    ) -> torch.Tensor:
        """One layer for the tokens of this bin, x (1 + Q, D) with the spike token first if visible."""
        q, k, v = (part[0] for part in block.heads_of(x[None]))
        if visible:
            self.rings[i].write(slot, rotate(k[:, 0], table), v[:, 0])
        else:
            self.rings[i].hide(slot)
        if visible and drop_spike:  # nothing reads the spike token after the last layer's key and value
            q, x = q[:, 1:], x[1:]
        mixed = ring.attend(q, rotate(q, table), self.rings[i], *self.sinks[i])
        return block.finish(x[None], mixed[None])[0]

    def _read(self, x: torch.Tensor) -> None:
        """Heads of the queries x (Q, D) into `values`, in units and probabilities."""
        for m, spec in enumerate(self.model.specs):
            y = self.model.heads[spec.name](x[m])
            y = y.softmax(-1) if spec.kind == "class" else y
            self.values[self.layout.columns[spec.name]] = y.numpy()
        self.values *= self.layout.scale
        self.values += self.layout.offset

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        return decoded(self.model, self.layout, counts, valid, clock, reset)
