"""The block-wise attention and its fast twin compute what the docstring says, pair by pair."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from neds_core.model import attention as plain, banded
from neds_core.model.attention import Attention

TWINS: tuple[Attention, ...] = (plain.attention, banded.attention)
QUERY_BLOCK = banded.QUERY_BLOCK  # of both

# Two float32 sums of some hundred terms against float64, with tables rounded to float32.
TOLERANCE = {"atol": 2e-5, "rtol": 2e-5}


def turned(x: np.ndarray, position: int) -> np.ndarray:
    """Rotary as the complex numbers it stands for: pair i of x (K,) turned by position / 10000^(2i/K)."""
    half = len(x) // 2
    return (x[:half] + 1j * x[half:]) * np.exp(1j * position * 10000.0 ** (-np.arange(half) / half))


def specified(q: Tensor, k: Tensor, v: Tensor, position: Tensor, hidden: Tensor, band: int, n_sinks: int) -> Tensor:
    """The rules of `attention`, one pair of tokens at a time, in float64."""
    q, k, v, position = (
        x.numpy().astype(np.float64 if x.is_floating_point() else np.int64) for x in (q, k, v, position)
    )
    out = np.zeros_like(q)
    for b, h, i in np.ndindex(q.shape[:3]):
        met: list[tuple[float, np.ndarray]] = []
        for j in range(q.shape[2]):
            age = int(position[i] - position[j])
            if j < n_sinks:
                met.append((q[b, h, i] @ k[b, h, j], v[b, h, j]))
            elif i >= n_sinks and 0 <= age < band and not hidden[b, j]:
                pair = turned(q[b, h, i], age) * turned(k[b, h, j], 0).conj()
                met.append((pair.sum().real, v[b, h, j]))
        weight = np.exp(np.array([score for score, _ in met]) / np.sqrt(q.shape[3]))
        out[b, h, i] = weight / weight.sum() @ np.stack([value for _, value in met])
    return torch.from_numpy(out).float()


def drawn(seed: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Random q, k, v (B, H, N, K)."""
    rng = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, *shape, generator=rng)
    return q, k, v


@given(
    seed=st.integers(0, 2**31),
    n_sinks=st.integers(1, 3),
    strides=st.lists(st.integers(0, 3), max_size=24),
    start=st.integers(0, 10**7),
    band=st.integers(1, 9),
    share=st.sampled_from([0.0, 0.4, 1.0]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 2), st.sampled_from([2, 4, 8])),
    alike=st.booleans(),
    short=st.sampled_from([0, banded.SHORT]),
)
@pytest.mark.parametrize("attention", TWINS)
def test_attention_is_its_specification(
    attention: Attention,
    alike: bool,
    short: int,
    seed: int,
    n_sinks: int,
    strides: list[int],
    start: int,
    band: int,
    share: float,
    shape: tuple[int, int, int],
) -> None:
    """For any size, band, position, gap and hidden pattern."""
    n = n_sinks + len(strides)
    q, k, v = drawn(seed, (shape[0], shape[1], n, shape[2]))
    position = torch.tensor([0] * n_sinks + (start + np.cumsum(strides)).tolist())
    hidden = torch.from_numpy(np.random.default_rng(seed).random((shape[0], n)) < share)
    if alike:
        hidden[1:] = hidden[0]

    with patch.object(banded, "SHORT", short):
        got = attention(q, k, v, position=position, hidden=hidden, band=band, n_sinks=n_sinks)

    torch.testing.assert_close(got, specified(q, k, v, position, hidden, band, n_sinks), **TOLERANCE)


@pytest.mark.parametrize("n_tokens", [QUERY_BLOCK - 1, QUERY_BLOCK, QUERY_BLOCK + 1, 2 * QUERY_BLOCK + 5])
@pytest.mark.parametrize(("band", "per_bin"), [(3, 4), (QUERY_BLOCK + 9, 1)])
@pytest.mark.parametrize("attention", TWINS)
def test_query_blocks_do_not_show(attention: Attention, n_tokens: int, band: int, per_bin: int) -> None:
    """A bin cut by a block edge, and a band that is longer than a block."""
    n_sinks = 2
    q, k, v = drawn(n_tokens, (1, 1, n_sinks + n_tokens, 4))
    position = torch.cat([torch.zeros(n_sinks, dtype=torch.int64), torch.arange(n_tokens) // per_bin])
    hidden = torch.from_numpy(np.random.default_rng(0).random((1, n_sinks + n_tokens)) < 0.3)

    got = attention(q, k, v, position=position, hidden=hidden, band=band, n_sinks=n_sinks)

    torch.testing.assert_close(got, specified(q, k, v, position, hidden, band, n_sinks), **TOLERANCE)


def test_query_blocks_are_the_same_in_both() -> None:
    """So that the test above crosses the edges of both."""
    assert plain.QUERY_BLOCK == QUERY_BLOCK


@given(
    seed=st.integers(0, 2**31),
    n_bins=st.integers(0, 90),
    band=st.integers(1, 60),
    n_sinks=st.integers(1, 3),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    short=st.sampled_from([0, banded.SHORT]),
)
def test_gradients_of_the_twins_agree(
    seed: int, n_bins: int, band: int, n_sinks: int, share: float, short: int
) -> None:
    """In float64, where only an error is larger than rounding; the third sample hides what the first does."""
    rng = torch.Generator().manual_seed(seed)
    n = n_sinks + 3 * n_bins
    q, k, v = (x.requires_grad_() for x in torch.randn(3, 3, 2, n, 4, generator=rng, dtype=torch.float64))
    position = torch.cat([torch.zeros(n_sinks, dtype=torch.int64), torch.arange(n_bins).repeat_interleave(3)])
    hidden = torch.rand(3, n, generator=rng) < share
    hidden[2] = hidden[0]
    to_out = torch.randn(q.shape, generator=rng, dtype=torch.float64)

    with patch.object(banded, "SHORT", short):
        each = [
            torch.autograd.grad(
                attention(q, k, v, position=position, hidden=hidden, band=band, n_sinks=n_sinks), (q, k, v), to_out
            )
            for attention in TWINS
        ]

    for ours, theirs in zip(*each, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


N_SINKS, N_TOKENS, BAND = 2, 150, 7


@pytest.fixture
def case() -> dict[str, Tensor]:
    """150 tokens, three to a bin, about half of them hidden."""
    q, k, v = drawn(3, (2, 2, N_SINKS + N_TOKENS, 4))
    position = torch.cat([torch.zeros(N_SINKS, dtype=torch.int64), torch.arange(N_TOKENS) // 3])
    hidden = torch.from_numpy(np.random.default_rng(4).random((2, N_SINKS + N_TOKENS)) < 0.5)
    hidden[:, :N_SINKS] = False
    return {"q": q, "k": k, "v": v, "position": position, "hidden": hidden}


def attend(case: dict[str, Tensor], **changed: Tensor) -> Tensor:
    """The fast twin's answer to the case with some arguments changed."""
    now = case | changed
    return banded.attention(
        now["q"], now["k"], now["v"], position=now["position"], hidden=now["hidden"], band=BAND, n_sinks=N_SINKS
    )


def test_a_hidden_token_is_nobodys_key(case: dict[str, Tensor]) -> None:
    """Whatever its key and value, every output keeps its bits: not even its own sees them."""
    at = case["hidden"][:, None, :, None]

    other = attend(case, k=torch.where(at, 1e4, case["k"]), v=torch.where(at, -1e4, case["v"]))

    assert torch.equal(other, attend(case))


def test_sinks_attend_only_to_sinks(case: dict[str, Tensor]) -> None:
    """Their rows do not depend on any other token, so they are constants of a session."""
    other = {name: case[name].clone() for name in "qkv"}
    for x in other.values():
        x[:, :, N_SINKS:] += 1.0

    got, before = attend(case, **other), attend(case)

    assert torch.equal(got[:, :, :N_SINKS], before[:, :, :N_SINKS])
    assert not torch.isclose(got[:, :, N_SINKS:], before[:, :, N_SINKS:]).all(-1).any()


def test_sinks_are_always_visible(case: dict[str, Tensor]) -> None:
    """Hiding a sink, or giving it a position, changes nothing."""
    hidden, position = case["hidden"].clone(), case["position"].clone()
    hidden[:, :N_SINKS], position[:N_SINKS] = True, 999

    assert torch.equal(attend(case, hidden=hidden, position=position), attend(case))


def test_with_everything_hidden_only_the_sinks_speak(case: dict[str, Tensor]) -> None:
    """No row is empty, and a sink is met un-rotated: the answer is the same at every position."""
    hidden = torch.ones_like(case["hidden"])
    score = case["q"] @ case["k"][:, :, :N_SINKS].mT / 2.0
    expected = score.softmax(-1) @ case["v"][:, :, :N_SINKS]

    got = attend(case, hidden=hidden)

    torch.testing.assert_close(got, expected, **TOLERANCE)
    assert torch.equal(attend(case, hidden=hidden, position=case["position"] + 12345), got)


@pytest.mark.parametrize("shift", [1, 1000, 10**7])
def test_positions_are_relative(case: dict[str, Tensor], shift: int) -> None:
    """Position 10**7, 55 hours at 20 ms, is as exact as position 0."""
    torch.testing.assert_close(attend(case, position=case["position"] + shift), attend(case), **TOLERANCE)
