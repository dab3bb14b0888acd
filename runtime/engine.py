"""Engines: one contract, `step(token) -> values (V,)`, and the offline twin each is held to."""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol, cast

import numpy as np
import torch

from kernels import ring
from kernels.ring import Ring
from neds_core import linear, offline
from neds_core.attention import attention, rotary, rotate
from neds_core.checkpoint import Checkpoint
from neds_core.embed import UnitTokenizer
from neds_core.errors import ConfigError
from neds_core.linear import BankState
from neds_core.model import NEDS, Block
from runtime.layout import Layout, layout
from runtime.token import Token


class Engine(Protocol):
    """What the pipeline needs of a decoder."""

    name: str
    layout: Layout

    def reset(self, position: int = 0) -> None:
        """Start cold at a position."""
        ...

    def step(self, token: Token) -> np.ndarray:
        """Take in one bin; returns values (V,) float32, reused by the next step."""
        ...

    def skip(self, n_bins: int) -> None:
        """Bins that were never seen: the position advances, nothing is remembered of them."""
        ...

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        """The same values (T, V) computed at once from a log of what was stepped."""
        ...


def spans(reset: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) rows between cold starts; row 0 always starts one."""
    starts = np.flatnonzero(reset)
    edges = [0, *(int(s) for s in starts if s > 0), len(reset)]
    return list(pairwise(edges))


class StreamEngine:
    """Causal NEDS, one bin at a time: one cached spike token and one query for each output."""

    name = "stream-torch-cpu"

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.layout = checkpoint, layout(checkpoint)
        self.model: NEDS = checkpoint.model
        config = self.model.config
        self.head_width = config.width // config.heads
        self.rings = [Ring(config.heads, config.band, self.head_width) for _ in self.model.layers]
        self.values = np.zeros(self.layout.n_values, np.float32)
        self.position = 0
        with torch.inference_mode():
            tokenizer = cast(UnitTokenizer, self.model.tokenizer())  # the stitcher is for full attention alone
            self.rows = tokenizer.rows * tokenizer.gain[:, None]
            self.constant = tokenizer.bias - (tokenizer.mean * tokenizer.gain) @ tokenizer.rows + self.model.modality[0]
            ask = [self.model.mask_token + self.model.modality[m] for m in range(1, 1 + len(self.model.specs))]
            self.queries = torch.stack(ask)
            self.codes = torch.zeros(1, config.width) if self.model.clock is None else self.model.clock.weight
            self.sinks = self._sink_layers()

    def _sink_layers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of the sinks in every layer: constants, because sinks see only sinks."""
        x = self.model.sinks(0)[None]
        none = torch.zeros((1, x.shape[1]), dtype=torch.bool)
        position = torch.zeros(x.shape[1], dtype=torch.int64)
        found = []
        for block in self.model.layers:
            _, k, v = block.heads_of(x)
            found.append((k[0].contiguous(), v[0].contiguous()))
            x = block(x, position, none, self.model.n_sinks, attention)
        return found

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
        decoded = offline.decode(self.model, counts, valid, clock, spans(reset))
        columns = [v[:, None] if v.ndim == 1 else v for v in decoded.values()]
        return np.concatenate(columns, axis=1) * self.layout.scale + self.layout.offset


class LinearEngine:
    """The causal ridge (and logistic for classes) stored with a checkpoint."""

    name = "linear-numpy-cpu"

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.layout = checkpoint, layout(checkpoint)
        n_units, bin_ns = len(checkpoint.units), checkpoint.header.bin_ns
        self.kept = checkpoint.scalers.kept
        self.banks = {m.bank: BankState(m.bank, n_units, bin_ns) for m in checkpoint.linear.values()}
        self.values = np.zeros(self.layout.n_values, np.float32)

    def reset(self, position: int = 0) -> None:
        for bank in self.banks.values():
            bank.reset()

    def skip(self, n_bins: int) -> None:
        zeros = np.zeros(len(self.kept), np.float32)
        for _ in range(n_bins):
            for bank in self.banks.values():
                bank.step(zeros, -1)

    def step(self, token: Token) -> np.ndarray:
        counts = np.where(self.kept & token.valid, token.counts, 0).astype(np.float32)
        found = {bank: state.step(counts, token.clock) for bank, state in self.banks.items()}
        for spec in self.layout.specs:
            model = self.checkpoint.linear[spec.name]
            self._place(spec.name, spec.kind, model.apply(found[model.bank]), self.values)
        return self.values

    def _place(self, name: str, kind: str, y: np.ndarray, out: np.ndarray) -> None:
        if kind == "class":
            y = np.exp(y - y.max(-1, keepdims=True))
            y = y / y.sum(-1, keepdims=True)
        out[..., self.layout.columns[name]] = y

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        shown = np.where(self.kept & valid[:, None], counts, 0).astype(np.float32)
        bin_ns = self.checkpoint.header.bin_ns
        found = {bank: linear.features(bank, shown, clock, reset, bin_ns) for bank in self.banks}
        out = np.zeros((len(counts), self.layout.n_values), np.float32)
        for spec in self.layout.specs:
            model = self.checkpoint.linear[spec.name]
            self._place(spec.name, spec.kind, model.apply(found[model.bank]), out)
        return out


class BlendEngine:
    """A fixed average of NEDS and the linear decoder, its weights chosen on validation."""

    name = "blend"

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.parts = (StreamEngine(checkpoint), LinearEngine(checkpoint))
        self.layout = self.parts[0].layout
        self.share = np.zeros(self.layout.n_values, np.float32)
        for name, column in self.layout.columns.items():
            self.share[column] = checkpoint.header.blend[name]
        self.values = np.zeros(self.layout.n_values, np.float32)

    def reset(self, position: int = 0) -> None:
        for part in self.parts:
            part.reset(position)

    def skip(self, n_bins: int) -> None:
        for part in self.parts:
            part.skip(n_bins)

    def step(self, token: Token) -> np.ndarray:
        ours, theirs = (part.step(token) for part in self.parts)
        np.copyto(self.values, self.share * ours + (1.0 - self.share) * theirs)
        return self.values

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        ours, theirs = (part.offline(counts, valid, clock, reset) for part in self.parts)
        return self.share * ours + (1.0 - self.share) * theirs


ENGINES: dict[str, type[StreamEngine] | type[LinearEngine] | type[BlendEngine]] = {
    "neds": StreamEngine,
    "ridge": LinearEngine,
    "blend": BlendEngine,
}


def create(checkpoint: Checkpoint, decoder: str) -> StreamEngine | LinearEngine | BlendEngine:
    """The engine of a decoder name: neds, ridge or blend."""
    if decoder not in ENGINES:
        raise ConfigError(f"decoder {decoder!r} is not known; choose one of {', '.join(ENGINES)}")
    if decoder != "neds" and not checkpoint.linear:
        raise ConfigError(
            f"checkpoint {checkpoint.header.name!r} holds no linear decoder; train one with neds-rt train"
        )
    if decoder != "ridge" and checkpoint.header.config.model.attention == "full":
        raise ConfigError(
            f"checkpoint {checkpoint.header.name!r} reads whole windows in both directions (attention 'full') and "
            "cannot be streamed; choose --decoder ridge, or train with attention = 'causal'"
        )
    return ENGINES[decoder](checkpoint)


def warm_up(engine: Engine, n_units: int, steps: int = 50) -> None:
    """Run dense and empty bins through every path, then start cold: nothing is first on the rig."""
    for i in range(steps):
        counts = np.full(n_units, i % 3, np.uint16)
        engine.step(Token(i, 0, counts, valid=i % 5 != 0, clock=i))
    engine.skip(3)
    engine.reset()
