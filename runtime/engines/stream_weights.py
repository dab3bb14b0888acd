"""What the CPU's stream engines share: a causal checkpoint packed once, and a step over a cache for each engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn

from kernels.cpu import pack as packing, step as kernel
from kernels.cpu.pack import Ends, Layer, Members, Parts, Precision, Stack
from neds_core.model.attention import attention
from neds_core.model.embed import UnitTokenizer
from neds_core.model.model import NEDS, Block

NO_COUNTS = np.zeros(0, np.uint16)


def arrays(module: nn.Linear | nn.LayerNorm) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias, the same memory."""
    return module.weight.detach().numpy(), module.bias.detach().numpy()


def sinks(model: NEDS) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values (H, S, K) of the sinks in every layer: constants, because sinks attend only to sinks."""
    with torch.inference_mode():
        x = model.sinks(0)[None]
        none = torch.zeros((1, x.shape[1]), dtype=torch.bool)
        position = torch.zeros(x.shape[1], dtype=torch.int64)
        found = []
        for block in model.layers:
            _, k, v = block.heads_of(x)
            found.append((k[0].contiguous(), v[0].contiguous()))
            x = block(x, position, none, model.n_sinks, attention)
    return found


def spike_rows(model: NEDS) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows ((1 + K) U, D) and constant (D,): a bin's spike token is constant + sum of sqrt(count) row.

    Behind the rows of the counts are those of the square roots of each of K filters.
    """
    with torch.inference_mode():
        tokenizer = cast(UnitTokenizer, model.tokenizer())  # the stitcher is for full attention alone
        mean, gain = tokenizer.scale()
        mean, gain, rows = mean.double(), gain.double(), tokenizer.rows.double()  # large sums that nearly cancel
        constant = tokenizer.bias - (mean * gain) @ rows + model.modality[0]
        return (rows * gain[:, None]).float(), constant.float()


def filter_shares(model: NEDS) -> np.ndarray:
    """(K,) float32: what each filter of the spike token keeps from bin to bin; K = 0 without filters."""
    found = model.tokenizer().filters()
    return np.zeros(0, np.float32) if found is None else found.keep


@dataclass(frozen=True, slots=True)
class StreamWeights:
    """Packed layers, and the tokens that enter them.

    rows ((1 + K) U, D), see `spike_rows`, and constants (C, D): a spike token is constants[c] + sum of sqrt(count) row
    at clock row c, whose code is codes[c] (C, D). asked (1 + M, D): the query of each modality, without its code.
    keep (K,): see `filter_shares`.
    """

    layers: list[Layer]
    stack: Stack
    rows: np.ndarray
    constants: np.ndarray
    asked: np.ndarray
    codes: np.ndarray
    keep: np.ndarray

    @property
    def n_units(self) -> int:
        """U."""
        return len(self.rows) // (1 + len(self.keep))

    def clock_row(self, clock: int) -> int:
        """The row of `codes` and `constants` for a clock of the token."""
        return min(clock + 1, len(self.codes) - 1)


def pack(model: NEDS, precision: Precision) -> StreamWeights:
    """A model's weights for the kernel. precision: how those of the layers are stored."""

    def layer(block: Block, sink: tuple[torch.Tensor, torch.Tensor]) -> Layer:
        return Layer(
            arrays(block.norm_attention), arrays(block.qkv), arrays(block.out),
            arrays(block.norm_mlp), arrays(block.up), arrays(block.down), sink[0].numpy(), sink[1].numpy(),
        )  # fmt: skip

    layers = [layer(block, sink) for block, sink in zip(model.layers, sinks(model), strict=True)]
    with torch.inference_mode():
        rows, constant = spike_rows(model)
        asked = model.mask_token + model.modality
        codes = torch.zeros(1, model.config.width) if model.clock is None else model.clock.weight
        return StreamWeights(
            layers, packing.pack(layers, arrays(model.norm), model.config.heads, precision),
            rows.numpy().copy(), (constant + codes).numpy().copy(), asked.numpy().copy(), codes.numpy().copy(),
            filter_shares(model).copy(),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Heads:
    """What is read behind the last norm, for V outputs: see `kernels.cpu.pack.Ends`."""

    weight: np.ndarray  # (V, D)
    bias: np.ndarray  # (V,)
    query: np.ndarray  # (V,) int64
    groups: np.ndarray  # (G, 2) int64
    scale: np.ndarray  # (V,)
    offset: np.ndarray  # (V,)


class Stepper:
    """The kernel's step with a cache and buffers of its own, and the position of the bin to come."""

    def __init__(self, weights: StreamWeights, band: int, slots: int, asked: np.ndarray, heads: Heads) -> None:
        """slots: keys that a bin may add; asked (Q, D): its queries. `values` (V,) holds the last step's outputs."""
        self.cache = packing.make_cache(weights.layers, weights.stack.heads, band, slots)
        self.work = packing.make_work(weights.stack, self.cache, slots + len(asked))
        self.values = np.zeros(len(heads.bias), np.float32)
        self.filters = np.zeros((len(weights.keep), weights.n_units), np.float32)
        self._parts = Parts(weights.stack, self.cache, self.work)
        self._ends = Ends(
            weights.keep, self.filters, np.zeros(len(weights.rows), np.float32),
            weights.rows, weights.constants, weights.codes, asked, heads.weight, heads.bias, heads.query, heads.groups,
            heads.scale, heads.offset, self.values,
        )  # fmt: skip
        self.position = 0

    def reset(self, position: int) -> None:
        """Forget every key, and all that filters hold."""
        kernel.forget(self.cache)
        self.filters.fill(0.0)
        self.position = position

    def skip(self, n_bins: int) -> None:
        """Bins without a key, and without spikes to the filters."""
        for _ in range(n_bins if len(self.filters) else 0):
            kernel.follow(self._ends, NO_COUNTS, False)
        for position in range(self.position, self.position + min(n_bins, self.cache.band)):
            kernel.hide(self.cache, position, 0)
        self.position += n_bins

    def step(self, counts: np.ndarray, spikes: bool, n_seen: int, row: int) -> None:
        """One bin: see `kernels.cpu.step.decode`."""
        kernel.decode(self._parts, self._ends, counts, spikes, n_seen, row, self.position)
        self.position += 1

    def rehearse(self) -> None:
        """The step of the bin to come without its spikes: it changes nothing that a step reads while the cache
        is finite (one that is not is reset before the next step)."""
        kernel.decode(self._parts, self._ends, NO_COUNTS, True, 0, kernel.REHEARSAL, self.position)


class Steppers:
    """The steps of several models of one shape, at one position, in one call of compiled code."""

    def __init__(self, steppers: Sequence[Stepper]) -> None:
        self.steppers = tuple(steppers)
        self._members = Members(tuple((one._parts, one._ends) for one in self.steppers))

    def step(self, counts: np.ndarray, spikes: bool, row: int) -> None:
        """One bin, without observed behaviour: see `kernels.cpu.step.decode`."""
        kernel.decode_each(self._members, counts, spikes, row, self.steppers[0].position)
        for one in self.steppers:
            one.position += 1

    def rehearse(self) -> None:
        """`Stepper.rehearse` of each."""
        kernel.decode_each(self._members, NO_COUNTS, True, kernel.REHEARSAL, self.steppers[0].position)
