"""One streaming attention step over a ring of cached keys, in plain torch: the streaming specification.

Twin of the offline banded attention: the same queries meet the same keys, one bin at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Ring:
    """Rotated keys and values of the last W visible tokens of one layer.

    k, v (H, W, K) float32; visible (W,) bool. One slot a bin, overwritten W bins later, so
    eviction is the band itself. A bin without live data leaves its slot invisible.
    """

    def __init__(self, heads: int, band: int, head_width: int) -> None:
        self.k = torch.zeros(heads, band, head_width)
        self.v = torch.zeros(heads, band, head_width)
        self.visible = torch.zeros(band, dtype=torch.bool)

    def clear(self) -> None:
        """Forget everything: a cold start. Values too, because a weight of 0 does not silence a NaN."""
        for part in (self.k, self.v, self.visible):
            part.zero_()

    def write(self, slot: int, k: Tensor, v: Tensor) -> None:
        """Store the bin's rotated key and value, each (H, K)."""
        self.k[:, slot] = k
        self.v[:, slot] = v
        self.visible[slot] = True

    def hide(self, slot: int) -> None:
        """The bin has no live data: no key at its position."""
        self.visible[slot] = False


def attend(q: Tensor, q_rotated: Tensor, ring: Ring, sink_k: Tensor, sink_v: Tensor) -> Tensor:
    """Queries of one bin over the visible ring slots and the sinks.

    q, q_rotated (H, Q, K): sinks (H, S, K) are met un-rotated, ring slots rotated. Returns (H, Q, K).
    """
    scale = q.shape[-1] ** -0.5
    score = torch.where(ring.visible, (q_rotated @ ring.k.transpose(-1, -2)) * scale, float("-inf"))
    sinks = (q @ sink_k.transpose(-1, -2)) * scale
    weight = torch.cat([sinks, score], dim=-1).softmax(-1)
    n_sinks = sink_k.shape[1]
    return weight[..., :n_sinks] @ sink_v + weight[..., n_sinks:] @ ring.v
