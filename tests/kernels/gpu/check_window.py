"""Window attention in Triton against its specification; run by `test_triton.py` in a process of its own.

Without a GPU the kernels are interpreted, which is slow, so the shapes are few and odd.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from hypothesis import given, settings, strategies as st
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder

from kernels import reference
from kernels.gpu.gradient import WindowAttention, gradient_calls
from kernels.gpu.window import common, forward_call
from kernels.reference import Pattern

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# float32: sums of up to 130 terms in another order. Half precision: rotated queries and keys, weights and
# outputs are each rounded to 2^-11 (float16) or 2^-8 (bfloat16) of values up to about 4.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 6e-3, torch.bfloat16: 5e-2}


@pytest.fixture(autouse=True, scope="module")
def bfloat16_products() -> Any:
    """The interpreter multiplies the bits of bfloat16 as integers; let it multiply their values, as a GPU does."""
    plain = InterpreterBuilder.create_dot

    def widened(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        if a.dtype == tl.bfloat16:
            a, b = self.cast_impl(a, tl.float32), self.cast_impl(b, tl.float32)
        return plain(self, a, b, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpreterBuilder, "create_dot", widened)
        yield


def case(
    shape: tuple[int, int, int, int],
    n_sinks: int,
    seed: int = 0,
    share: float = 0.4,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Random arguments of a window (B, H, N, K), three tokens a bin, as the model's projection lays them out."""
    n_batch, heads, n, head_width = shape
    rng = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(n_batch, n, 3, heads, head_width, generator=rng).to(DEVICE, dtype).permute(2, 0, 3, 1, 4)
    sinks, bins = torch.full((n_sinks,), 77), 10**7 + torch.arange(n - n_sinks) // 3
    hidden = torch.rand(n_batch, n, generator=rng) < share
    return {
        "q": q, "k": k, "v": v, "position": torch.cat([sinks, bins]).to(DEVICE), "hidden": hidden.to(DEVICE),
        "n_sinks": n_sinks, "rows": None,
    }  # fmt: skip


def pattern(a: dict[str, Any], band: int | None) -> Pattern:
    return Pattern(a["position"], a["hidden"], band, a["n_sinks"], a["rows"])


def ours(a: dict[str, Any], band: int | None) -> Tensor:
    """The kernel's answer."""
    return WindowAttention.apply(a["q"], a["k"], a["v"], pattern(a, band))


def exact(a: dict[str, Any], band: int | None) -> Tensor:
    """The specification's answer in float64."""
    return reference.attention(a["q"].double(), a["k"].double(), a["v"].double(), pattern(a, band))


def check_gradients(a: dict[str, Any], band: int | None) -> None:
    """Output and all three gradients against the specification's in float64."""
    names, tolerance = ("q", "k", "v"), TOLERANCE[a["q"].dtype]
    leaves = {name: a[name].detach().requires_grad_() for name in names}
    wide = {name: a[name].detach().double().requires_grad_() for name in names}
    got, expected = ours({**a, **leaves}, band), exact({**a, **wide}, band)
    grad = torch.randn(got.shape, generator=torch.Generator().manual_seed(1)).to(got)

    mine = torch.autograd.grad(got, list(leaves.values()), grad)
    theirs = torch.autograd.grad(expected, list(wide.values()), grad.double())

    assert got.dtype == a["q"].dtype
    torch.testing.assert_close(got.double(), expected, atol=tolerance, rtol=0)
    for name, one, other in zip(names, mine, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, atol=2 * tolerance, rtol=tolerance, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize(
    ("shape", "n_sinks", "band"),
    [
        ((1, 1, 1, 16), 1, 1),  # a sink alone
        ((1, 1, 35, 32), 2, 4),  # one key over a tile
        ((2, 1, 37, 16), 1, 50),  # a band longer than the window
        ((1, 1, 34, 48), 0, 3),  # no sinks, a head that is no power of two
        ((1, 1, 40, 16), 35, None),  # every bin, and more sinks than a tile
        ((1, 1, 37, 128), 2, 6),
        ((1, 1, 131, 16), 2, None),  # tiles that nothing cuts short
    ],
)
def test_window_is_its_specification(shape: tuple[int, int, int, int], n_sinks: int, band: int | None) -> None:
    """Output and gradients, at bin 10**7."""
    check_gradients(case(shape, n_sinks), band)


def test_a_long_window() -> None:
    """9 tiles of keys after the sink's, the last of one key; most lie beyond the band."""
    a = case((1, 1, 258, 8), 1)
    torch.testing.assert_close(ours(a, 20).double(), exact(a, 20), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Stored in half precision, summed in float32."""
    check_gradients(case((1, 1, 20, 32), 2, dtype=dtype), 5)


@settings(max_examples=6)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 40),
    n_sinks=st.integers(0, 3),
    head_width=st.sampled_from([2, 8, 16, 22, 32]),
    strides=st.lists(st.integers(0, 3), min_size=40, max_size=40),
    band=st.one_of(st.none(), st.integers(1, 9)),
    share=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_any_window(
    seed: int, n: int, n_sinks: int, head_width: int, strides: list[int], band: int | None, share: float
) -> None:
    """For any size, band, gap between bins and hidden pattern."""
    n_sinks = min(n, n_sinks)
    a = case((1, 1, n, head_width), n_sinks, seed, share)
    a["position"] = torch.from_numpy(np.cumsum(strides)[:n]).to(DEVICE)

    got = ours(a, band)

    torch.testing.assert_close(got.double(), exact(a, band), atol=1e-5, rtol=0)


def test_rows_that_are_read() -> None:
    """Only some queries, in any order, a sink among them: output, and gradients of all keys and values."""
    a = case((2, 1, 35, 32), 2)
    a["rows"] = torch.tensor([34, 3, 0, 30, 31], device=DEVICE)
    a["q"] = a["q"][:, :, a["rows"]]

    check_gradients(a, 6)


@pytest.mark.parametrize("n_sinks", [0, 2])
def test_no_key_at_all(n_sinks: int) -> None:
    """Everything hidden: without sinks output and gradients are 0, with sinks the sinks answer."""
    a = case((1, 1, 20, 16), n_sinks, share=1.1)

    check_gradients(a, 3)

    if n_sinks == 0:
        assert not ours(a, 3).any()


def test_a_hidden_token_is_nobodys_key() -> None:
    """Its key and value may hold anything, even NaN, and every bit of the output stays."""
    a = case((2, 1, 40, 16), 2)
    at = (a["hidden"] & (torch.arange(40, device=DEVICE) >= 2))[:, None, :, None]
    poisoned = {**a, "k": a["k"].masked_fill(at, torch.nan), "v": a["v"].masked_fill(at, torch.nan)}

    assert torch.equal(ours(poisoned, 5), ours(a, 5))


def test_a_nan_that_is_not_hidden_shows() -> None:
    """In the rows that meet its key, and in no other."""
    a = case((1, 1, 12, 16), 1, share=0.0)
    a["k"] = a["k"].clone()
    a["k"][0, 0, 4] = torch.nan

    got = ours(a, 1)[0, 0].isnan().all(-1)

    assert torch.equal(got, a["position"] == a["position"][4])


def test_outputs_are_written_once_and_whole() -> None:
    """Buffers full of NaN come back full of numbers, and nothing is written beside them."""
    a, band, n, extra = case((1, 2, 20, 32), 2), 4, 20, 3
    rooms = [torch.full((1, n + extra, 2, 32), torch.nan, device=DEVICE) for _ in range(4)]
    out, dq, dk, dv = (room[:, :n].transpose(1, 2) for room in rooms)
    lse = torch.full((1, 2, n), torch.nan, device=DEVICE)
    shared = common(a["q"], a["k"], a["v"], pattern(a, band))

    forward_call(shared, out, lse).launch()
    delta = (out * out).sum(-1)
    for call in gradient_calls(shared, out, lse, delta, dq, dk, dv):
        call.launch()

    assert not lse.isnan().any()
    assert not any(room[:, :n].isnan().any() for room in rooms)
    assert all(room[:, n:].isnan().all() for room in rooms)
