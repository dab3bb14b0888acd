"""The streaming step in Triton against its specification; run by `test_triton.py` in a process of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from kernels import reference
from kernels.gpu.stream import step_call
from kernels.reference import StreamCache, make_cache

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLOSE = {"atol": 1e-5, "rtol": 0.0}  # float32 sums of some hundred terms in another order


def sinks(heads: int, n_sinks: int, head_width: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Keys and values (H, S, K)."""
    rng = torch.Generator().manual_seed(9)
    both = torch.randn(2, heads, n_sinks, head_width, generator=rng).to(DEVICE, dtype)
    return both[0], both[1]


def step(x: Tensor, cache: StreamCache, position: Tensor, hidden: Tensor) -> Tensor:
    """The kernel's answer into a buffer full of NaN; x (3, H, T, K)."""
    out = torch.full_like(x[0], torch.nan)
    step_call(x[0], x[1], x[2], cache, position=position, hidden=hidden, out=out).launch()
    return out


def drawn(seed: int, heads: int, n_tokens: int, head_width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Queries, keys and values (3, H, T, K) of a bin, as the model's projection lays them out."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n_tokens, 3, heads, head_width, generator=rng).to(DEVICE, dtype).permute(1, 2, 0, 3)


@settings(max_examples=4)
@given(
    seed=st.integers(0, 2**31),
    band=st.integers(1, 24),
    n_tokens=st.integers(1, 4),
    n_sinks=st.integers(0, 3),
    head_width=st.sampled_from([8, 16, 22, 32]),
    start=st.sampled_from([0, 5, 10**7]),
    n_bins=st.integers(1, 7),
)
def test_any_run(seed: int, band: int, n_tokens: int, n_sinks: int, head_width: int, start: int, n_bins: int) -> None:
    """Any band and pattern of hidden tokens, through wrap-around and eviction: outputs and cache, bin by bin."""
    both = sinks(2, n_sinks, head_width)
    mine, theirs = make_cache(*both, band, n_tokens), make_cache(*both, band, n_tokens)
    rng = torch.Generator().manual_seed(seed)
    for t in range(n_bins):
        x = drawn(seed + t, 2, n_tokens, head_width)
        position = torch.tensor([start + t], device=DEVICE)
        hidden = (torch.rand(n_tokens, generator=rng) < 0.4).to(DEVICE)

        got = step(x, mine, position, hidden)

        expected = reference.stream_attention(
            x[0], x[1], x[2], theirs, position=position, hidden=hidden, out=torch.empty_like(x[0])
        )
        torch.testing.assert_close(got, expected, **CLOSE)
    assert torch.equal(mine.hidden, theirs.hidden)
    torch.testing.assert_close(mine.k[:, ~mine.hidden], theirs.k[:, ~mine.hidden], **CLOSE)
    assert torch.equal(mine.v[:, ~mine.hidden], theirs.v[:, ~mine.hidden])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_full_ring_of_several_tiles(dtype: torch.dtype) -> None:
    """100 bins of 3 tokens, K = 128, what is hidden poisoned: only the other slots count."""
    cache = make_cache(*sinks(1, 2, 128, dtype), 100, 3)
    rng = torch.Generator().manual_seed(0)
    cache.k.copy_(torch.randn(cache.k.shape, generator=rng))
    cache.v.copy_(torch.randn(cache.v.shape, generator=rng))
    cache.hidden.copy_(torch.rand(300, generator=rng) < 0.5)
    same = cache._replace(k=cache.k.clone(), v=cache.v.clone(), hidden=cache.hidden.clone())
    cache.k.masked_fill_(cache.hidden[:, None], torch.nan)
    cache.v.masked_fill_(cache.hidden[:, None], torch.nan)
    x, position = drawn(1, 1, 3, 128, dtype), torch.tensor([10**7 + 42], device=DEVICE)
    hidden = torch.tensor([False, True, False], device=DEVICE)

    got = step(x, cache, position, hidden)

    expected = reference.stream_attention(
        x[0], x[1], x[2], same, position=position, hidden=hidden, out=torch.empty_like(x[0])
    )
    # float16: queries, keys and weights rounded to 2^-11 of values up to about 4
    close = CLOSE if dtype == torch.float32 else {"atol": 6e-3, "rtol": 0.0}
    torch.testing.assert_close(got, expected, **close)


def test_only_this_bins_slots_are_written() -> None:
    """A step leaves the rest of the cache and the sinks as they were, bit by bit."""
    cache = make_cache(*sinks(2, 2, 16), 5, 2)
    before = [x.fill_(0.5).clone() if x.is_floating_point() else x.clone() for x in cache]

    step(drawn(0, 2, 2, 16), cache, torch.tensor([13], device=DEVICE), torch.tensor([False, True], device=DEVICE))

    others = [slot for slot in range(10) if slot // 2 != 13 % 5]
    assert torch.equal(cache.k[:, others], before[0][:, others])
    assert torch.equal(cache.v[:, others], before[1][:, others])
    assert (~cache.hidden).nonzero().flatten().tolist() == [6]
    assert torch.equal(cache.sink_k, before[3])
    assert torch.equal(cache.sink_v, before[4])


def test_one_compilation_serves_every_bin() -> None:
    """Position and what is hidden are tensors: the launch is the same object's worth of numbers at any bin."""
    cache, x = make_cache(*sinks(2, 2, 16), 5, 2), drawn(0, 2, 2, 16)
    calls = [
        step_call(x[0], x[1], x[2], cache, position=torch.tensor([at]), hidden=torch.tensor(hidden), out=x[0])
        for at, hidden in ((0, [False, False]), (10**7, [True, False]))
    ]

    first, second = (
        {name: value for name, value in call.arguments.items() if not isinstance(value, Tensor)} for call in calls
    )

    assert first == second
    assert calls[0].grid == calls[1].grid
    assert calls[0].options == calls[1].options


@pytest.mark.skipif(DEVICE.type == "cpu", reason="CUDA graphs need a GPU")
def test_a_graph_replays_every_bin() -> None:
    """One captured launch, its inputs refilled in place, is the specification through wrap-around and eviction."""
    both, band, n_tokens = sinks(8, 2, 32), 7, 3
    cache, theirs = make_cache(*both, band, n_tokens), make_cache(*both, band, n_tokens)
    x, out = drawn(0, 8, n_tokens, 32), torch.empty(8, n_tokens, 32, device=DEVICE)
    position, hidden = torch.zeros(1, dtype=torch.int64, device=DEVICE), torch.zeros(3, dtype=torch.bool, device=DEVICE)
    call = step_call(x[0], x[1], x[2], cache, position=position, hidden=hidden, out=out)
    call.launch()
    cache.forget()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call.launch()
    for t in range(20):
        x.copy_(drawn(t, 8, n_tokens, 32))
        position.fill_(10**7 + t)
        hidden.copy_(torch.tensor([t % 5 == 0, t % 3 != 0, True]))
        out.fill_(torch.nan)

        graph.replay()

        expected = reference.stream_attention(
            x[0], x[1], x[2], theirs, position=position, hidden=hidden, out=torch.empty_like(x[0])
        )
        torch.testing.assert_close(out, expected, **CLOSE)
