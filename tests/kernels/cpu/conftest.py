"""What the tests of the Numba step share: random layers, and a product with panels by row, token and column."""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import pytest
import torch
from torch import nn

from kernels.cpu import pack
from kernels.cpu.jit import FLAGS
from kernels.cpu.pack import Layer, Precision, Stack
from kernels.cpu.tiles import product
from kernels.cpu.vectors import LANES, at
from neds_core.config import ModelConfig
from neds_core.model.attention import attention
from neds_core.model.model import Block


def _random_blocks(layers: int, heads: int, head_width: int, band: int, mlp_ratio: int, seed: int) -> list[Block]:
    """Blocks with weights of ordinary size, norms that are not the identity, in evaluation mode."""
    torch.manual_seed(seed)
    size = ModelConfig(width=heads * head_width, layers=layers, heads=heads, band=band, mlp_ratio=mlp_ratio)
    blocks = [Block(size).eval().requires_grad_(False) for _ in range(layers)]
    for block in blocks:
        for norm in (block.norm_attention, block.norm_mlp):
            nn.init.normal_(norm.weight, 1.0, 0.2)
            nn.init.normal_(norm.bias, 0.0, 0.2)
    return blocks


def _arrays(module: nn.Linear | nn.LayerNorm) -> tuple[np.ndarray, np.ndarray]:
    return module.weight.detach().numpy(), module.bias.detach().numpy()


def _kernel_layers(blocks: list[Block], sinks: torch.Tensor) -> list[Layer]:
    """The blocks' weights, and the sinks' keys and values as they pass through them."""
    found, x = [], sinks[None]
    n = x.shape[1]
    for block in blocks:
        _, k, v = block.heads_of(x)
        parts = [_arrays(m) for m in (block.norm_attention, block.qkv, block.out, block.norm_mlp, block.up, block.down)]
        found.append(Layer(*parts, k[0].numpy(), v[0].numpy()))  # pyright: ignore[reportCallIssue]
        x = block(x, torch.zeros(n, dtype=torch.int64), torch.zeros((1, n), dtype=torch.bool), n, attention)
    return found


@pytest.fixture(scope="session")
def random_blocks() -> Callable[..., list[Block]]:
    """Builder of blocks: layers, heads, head_width, band, mlp_ratio, seed."""
    return _random_blocks


@pytest.fixture(scope="session")
def kernel_layers() -> Callable[..., list[Layer]]:
    """Builder of layers, from blocks and sinks (S, D)."""
    return _kernel_layers


@pytest.fixture(scope="session")
def small() -> Callable[..., tuple[list[Layer], Stack]]:
    """Builder of two layers of three heads and their packed form; the widths are no multiples of a vector."""

    def make(half: int, precision: Precision = "float32") -> tuple[list[Layer], Stack]:
        heads, width = 3, 6 * half
        layers = _kernel_layers(_random_blocks(2, heads, 2 * half, 5, 2, seed=0), torch.randn(2, width))
        norm = np.ones(width, np.float32), np.zeros(width, np.float32)
        return layers, pack.pack(layers, norm, heads, precision)

    return make


# as the step is compiled: these flags reach the vector instructions too
@numba.njit(fastmath=FLAGS, error_model="numpy")
def _times_panels(w, row, n_rows, x, token, n_tokens, column, y, out):
    """y[token + t, out + r] = w[row + r] . x[token + t, column:]; beside int8 what `shortened` made of x."""
    parts, n_panels, columns, width = w.shape
    panel = columns * width
    product(
        at(w, row // LANES * panel), panel, n_panels * panel, parts * columns, n_rows // LANES,
        at(x, token * x.shape[1] + column), x.shape[1], n_tokens,
        at(y, token * y.shape[1] + out), y.shape[1],
    )  # fmt: skip


@pytest.fixture(scope="session")
def times_panels() -> Callable[..., None]:
    """The product of some rows, tokens and columns: see `_times_panels`."""
    return _times_panels


def _by_row(w: np.ndarray) -> np.ndarray:
    """The inverse of `in_parts`."""
    *outer, parts, _, columns, _ = w.shape
    together = 2 if w.dtype == np.int8 else 1
    if w.dtype == np.uint8:
        low, middle, high = np.moveaxis(w.reshape(*w.shape[:-1], LANES, 3).astype(np.int32), -1, 0)
        w = low | middle << 8 | high.astype(np.int8).astype(np.int32) << 16
    pieces = w.reshape(*outer, parts, -1, columns // together, LANES, together).swapaxes(-3, -2)
    return np.moveaxis(pieces, -5, -3).reshape(*outer, -1, parts * columns)


@pytest.fixture(scope="session")
def by_row() -> Callable[[np.ndarray], np.ndarray]:
    """The inverse of `in_parts`."""
    return _by_row
