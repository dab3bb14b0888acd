"""The fused layer in Triton against its specification; run by `test_triton.py` in a process of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from kernels import reference
from kernels.gpu.block import block_calls, rows_of, slice_units, units_at_once
from kernels.gpu.tiles import next_power_of_2
from kernels.reference import BlockWeights, StreamCache, make_cache

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# float32 sums of up to some hundred terms in another order, of values of about 1
CLOSE = {"atol": 2e-5, "rtol": 2e-5}


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights_of(width: int, mlp: int, dtype: torch.dtype = torch.float32) -> BlockWeights:
    """Random weights that keep values at about 1."""
    shapes = ((width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,), (width,), (width,),
              (mlp, width), (mlp,), (mlp, width), (width,))  # fmt: skip
    fan_in = (1, 1, width, 1, width, 1, 1, 1, width, 1, mlp, 1)
    made = (drawn(i, *shape) * n**-0.5 for i, (shape, n) in enumerate(zip(shapes, fan_in, strict=True)))
    return BlockWeights(*(x.to(DEVICE, dtype) for x in made))


def cache_of(heads: int, head_width: int, band: int, n_tokens: int, dtype: torch.dtype = torch.float32) -> StreamCache:
    sinks = drawn(99, 2, heads, 2, head_width).to(DEVICE, dtype)
    return make_cache(sinks[0], sinks[1], band, n_tokens)


def launched(parts: Tensor, weights: BlockWeights, cache: StreamCache, position: Tensor, hidden: Tensor) -> Tensor:
    """The kernels' answer (T, D), every buffer between them full of NaN before."""
    calls, out = block_calls(parts, weights, cache, position=position, hidden=hidden)
    for call in calls:
        call.arguments["p_out"].fill_(torch.nan)
    for call in calls:
        call.launch()
    return out.sum(0)


@pytest.mark.slow
@settings(max_examples=6)
@given(
    seed=st.integers(0, 2**31),
    heads=st.sampled_from([1, 2, 5]),
    head_width=st.sampled_from([8, 16, 22]),
    mlp=st.sampled_from([1, 31, 64, 70]),
    n_tokens=st.integers(1, 16),
    n_parts=st.integers(1, 9),
    start=st.sampled_from([0, 10**7]),
)
def test_any_shape(seed: int, heads: int, head_width: int, mlp: int, n_tokens: int, n_parts: int, start: int) -> None:
    """Three bins of any sizes, through a cache of two: outputs and cache, bin by bin."""
    width = heads * head_width
    weights = weights_of(width, mlp)
    mine, theirs = (cache_of(heads, head_width, 2, n_tokens) for _ in "ab")
    for t in range(3):
        parts = drawn(seed + t, n_parts, n_tokens, width).to(DEVICE)
        hidden = (drawn(seed - t, n_tokens) < 0).to(DEVICE)
        position = torch.tensor([start + t], device=DEVICE)

        got = launched(parts, weights, mine, position, hidden)

        expected = reference.stream_block(parts, weights, theirs, position=position, hidden=hidden)[0]
        torch.testing.assert_close(got, expected, **CLOSE)
    assert torch.equal(mine.hidden, theirs.hidden)
    torch.testing.assert_close(mine.k[:, ~mine.hidden], theirs.k[:, ~mine.hidden], **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("width", "heads", "mlp"), [(64, 4, 128), pytest.param(256, 8, 512, marks=pytest.mark.slow)])
def test_shipped_sizes(width: int, heads: int, mlp: int, dtype: torch.dtype) -> None:
    """Three tokens a bin over a filled band of 2 s."""
    weights, cache = weights_of(width, mlp, dtype), cache_of(heads, width // heads, 100, 3, dtype)
    cache.k.copy_(drawn(1, *cache.k.shape))
    cache.v.copy_(drawn(2, *cache.v.shape))
    cache.hidden.copy_(drawn(3, 300) < 0)
    same = cache._replace(k=cache.k.clone(), v=cache.v.clone(), hidden=cache.hidden.clone())
    parts, position = drawn(4, 8, 3, width).to(DEVICE), torch.tensor([10**7 + 42], device=DEVICE)
    hidden = torch.tensor([False, True, False], device=DEVICE)

    got = launched(parts, weights, cache, position, hidden)

    expected = reference.stream_block(parts, weights, same, position=position, hidden=hidden)[0]
    # float16: queries, keys, values and mixed values rounded to 2^-11 of up to about 4
    close = CLOSE if dtype == torch.float32 else {"atol": 6e-3, "rtol": 0.0}
    torch.testing.assert_close(got, expected, **close)


@pytest.mark.filterwarnings("ignore:All-NaN slice")  # of the interpreter's maximum
def test_a_poisoned_row_poisons_no_other() -> None:
    """A hidden token of NaN stays alone: rows share nothing but the keys."""
    weights, hidden = weights_of(32, 48), torch.tensor([False, True, False], device=DEVICE)
    parts, position = drawn(0, 2, 3, 32).to(DEVICE), torch.zeros(1, dtype=torch.int64, device=DEVICE)
    clean = launched(parts, weights, cache_of(2, 16, 4, 3), position, hidden)
    parts[0, 1, 5] = torch.nan

    got = launched(parts, weights, cache_of(2, 16, 4, 3), position, hidden)

    assert got[1].isnan().all()
    assert torch.equal(got[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("n_tokens", range(1, 17))
@pytest.mark.parametrize("width", [1, 32, 60, 64, 256, 300, 512])
def test_the_tables_divide(n_tokens: int, width: int) -> None:
    """A tile covers its rows, and weight rows at once divide what a block takes."""
    rows = rows_of(n_tokens, width)

    assert rows.rows == next_power_of_2(n_tokens)
    assert rows.steps * rows.lanes == rows.width >= width
    at_once = units_at_once(width)
    assert all(slice_units(mlp) % at_once == 0 for mlp in (1, 256, 257, 1024, 2048))
