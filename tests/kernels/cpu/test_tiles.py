"""Products with panels, of every stored type and any number of rows, columns and tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kernels.cpu.tiles import in_parts
from kernels.cpu.vectors import LANES


@pytest.mark.parametrize("n_tokens", range(1, 10))
@pytest.mark.parametrize(("n_rows", "n_in"), [(16, 16), (48, 32), (144, 144), (272, 32), (32, LANES), (32, 3 * LANES)])
@pytest.mark.parametrize("stored", [np.float32, np.uint16, np.int32])
def test_product_with_panels(
    times_panels: Callable[..., None],
    by_row: Callable[..., np.ndarray],
    n_tokens: int,
    n_rows: int,
    n_in: int,
    stored: type,
) -> None:
    """Of any row, column and token, and nothing beside the asked block is touched."""
    rng = np.random.default_rng(n_tokens * n_in)
    w = rng.standard_normal((n_rows + 16, n_in)).astype(np.float32)
    if stored is np.uint16:
        w = (w.view(np.uint32) >> 16).astype(np.uint16)
    if stored is np.int32:
        w = (w * 2.0**20).astype(np.int32)
        w[16, :4] = -(2**23), 2**23 - 1, -1, 0
    x = rng.standard_normal((n_tokens + 2, n_in + 5)).astype(np.float32)
    y = np.full((n_tokens + 2, n_rows + 3), np.nan, np.float32)

    np.testing.assert_array_equal(by_row(in_parts(w)), w)
    times_panels(in_parts(w), 16, n_rows, x, 1, n_tokens, 5, y, 2)

    if stored is np.uint16:
        w = (w.astype(np.uint32) << 16).view(np.float32)
    if stored is np.int32:
        y[1:-1, 2:-1] *= 2.0**-28  # of 256 w
        w = w * 2.0**-20
    expected = x[1:-1, 5:].astype(np.float64) @ w[16:].T.astype(np.float64)
    # 3e-5: each of up to 144 additions, one after the other, rounds a sum of about 12
    np.testing.assert_allclose(y[1:-1, 2:-1], expected, atol=3e-5)
    assert np.isnan(y).sum() == y.size - n_tokens * n_rows


@pytest.mark.parametrize("n_tokens", range(1, 10))
@pytest.mark.parametrize(
    ("n_rows", "n_in", "top"),
    [(16, 16, 32767), (48, 32, 9), (272, 512, 32767), (32, 1024, 16512), (32, LANES, 32767), (32, 3 * LANES, 32767)],
)
def test_product_of_whole_numbers(
    times_panels: Callable[..., None],
    by_row: Callable[..., np.ndarray],
    n_tokens: int,
    n_rows: int,
    n_in: int,
    top: int,
) -> None:
    """It is exact, up to the largest numbers that there are."""
    rng = np.random.default_rng(n_tokens * n_in)
    w = rng.integers(-127, 128, (n_rows + 16, n_in)).astype(np.int8)
    w[16] = rng.choice([-127, 127], n_in)
    x = np.zeros((n_tokens + 2, n_in + 2), np.int16)
    x[:, :n_in] = rng.integers(-top, top + 1, (n_tokens + 2, n_in))
    x[1, :n_in] = np.where(w[16] > 0, top, -top)
    x[:, n_in:] = np.ones((n_tokens + 2, 1), np.float32).view(np.int16)
    y = np.full((n_tokens + 2, n_rows + 3), np.nan, np.float32)

    np.testing.assert_array_equal(by_row(in_parts(w)), w)
    times_panels(in_parts(w), 16, n_rows, x, 1, n_tokens, 0, y, 2)

    expected = x[1:-1, :n_in].astype(np.int64) @ w[16:].T.astype(np.int64)
    np.testing.assert_array_equal(y[1:-1, 2:-1], expected.astype(np.float32))
    assert np.isnan(y).sum() == y.size - n_tokens * n_rows
