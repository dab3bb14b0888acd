"""The stream engine in plain torch: the kernels' step is compared with it; it is several times slower."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kernels.reference import StreamCache, make_cache
from neds_core.checkpoint import Checkpoint
from neds_core.model.attention import rotary, rotate
from neds_core.model.model import NEDS
from runtime.core.values import Token
from runtime.engines.layout import layout
from runtime.engines.observed import Observed
from runtime.engines.stream_offline import StreamDecoder
from runtime.engines.stream_weights import filter_shares, sinks, spike_rows


def attend(q: Tensor, turned: Tensor, cache: StreamCache) -> Tensor:
    """`kernels.reference.stream_attention` for queries (H, Q, K), plain and rotated, of a bin that the cache holds."""
    scale, n_sinks = q.shape[-1] ** -0.5, cache.sink_k.shape[1]
    score = torch.where(cache.hidden, float("-inf"), (turned @ cache.k.mT) * scale)
    weight = torch.cat([(q @ cache.sink_k.mT) * scale, score], dim=-1).softmax(-1)
    return weight[..., :n_sinks] @ cache.sink_v + weight[..., n_sinks:] @ cache.v


class TorchStreamEngine(StreamDecoder):
    """One cached spike token a bin and one query for each output, in plain torch."""

    name = "stream-torch-cpu"
    window_bins = 0

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.layout = checkpoint, layout(checkpoint)
        self.observed = Observed(checkpoint, ())
        self.model: NEDS = checkpoint.model
        config = self.model.config
        self.head_width = config.width // config.heads
        caches = [make_cache(k, v, config.band, n_tokens=1) for k, v in sinks(self.model)]
        self.hidden = caches[0].hidden  # (W,) of every layer: all hide the same bins
        self.caches = [cache._replace(hidden=self.hidden) for cache in caches]
        self.values = np.zeros(self.layout.n_values, np.float32)
        self.keep = torch.from_numpy(filter_shares(self.model))[:, None]  # (K, 1)
        self.filters = torch.zeros(len(self.keep), len(checkpoint.units))
        self.position = 0
        with torch.inference_mode():
            self.rows, self.constant = spike_rows(self.model)
            ask = [self.model.mask_token + self.model.modality[m] for m in range(1, 1 + len(self.model.specs))]
            self.queries = torch.stack(ask)
            self.codes = torch.zeros(1, config.width) if self.model.clock is None else self.model.clock.weight

    def reset(self, position: int = 0) -> None:
        self.hidden.fill_(True)
        for cache in self.caches:  # a weight of 0 does not silence a NaN
            cache.k.zero_()
            cache.v.zero_()
        self.filters.zero_()
        self.position = position

    def skip(self, n_bins: int) -> None:
        band = self.model.config.band
        for position in range(self.position, self.position + min(n_bins, band)):
            self.hidden[position % band] = True
        for _ in range(n_bins):
            self.filters *= self.keep
        self.position += n_bins

    @torch.inference_mode()
    def step(self, token: Token) -> np.ndarray:
        code = self.codes[min(token.clock + 1, len(self.codes) - 1)]
        x = self.queries + code
        self.filters *= self.keep
        if token.valid:
            x = torch.cat([(self._spike(token.counts) + code)[None], x])
        table = rotary(torch.tensor([self.position]), self.head_width)
        slot = self.position % self.model.config.band
        self.hidden[slot] = not token.valid
        for block, cache in zip(self.model.layers, self.caches, strict=True):
            q, k, v = (part[0] for part in block.heads_of(x[None]))
            if token.valid:
                cache.k[:, slot], cache.v[:, slot] = rotate(k[:, 0], table), v[:, 0]
                if cache is self.caches[-1]:  # nothing reads the spike token after the last layer's key and value
                    q, x = q[:, 1:], x[1:]
            mixed = attend(q, rotate(q, table), cache)
            x = block.finish(x[None], mixed[None])[0]
        self._read(self.model.norm(x))
        self.position += 1
        return self.values

    def _spike(self, counts: np.ndarray) -> Tensor:
        """The spike token (D,) of counts (U,), without its code; they enter the filters."""
        shown = torch.from_numpy(counts.astype(np.float32))
        self.filters += (1.0 - self.keep) * shown
        features = torch.cat([shown[None], self.filters]).sqrt().flatten()
        active = features.nonzero()[:, 0]
        return features[active] @ self.rows[active] + self.constant

    def _read(self, x: Tensor) -> None:
        """Heads of the queries x (Q, D) into `values`, in units and probabilities."""
        for m, spec in enumerate(self.model.specs):
            y = self.model.heads[spec.name](x[m])
            y = y.softmax(-1) if spec.kind == "class" else y
            self.values[self.layout.columns[spec.name]] = y.numpy()
        self.values *= self.layout.scale
        self.values += self.layout.offset
