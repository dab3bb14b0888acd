"""The stream engine on CPU: causal NEDS, one bin at a time, through the Numba step."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import nn

from kernels import numba_pack, numba_step as kernel
from neds_core import offline
from neds_core.attention import attention
from neds_core.checkpoint import Checkpoint
from neds_core.embed import UnitTokenizer
from neds_core.model import NEDS, Block
from runtime.layout import Layout, layout
from runtime.token import Token


def _arrays(module: nn.Linear | nn.LayerNorm) -> tuple[np.ndarray, np.ndarray]:
    return module.weight.detach().numpy(), module.bias.detach().numpy()


def sinks(model: NEDS) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values (H, S, K) of the sinks in every layer: constants, because sinks see only sinks."""
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
    """Rows (U, D) and constant (D,): a bin's spike token is constant + sum of sqrt(count) row."""
    with torch.inference_mode():
        tokenizer = cast(UnitTokenizer, model.tokenizer())  # the stitcher is for full attention alone
        rows = tokenizer.rows * tokenizer.gain[:, None]
        return rows, tokenizer.bias - (tokenizer.mean * tokenizer.gain) @ tokenizer.rows + model.modality[0]


def packed(model: NEDS, weights: numba_pack.Precision) -> tuple[numba_pack.Stack, list[numba_pack.Layer]]:
    """The model's layers for the kernel, packed and as they are."""

    def layer(block: Block, sink: tuple[torch.Tensor, torch.Tensor]) -> numba_pack.Layer:
        return numba_pack.Layer(
            _arrays(block.norm_attention), _arrays(block.qkv), _arrays(block.out),
            _arrays(block.norm_mlp), _arrays(block.up), _arrays(block.down), sink[0].numpy(), sink[1].numpy(),
        )  # fmt: skip

    layers = [layer(block, sink) for block, sink in zip(model.layers, sinks(model), strict=True)]
    return numba_pack.pack(layers, _arrays(model.norm), model.config.heads, weights), layers


def decoded(
    model: NEDS, place: Layout, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray
) -> np.ndarray:
    """Values (T, V) of the offline forward over a log of what was stepped."""
    found = offline.decode(model, counts, valid, clock, offline.spans(reset))
    columns = [v[:, None] if v.ndim == 1 else v for v in found.values()]
    return np.concatenate(columns, axis=1) * place.scale + place.offset


class StreamEngine:
    """One cached spike token a bin and one query for each output; a step allocates nothing."""

    window_bins = 0

    def __init__(self, checkpoint: Checkpoint, weights: numba_pack.Precision = "float32") -> None:
        """weights: how they are stored; fewer bits pay where the model does not fit the processor's cache."""
        self.name = "stream-numba-cpu" if weights == "float32" else f"stream-numba-cpu-{weights}"
        self.checkpoint, self.layout = checkpoint, layout(checkpoint)
        model = self.model = checkpoint.model
        specs = model.specs
        self.stack, layers = packed(model, weights)
        self.cache = numba_pack.make_cache(layers, model.config.heads, model.config.band, slots=1)
        self.work = numba_pack.make_work(self.stack, self.cache, 1 + len(specs))
        self.width = model.config.width
        with torch.inference_mode():
            rows, constant = spike_rows(model)
            asked = torch.stack([model.mask_token + model.modality[m] for m in range(1, 1 + len(specs))])
            codes = torch.zeros(1, self.width) if model.clock is None else model.clock.weight
            self.rows, self.queries = rows.numpy().copy(), asked.numpy().copy()
            self.constants = (constant + codes).numpy().copy()  # (clock bins + 1, D)
            self.codes = codes.numpy().copy()
        heads = [_arrays(model.head(spec.name)) for spec in specs]
        self.head = np.concatenate([w for w, _ in heads]), np.concatenate([b for _, b in heads])
        self.asker = np.concatenate([np.full(len(b), m) for m, (_, b) in enumerate(heads)])
        classes = [self.layout.columns[spec.name] for spec in specs if spec.kind == "class"]
        self.groups = np.array([(c.start, c.stop) for c in classes], np.int64).reshape(-1, 2)
        self.values = np.zeros(self.layout.n_values, np.float32)
        self.position = 0

    def reset(self, position: int = 0) -> None:
        kernel.forget(self.cache)
        self.position = position

    def skip(self, n_bins: int) -> None:
        for position in range(self.position, self.position + min(n_bins, self.cache.band)):
            kernel.hide(self.cache, position, 0)
        self.position += n_bins

    def step(self, token: Token) -> np.ndarray:
        row = min(token.clock + 1, len(self.codes) - 1)
        n_keys, width = int(token.valid), self.width
        x = self.work.x
        if token.valid:
            kernel.ingest(token.counts, self.rows, self.constants[row], x[0])
        n_tokens = n_keys + len(self.queries)
        np.add(self.queries, self.codes[row], out=x[n_keys:n_tokens, :width])
        kernel.step(self.stack, self.cache, self.work, n_keys, n_tokens, self.position)
        kernel.read(x, n_keys, *self.head, self.asker, self.groups, self.values)
        self.values *= self.layout.scale
        self.values += self.layout.offset
        self.position += 1
        return self.values

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        return decoded(self.model, self.layout, counts, valid, clock, reset)
