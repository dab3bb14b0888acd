"""The fused linear layer in Triton against its specification; run by `test_triton.py` in a process of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from kernels import reference, triton_linear

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def drawn(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def both(
    n_rows: int, width: int, n_outputs: int, dtype: torch.dtype, normed: bool, gelu: bool, added: bool
) -> tuple[Tensor, Tensor]:
    """The kernel's answer, its output full of NaN before, and the specification's; x and residual are views."""
    x = drawn(1, n_rows, width + 8, dtype=dtype)[:, :width]
    weight, bias = drawn(2, n_outputs, width, dtype=dtype) * width**-0.5, drawn(3, n_outputs, dtype=dtype)
    norm = (drawn(4, width, dtype=dtype), drawn(5, width, dtype=dtype)) if normed else None
    residual = drawn(6, n_rows, n_outputs + 3, dtype=dtype)[:, :n_outputs] if added else None
    call, out = triton_linear.linear_call(x, weight, bias, norm=norm, gelu=gelu, residual=residual)
    out.fill_(torch.nan)
    call.launch()
    return out, reference.linear(x, weight, bias, norm=norm, gelu=gelu, residual=residual)


@settings(max_examples=8)
@given(
    n_rows=st.sampled_from([1, 33, 70]),
    width=st.sampled_from([1, 24, 64, 100]),
    n_outputs=st.sampled_from([1, 40, 96]),
    normed=st.booleans(),
    gelu=st.booleans(),
    added=st.booleans(),
)
def test_any_shape(n_rows: int, width: int, n_outputs: int, normed: bool, gelu: bool, added: bool) -> None:
    """Sizes that no tile divides, with and without what stands around the layer."""
    got, expected = both(n_rows, width, n_outputs, torch.float32, normed and width > 1, gelu, added)

    # float32 sums of up to 100 terms of about 1 in another order; on a GPU from three TF32 parts each
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


HALF = [(torch.float16, 8e-3), *([(torch.bfloat16, 6e-2)] if DEVICE.type == "cuda" else [])]  # not interpreted right


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 2e-5), *HALF])
def test_a_published_layer(dtype: torch.dtype, close: float) -> None:
    """Norm, 256 to 1024, GELU; half precision: products of numbers rounded to 2^-8 and 2^-11 of up to about 4."""
    got, expected = both(70, 256, 1024, dtype, normed=True, gelu=True, added=False)

    torch.testing.assert_close(got, expected, atol=close, rtol=close)
