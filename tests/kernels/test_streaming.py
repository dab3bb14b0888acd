"""The door to the fused step: what it means and refuses; `check_ends.py` and `check_block.py` hold Triton to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernels import attention as door, streaming
from kernels.reference import BlockWeights, ReadOut, TokenTables, make_cache
from neds_core.config import ModelConfig
from neds_core.model.model import Block
from runtime.engines.cuda_fused import pack_layer

CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums of some tens of terms in another order


def block(width: int = 8, mlp: int = 24, n_tokens: int = 2) -> dict[str, Any]:
    """Arguments of a layer with two heads, of random weights."""
    rng = torch.Generator().manual_seed(4)
    shapes = ((width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,), (width,), (width,),
              (mlp, width), (mlp,), (mlp, width), (width,))  # fmt: skip
    weights = BlockWeights(*(torch.randn(shape, generator=rng) * 0.5 for shape in shapes))
    return {
        "parts": torch.randn(3, n_tokens, width, generator=rng), "weights": weights,
        "cache": make_cache(*torch.randn(2, 2, 1, width // 2, generator=rng), 3, n_tokens),
        "position": torch.tensor([7]), "hidden": torch.zeros(n_tokens, dtype=torch.bool),
    }  # fmt: skip


def test_a_fused_layer_is_the_models() -> None:
    """A `Block` with the step's attention in it, its weights packed as the engine packs them."""
    torch.manual_seed(0)
    layer = Block(ModelConfig(width=16, heads=2, mlp_ratio=3)).eval()
    for p in layer.parameters():
        torch.nn.init.normal_(p, std=0.5)
    a = block(16, n_tokens=3) | {"weights": pack_layer(layer)}
    theirs = a["cache"]._replace(**{name: getattr(a["cache"], name).clone() for name in ("k", "v", "hidden")})

    got = streaming.stream_block(**a).sum(0)

    x = a["parts"].sum(0)[None]
    with torch.no_grad():
        q, k, v = (part[0] for part in layer.heads_of(x))
        rest = {"position": a["position"], "hidden": a["hidden"], "out": torch.empty_like(q)}
        expected = layer.finish(x, door.stream_attention(q, k, v, theirs, **rest)[None])[0]
    torch.testing.assert_close(got, expected, **CLOSE)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"parts": torch.zeros(2, 8)}, "give it as \\(P, T, D\\)"),
        ({"parts": torch.zeros(1, 2, 8).half()}, "parts is torch.float16"),
        ({"parts": torch.zeros(1, 4, 8)[:, ::2]}, "parts is not contiguous"),
        ({"parts": torch.zeros(1, 17, 8)}, "17 tokens, 8 wide, 24 hidden units; a fused layer takes at most 16"),
        (block(514), "2 tokens, 514 wide"),
        (block(mlp=2049), "2049 hidden units"),
        ({"parts": torch.zeros(1, 2, 10)}, "norm_scale has shape"),
        ({"parts": torch.zeros(1, 2, 9)}, "not shared evenly by the cache's 2 heads"),
        ({"weights": BlockWeights(*(x.half() for x in block()["weights"]))}, "norm_scale is torch.float16"),
        ({"weights": block()["weights"]._replace(down=torch.zeros(8, 24).T)}, "down must be contiguous"),
        ({"weights": block()["weights"]._replace(up_bias=torch.zeros(24).to("meta"))}, "move them to one device"),
        ({"weights": block()["weights"]._replace(out=torch.zeros(8, 8, requires_grad=True))}, "no gradient"),
        ({"position": torch.zeros(1)}, "position is torch.float32"),
        ({"cache": make_cache(*torch.zeros(2, 2, 1, 4), 3, 3)}, "no whole bins of 2"),
    ],
)
def test_the_fused_layer_refuses(change: dict[str, Any], why: str) -> None:
    """In one sentence, what it cannot do."""
    with pytest.raises(ValueError, match=why):
        streaming.stream_block(**block() | change)


def tokens(width: int = 8, n_units: int = 5) -> dict[str, Any]:
    """Arguments of a bin with a trace and a class of three."""
    rng = torch.Generator().manual_seed(2)
    drawn = [torch.randn(n, width, generator=rng) for n in (n_units, 3, 3, 4, 2)]
    tables = TokenTables(*drawn[:4], torch.tensor([0, 1]), torch.tensor([0, 3]), drawn[4])
    return {
        "counts": torch.tensor([0.0, 4.0, 1.0, 0.0, 9.0])[:n_units], "seen": torch.tensor([0.5, torch.nan]),
        "where": torch.tensor([7, 30, 1]), "tables": tables, "spikes": True, "hidden": torch.zeros(3, dtype=torch.bool),
    }  # fmt: skip


def test_tokens_are_their_formula() -> None:
    """By hand: spikes and a trace, the class hidden, the clock past its last row."""
    a = tokens()
    t = a["tables"]

    got = streaming.stream_tokens(**a).sum(0)

    spike = t.base[0] + 2.0 * t.rows[1] + t.rows[2] + 3.0 * t.rows[4]
    expected = torch.stack([spike, t.base[1] + 0.5 * t.values[0], t.blank[2]]) + t.codes[1]
    torch.testing.assert_close(got, expected, **CLOSE)
    assert a["hidden"].tolist() == [False, False, True]


def test_a_class_is_its_row_and_an_invalid_bin_hides_all() -> None:
    """Class 2 of three; then the same bin as no live data."""
    a = tokens() | {"seen": torch.tensor([torch.nan, 2.0])}
    t = a["tables"]

    got = streaming.stream_tokens(**a).sum(0)

    torch.testing.assert_close(got[2], t.base[2] + t.values[3] + t.codes[1], **CLOSE)
    invalid = streaming.stream_tokens(**a | {"where": torch.tensor([7, -1, 0])}).sum(0)
    torch.testing.assert_close(invalid, t.blank + t.codes[0], **CLOSE)
    assert a["hidden"].all()


def read(width: int = 8, n: int = 4) -> dict[str, Any]:
    """Arguments of a trace and a class of three."""
    rng = torch.Generator().manual_seed(3)
    head = ReadOut(
        *torch.randn(2, width, generator=rng), torch.randn(n, width, generator=rng), torch.randn(n, generator=rng),
        torch.tensor([1, 2, 2, 2])[:n], torch.tensor([-1, 1, 1, 1])[:n],
    )  # fmt: skip
    return {"parts": torch.randn(2, 3, width, generator=rng), "head": head, "rates": False, "out": torch.zeros(n)}


def test_the_read_out_is_its_formula() -> None:
    """Norm, heads, softmax of the class; and rates as exponentials of every output."""
    a = read()
    h = a["head"]

    got = streaming.stream_read(**a)

    x = torch.nn.functional.layer_norm(a["parts"].sum(0), (8,), h.scale, h.shift)
    y = torch.stack([x[t] @ w for t, w in zip(h.token, h.weight, strict=True)]) + h.bias
    torch.testing.assert_close(got, torch.cat([y[:1], y[1:].softmax(0)]), **CLOSE)
    torch.testing.assert_close(streaming.stream_read(**a | {"rates": True}), y.exp(), **CLOSE)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"counts": torch.zeros(4)}, "counts has shape"),
        ({"counts": torch.zeros(5, dtype=torch.int64)}, "counts is torch.int64"),
        ({"seen": torch.zeros(3)}, "seen has shape"),
        ({"where": torch.zeros(3)}, "where is torch.float32"),
        ({"hidden": torch.zeros(3)}, "hidden is torch.float32"),
        ({"counts": torch.zeros(5, device="meta")}, "move them to one device"),
        ({"tables": tokens(513)["tables"]}, "tokens 513 wide; a fused step takes at most 512"),
        ({"tables": tokens()["tables"]._replace(rows=torch.zeros(8, 5).T)}, "rows must be contiguous"),
        ({"tables": tokens()["tables"]._replace(codes=torch.zeros(2, 8, requires_grad=True))}, "no gradient"),
        ({"tables": tokens()["tables"]._replace(first=torch.zeros(16, dtype=torch.int64))}, "16 behaviours"),
    ],
)
def test_tokens_refuse(change: dict[str, Any], why: str) -> None:
    """In one sentence, what cannot be done."""
    with pytest.raises(ValueError, match=why):
        streaming.stream_tokens(**tokens() | change)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"parts": torch.zeros(3, 8)}, "give it as \\(P, T, D\\)"),
        ({"out": torch.zeros(3)}, "weight has shape"),
        ({"out": torch.zeros(65)}, "65 outputs; a fused step takes at most 64"),
        ({"head": read()["head"]._replace(token=torch.zeros(4))}, "token is torch.float32"),
    ],
)
def test_the_read_out_refuses(change: dict[str, Any], why: str) -> None:
    """In one sentence, what cannot be done."""
    with pytest.raises(ValueError, match=why):
        streaming.stream_read(**read() | change)
