"""The published way with our architecture: every token of the window through every layer, anew for every bin."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neds_core.checkpoint import Checkpoint
from neds_core.model.attention import rotary, rotate
from neds_core.model.model import NEDS
from runtime.engines.layout import layout


class Window(nn.Module):
    """The last `bins` bins of a causal NEDS in one forward, right-aligned; values (V,) of the newest in units.

    Equal to the streaming step while no more than `bins` bins have passed since the reset. Behaviour is hidden in every
    bin, so its tokens are queries alone: keys are gathered from the spike tokens and the sinks, which costs a fifth of
    what the published pattern's keys cost at four behaviours. Shapes are static, for exporters.
    """

    def __init__(self, model: NEDS, made: Checkpoint, bins: int) -> None:
        """model: one of the checkpoint's networks, phase-free and without filters."""
        super().__init__()
        config = model.config
        if config.attention != "causal" or config.clock_bins or config.filter_taus_ms:
            raise ValueError("the window takes causal, phase-free networks without filters")
        self.model, self.n_outputs, self.n_sinks = model, len(model.specs), model.n_sinks
        at = torch.arange(bins).repeat_interleave(1 + self.n_outputs)
        age = at[:, None] - torch.arange(bins)
        self.unmet = nn.Buffer((age < 0) | (age >= config.band))  # (N, bins)
        cos, sin = rotary(at, config.width // config.heads)
        self.cos, self.sin = nn.Buffer(cos), nn.Buffer(sin)
        place = layout(made)
        self.scale, self.offset = nn.Buffer(torch.tensor(place.scale)), nn.Buffer(torch.tensor(place.offset))

    def forward(self, counts: Tensor, unseen: Tensor) -> Tensor:
        """counts (bins, U) float32; unseen (bins,) bool: bins before the reset."""
        model, n = self.model, 1 + self.n_outputs
        hidden = model.mask_token.expand(len(counts), self.n_outputs, -1)
        spikes = torch.where(unseen[:, None], model.mask_token, model.tokenizer()(counts))
        tokens = (torch.cat([spikes[:, None], hidden], dim=1) + model.modality).flatten(0, 1)
        x = torch.cat([model.sinks(0), tokens])[None]
        unmet = self.unmet | unseen
        for block in model.layers:
            x = block.finish(x, self._attend(*block.heads_of(x), unmet))
        last = model.norm(x[0, -self.n_outputs :])
        out = []
        for m, spec in enumerate(model.specs):
            y = model.head(spec.name)(last[m])
            out.append(y.softmax(-1) if spec.kind == "class" else y)
        assert n * len(counts) == len(self.unmet)
        return torch.cat(out) * self.scale + self.offset

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, unmet: Tensor) -> Tensor:
        """`neds_core.model.attention.attention` where only spike tokens are keys."""
        s, n, scale = self.n_sinks, 1 + self.n_outputs, q.shape[-1] ** -0.5
        table = self.cos, self.sin
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
        """call(counts (bins, U) float32, unseen (bins,) bool) -> values (V,)."""
        self.counts, self.unseen, self.call = np.zeros((bins, n_units), np.float32), np.ones(bins, bool), call

    def reset(self) -> None:
        """A trial begins: what was before it is out of the window."""
        self.unseen[:] = True

    def step(self, counts: np.ndarray) -> np.ndarray:
        """counts (n, U): the bins that closed at once, all enter, and the newest is decoded."""
        for row in counts:
            self.counts[:-1], self.unseen[:-1] = self.counts[1:], self.unseen[1:]
            self.counts[-1], self.unseen[-1] = row, False
        return np.asarray(self.call(self.counts, self.unseen))


def eager(module: nn.Module) -> Any:
    """A torch module as a call with arrays."""

    @torch.inference_mode()
    def call(counts: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(counts), torch.from_numpy(unseen)).numpy()

    return call
