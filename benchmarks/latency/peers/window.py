"""The published way with our architecture: every token of the window through every layer, anew for every bin.

A window holds the bins since the reset, up to its full length, and nothing is computed for what is not there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neds_core.checkpoint import Checkpoint
from neds_core.model.attention import rotary, rotate
from neds_core.model.model import NEDS
from runtime.engines.layout import layout

LEAST = 2  # bins of a window


class Window(nn.Module):
    """The last n <= `bins` bins of a causal NEDS in one forward; values (V,) of the newest in units.

    Equal to the streaming step while no more than `bins` bins have passed since the reset, then to one that was reset
    `bins` bins ago. Behaviour is hidden in every bin, so its tokens are queries alone: keys are gathered from the spike
    tokens and the sinks, which costs a fifth of what the published pattern's keys cost at four behaviours. n is a
    dynamic dimension for exporters.
    """

    def __init__(self, model: NEDS, made: Checkpoint, bins: int) -> None:
        """model: one of the checkpoint's networks, phase-free and without filters."""
        super().__init__()
        config = model.config
        if config.attention != "causal" or config.clock_bins or config.filter_taus_ms:
            raise ValueError("the window takes causal, phase-free networks without filters")
        self.model, self.n_outputs, self.n_sinks = model, len(model.specs), model.n_sinks
        rows = torch.arange(bins + 1)  # one more than is used: a slice of all rows would be another case for exporters
        at = rows.repeat_interleave(1 + self.n_outputs)
        age = at[:, None] - rows
        self.unmet = nn.Buffer((age < 0) | (age >= config.band))  # (N, bins + 1)
        cos, sin = rotary(at, config.width // config.heads)
        self.cos, self.sin = nn.Buffer(cos), nn.Buffer(sin)
        place = layout(made)
        self.scale, self.offset = nn.Buffer(torch.tensor(place.scale)), nn.Buffer(torch.tensor(place.offset))

    def forward(self, counts: Tensor, unseen: Tensor) -> Tensor:
        """counts (n, U) float32, oldest first; unseen (n,) bool: bins before the reset."""
        model, bins = self.model, counts.shape[0]  # len() would fix it for an exporter
        n = bins * (1 + self.n_outputs)
        hidden = model.mask_token.expand(bins, self.n_outputs, -1)
        spikes = torch.where(unseen[:, None], model.mask_token, model.tokenizer()(counts))
        tokens = (torch.cat([spikes[:, None], hidden], dim=1) + model.modality).flatten(0, 1)
        x = torch.cat([model.sinks(0), tokens])[None]
        unmet, table = self.unmet[:n, :bins] | unseen, (self.cos[:n], self.sin[:n])
        for block in model.layers:
            x = block.finish(x, self._attend(*block.heads_of(x), unmet, table))
        last = model.norm(x[0, -self.n_outputs :])
        out = []
        for m, spec in enumerate(model.specs):
            y = model.head(spec.name)(last[m])
            out.append(y.softmax(-1) if spec.kind == "class" else y)
        return torch.cat(out) * self.scale + self.offset

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, unmet: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        """`neds_core.model.attention.attention` where only spike tokens are keys."""
        s, n, scale = self.n_sinks, 1 + self.n_outputs, q.shape[-1] ** -0.5
        to_sink = (q @ k[:, :, :s].mT) * scale
        keys, values = rotate(k[:, :, s:], table)[:, :, ::n], v[:, :, s::n]
        score = (rotate(q[:, :, s:], table) @ keys.mT * scale).masked_fill(unmet, float("-inf"))
        weight = torch.cat([to_sink[:, :, s:], score], dim=-1).softmax(-1)
        mixed = weight[..., :s] @ v[:, :, :s] + weight[..., s:] @ values
        return torch.cat([to_sink[:, :, :s].softmax(-1) @ v[:, :, :s], mixed], dim=2)


class Mean(nn.Module):
    """The mean of several windows: an ensemble."""

    def __init__(self, made: Checkpoint, bins: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Window(network, made, bins) for network in made.networks)

    def forward(self, counts: Tensor, unseen: Tensor) -> Tensor:
        return torch.stack([part(counts, unseen) for part in self.parts]).mean(0)


class Recompute:
    """The loop's side of it: a rolling window of counts, and one call for the newest bin."""

    def __init__(self, bins: int, n_units: int, call: Any) -> None:
        """call(counts (n, U) float32, unseen (n,) bool) -> values (V,), for n from `LEAST` to bins, those since the
        reset: exporters take no single bin for a dynamic length."""
        self.counts, self.unseen, self.call = np.zeros((bins, n_units), np.float32), np.ones(bins, bool), call
        self.seen = 0

    def reset(self) -> None:
        """A trial begins: what was before it is out of the window."""
        self.unseen[:], self.seen = True, 0

    def step(self, counts: np.ndarray) -> np.ndarray:
        """counts (n, U): the bins that closed at once, all enter, and the newest is decoded."""
        for row in counts:
            self.counts[:-1], self.unseen[:-1] = self.counts[1:], self.unseen[1:]
            self.counts[-1], self.unseen[-1] = row, False
        self.seen = min(len(self.counts), self.seen + len(counts))
        n = max(self.seen, LEAST)
        return np.asarray(self.call(self.counts[-n:], self.unseen[-n:]))


def eager(module: nn.Module) -> Any:
    """A torch module as a call with arrays."""

    @torch.inference_mode()
    def call(counts: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(counts), torch.from_numpy(unseen)).numpy()

    return call
