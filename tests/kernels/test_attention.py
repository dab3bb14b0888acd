"""The door, and the specification behind it, against neds_core's attention and torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from kernels import attention as door
from kernels.reference import make_cache, rotate
from neds_core.config import ModelConfig
from neds_core.model import attention as offline
from neds_core.model.model import NEDS, Batch

# float32 sums of some tens of terms in another order, and angles rounded at another place
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def window(seed: int, n_bins: int = 9, n_sinks: int = 2, head_width: int = 8) -> dict[str, Any]:
    """Arguments of a window of three tokens a bin, about half of them hidden."""
    rng = torch.Generator().manual_seed(seed)
    n = n_sinks + 3 * n_bins
    q, k, v = torch.randn(3, 2, 2, n, head_width, generator=rng)
    bins = 10**7 + torch.arange(n_bins).repeat_interleave(3)
    position = torch.cat([torch.zeros(n_sinks, dtype=torch.int64), bins])
    hidden = torch.rand(2, n, generator=rng) < 0.5
    return {"q": q, "k": k, "v": v, "position": position, "hidden": hidden, "band": 4, "n_sinks": n_sinks}


@given(seed=st.integers(0, 2**31), n_bins=st.integers(0, 60), n_sinks=st.integers(1, 3), band=st.integers(1, 70))
def test_the_band_is_the_models(seed: int, n_bins: int, n_sinks: int, band: int) -> None:
    """The causal case is `neds_core.model.attention`, over more rows than one block as well."""
    a = window(seed, n_bins, n_sinks) | {"band": band}

    torch.testing.assert_close(door.attention(**a), offline.attention(**a), **CLOSE)


def test_full_is_torchs_own() -> None:
    """Without band and sinks: scaled dot-product attention of what rotary embedding made of q and k."""
    a = window(0, n_sinks=0) | {"band": None}
    turned = (rotate(a[name], a["position"]) for name in "qk")
    mask = ~a["hidden"][:, None, None]

    expected = torch.nn.functional.scaled_dot_product_attention(*turned, a["v"], attn_mask=mask)

    torch.testing.assert_close(door.attention(**a), expected, **CLOSE)


def test_some_rows_are_those_rows() -> None:
    """Asking for a few queries gives what asking for all gives there."""
    a, rows = window(1), torch.tensor([20, 0, 7])

    got = door.attention(**a | {"q": a["q"][:, :, rows], "rows": rows})

    torch.testing.assert_close(got, door.attention(**a)[:, :, rows], **CLOSE)


def test_a_row_without_a_key_is_zero() -> None:
    """Nothing to attend to gives 0 and gradients of 0, never NaN."""
    a = window(2, n_sinks=0) | {"hidden": torch.ones(2, 27, dtype=torch.bool)}
    a["q"].requires_grad_()

    got = door.attention(**a)
    got.sum().backward()

    assert not got.any()
    assert not a["q"].grad.any()


def test_neds_takes_it(make_neds: Callable[..., NEDS]) -> None:
    """A model asked through the door answers as with its own attention."""
    model = make_neds(ModelConfig(width=16, layers=2, heads=2, band=5, registers=1))
    rng = torch.Generator().manual_seed(0)
    counts = torch.poisson(torch.ones(2, 12, 6), generator=rng)
    labels, unknown = torch.zeros(2, 12, dtype=torch.int64), torch.full((2, 12), -1)
    traces = {"wheel_speed": torch.randn(2, 12, generator=rng)}
    batch = Batch(counts, torch.ones(2, 12, dtype=torch.bool), traces, {"choice": labels}, unknown)
    hidden = torch.rand(2, 12, 3, generator=rng) < 0.5

    got, expected = model(batch, hidden, attend=door.attention), model(batch, hidden)

    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=1e-4, rtol=1e-4)  # two layers of CLOSE with large weights


@given(
    seed=st.integers(0, 2**31),
    band=st.integers(1, 6),
    n_tokens=st.integers(1, 3),
    n_bins=st.integers(1, 15),
    start=st.integers(0, 10**7),
)
def test_a_stream_is_the_window_bin_by_bin(seed: int, band: int, n_tokens: int, n_bins: int, start: int) -> None:
    """Over any pattern of hidden tokens, beyond the point where the ring wraps."""
    rng = torch.Generator().manual_seed(seed)
    n_sinks = 2
    q, k, v = torch.randn(3, 2, n_sinks + n_bins * n_tokens, 8, generator=rng)
    absent = torch.rand(n_bins, n_tokens, generator=rng) < 0.4
    bins = start + torch.arange(n_bins)
    hidden = torch.cat([torch.zeros(n_sinks, dtype=torch.bool), absent.flatten()])
    position = torch.cat([torch.zeros(n_sinks, dtype=torch.int64), bins.repeat_interleave(n_tokens)])
    expected = offline.attention(
        q[None], k[None], v[None], position=position, hidden=hidden[None], band=band, n_sinks=n_sinks
    )[0, :, n_sinks:]
    cache = make_cache(k[:, :n_sinks].contiguous(), v[:, :n_sinks].contiguous(), band, n_tokens)

    got: list[Tensor] = []
    for t in range(n_bins):
        own = slice(n_sinks + t * n_tokens, n_sinks + (t + 1) * n_tokens)
        q_t, k_t, v_t = q[:, own], k[:, own], v[:, own]
        out = torch.full_like(q_t, torch.nan)
        got.append(door.stream_attention(q_t, k_t, v_t, cache, position=bins[t : t + 1], hidden=absent[t], out=out))

    torch.testing.assert_close(torch.cat(got, dim=1), expected, **CLOSE)


def test_a_forgotten_cache_has_only_sinks() -> None:
    """After `forget` no earlier token counts, even where it was NaN."""
    x, sink = torch.randn(3, 2, 1, 8), torch.randn(2, 2, 2, 8)
    used, fresh = make_cache(sink[0], sink[1], 3, 1), make_cache(sink[0], sink[1], 3, 1)

    def step(cache: Any, at: int, hidden: bool) -> Tensor:
        arguments = {"position": torch.tensor([at]), "hidden": torch.tensor([hidden]), "out": torch.empty(2, 1, 8)}
        return door.stream_attention(x[0], x[1], x[2], cache, **arguments)

    step(used, 0, False)
    assert not torch.equal(step(used, 1, True), step(fresh, 1, True))
    used.k.fill_(torch.nan)
    used.v.fill_(torch.nan)
    used.forget()

    assert torch.equal(step(used, 2, True), step(fresh, 2, True))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda a: {"q": a["q"][0]}, "q has 3 and k 4 axes"),
        (lambda a: {"k": a["k"][:, :, 1:]}, "v has shape"),
        (lambda a: {"v": a["v"].half()}, "v is torch.float16 and q is torch.float32"),
        (lambda a: {name: a[name].to(torch.int32) for name in "qkv"}, "q is torch.int32"),
        (lambda a: {"k": a["k"].mT.contiguous().mT}, "k must be contiguous along its last axis"),
        (lambda a: {name: a[name][..., :7] for name in "qkv"}, "a head is 7 wide"),
        (lambda a: {name: torch.zeros(2, 2, 29, 130) for name in "qkv"}, "a head is 130 wide"),
        (lambda a: {"position": a["position"].int()}, "position is torch.int32"),
        (lambda a: {"hidden": a["hidden"][:1]}, "hidden has shape"),
        (lambda a: {"hidden": a["hidden"].float()}, "hidden is torch.float32"),
        (lambda a: {"q": a["q"][:, :, :5]}, "q holds 5 of 29 tokens"),
        (lambda a: {"rows": torch.arange(28)}, "rows has shape"),
        (lambda a: {"band": 0}, "a band of 0 bins"),
        (lambda a: {"n_sinks": 30}, "30 sinks"),
        (lambda a: {"q": a["q"].to("meta")}, "move them to one device"),
        (lambda a: {n: x.to("meta") for n, x in a.items() if isinstance(x, Tensor)}, "no kernel for meta"),
    ],
)
def test_the_window_refuses(change: Callable[[dict[str, Any]], dict[str, Any]], why: str) -> None:
    """In one sentence, what it cannot do."""
    a = window(3)

    with pytest.raises(ValueError, match=why):
        door.attention(**a | change(a))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"k": torch.zeros(2, 3, 8)}, "k has shape"),
        ({"out": torch.zeros(2, 2, 8).double()}, "out is torch.float64 and q is torch.float32"),
        ({"position": torch.zeros(1)}, "position is torch.float32"),
        ({"position": torch.zeros(2, dtype=torch.int64)}, "position has shape"),
        ({"hidden": torch.ones(3, dtype=torch.bool)}, "hidden has shape"),
        ({"cache": make_cache(*torch.zeros(2, 2, 1, 8), 3, 3)}, "no whole bins of 2"),
        ({"cache": make_cache(*torch.zeros(2, 4, 1, 8), 3, 2)}, "cache.k has shape"),
        ({"cache": make_cache(*torch.zeros(2, 2, 65, 8), 3, 2)}, "65 sinks"),
        ({"q": torch.zeros(2, 2, 8, requires_grad=True)}, "no gradient"),
    ],
)
def test_the_stream_refuses(change: dict[str, Any], why: str) -> None:
    """In one sentence, what it cannot do."""
    a = {name: torch.zeros(2, 2, 8) for name in ("q", "k", "v", "out")}
    a["position"], a["hidden"] = torch.zeros(1, dtype=torch.int64), torch.zeros(2, dtype=torch.bool)

    with pytest.raises(ValueError, match=why):
        door.stream_attention(**a | {"cache": make_cache(*torch.zeros(2, 2, 1, 8), 3, 2)} | change)


@pytest.mark.parametrize("attention", ["causal", "full"])
def test_neds_trains_through_it(make_neds: Callable[..., NEDS], attention: str) -> None:
    """A model that is given it as its kernel has the loss and the gradients that it has with torch's own attention."""
    size = ModelConfig(attention=attention, width=16, layers=2, heads=2, band=5, window_bins=12)  # pyright: ignore[reportArgumentType]
    model = make_neds(size).eval().requires_grad_(True)
    rng = torch.Generator().manual_seed(0)
    shape = (2, 12)
    counts, unknown = torch.poisson(torch.ones(*shape, 6), generator=rng), torch.full(shape, -1)
    traces = {"wheel_speed": torch.randn(shape, generator=rng)}
    batch = Batch(counts, torch.ones(shape, dtype=torch.bool), traces, {"choice": torch.zeros_like(unknown)}, unknown)
    hidden = torch.rand(*shape, 3, generator=rng) < 0.5
    found = []
    for kernel in (None, door.attention):
        model.kernel, model.training = kernel, False
        model.zero_grad()
        loss = sum(y.square().sum() for y in model(batch, hidden).values())
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        found.append((loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))

    (ours, our_gradients), (theirs, their_gradients) = found
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for mine, other in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()) + 1e-6)
