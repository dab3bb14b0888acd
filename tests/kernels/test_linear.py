"""The door to the fused linear layer: what it means, and what it refuses; `check_linear.py` holds Triton to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from kernels.linear import linear


def layer(n_rows: int = 3, width: int = 8, n_outputs: int = 5) -> dict[str, Any]:
    """Arguments of a layer with everything around it."""
    rng = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(n_rows, width, generator=rng), "weight": torch.randn(n_outputs, width, generator=rng),
        "bias": torch.randn(n_outputs, generator=rng), "norm": tuple(torch.randn(2, width, generator=rng)),
        "gelu": True, "residual": torch.randn(n_rows, n_outputs, generator=rng),
    }  # fmt: skip


def test_it_is_torchs_modules() -> None:
    """LayerNorm, Linear, GELU and a sum."""
    a = layer()
    norm, linear_layer = nn.LayerNorm(8), nn.Linear(8, 5)
    norm.weight.data, norm.bias.data = a["norm"]
    linear_layer.weight.data, linear_layer.bias.data = a["weight"], a["bias"]

    got = linear(**a)

    with torch.no_grad():
        expected = nn.functional.gelu(linear_layer(norm(a["x"]))) + a["residual"]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    plain = linear(a["x"], a["weight"], a["bias"])
    torch.testing.assert_close(plain, nn.functional.linear(a["x"], a["weight"], a["bias"]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"x": torch.zeros(8)}, "give \\(M, K\\)"),
        ({"x": torch.zeros(0, 8)}, "there is nothing to do"),
        ({"bias": torch.zeros(4)}, "bias has shape"),
        ({"residual": torch.zeros(3, 4)}, "residual has shape"),
        ({"x": torch.zeros(3, 8).half()}, "x is torch.float16"),
        ({"bias": torch.zeros(5, device="meta")}, "move them to one device"),
        ({"weight": torch.zeros(8, 5).T}, "weight must be contiguous"),
        ({"bias": torch.zeros(5, requires_grad=True)}, "no gradient"),
        (layer(width=1025), "rows 1025 wide; a normed one has at most 1024"),
        (
            {name: t if name in ("gelu", "norm") else t.double() for name, t in layer().items()} | {"norm": None},
            "takes",
        ),
    ],
)
def test_it_refuses(change: dict[str, Any], why: str) -> None:
    """In one sentence, what it cannot do."""
    with pytest.raises(ValueError, match=why):
        linear(**layer() | change)
