"""Each function of token rows is its formula."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch

from kernels.cpu import pack, rows
from kernels.cpu.jit import FLAGS
from kernels.cpu.vectors import LANES, at

# as the step is compiled: these flags reach the vector instructions too
compiled = numba.njit(fastmath=FLAGS, error_model="numpy")


@compiled
def shortened(x, top, out):
    for t in range(0, len(x), 4):
        rows.shortened(at(x, t * x.shape[1]), x.shape[1], top, at(out, t * out.shape[1]))


@pytest.mark.parametrize("top", [32767, 16512, 100])
def test_shortened_rows(top: int) -> None:
    """Off by half a step at most; what is not finite leaves no finite step, and no mark on its neighbours."""
    x = (np.random.default_rng(top).standard_normal((8, 48)) * 10.0 ** np.arange(-4, 4)[:, None]).astype(np.float32)
    x[1], x[2, 40], x[3, 5], x[5, :2] = 0.0, np.nan, -np.inf, (np.inf, np.nan)
    out = np.full((9, 50), 77, np.int16)
    shortened(x, top, out)
    steps, good = out[:8, 48:].copy().view(np.float32), [0, 1, 4, 6, 7]
    assert np.isnan(steps[[2, 3, 5]]).all()
    np.testing.assert_allclose(steps[good, 0], np.abs(x[good]).max(1) / top, rtol=1e-6, atol=1e-30)
    off = np.abs(out[good, :48] * steps[good].astype(np.float64) - x[good]) / steps[good]
    assert off.max() <= 0.51  # 1e-2: float32's own rounding of a number of up to 32767
    assert (np.abs(out[good, :48]) <= top).all()
    assert (out[8] == 77).all()


@compiled
def normed(x, width, out):
    rows.normed(at(x, 0), at(out, 0), x.shape[1], width)


@compiled
def gelu(x, erf):
    rows.gelu(at(x, 0), x.shape[1], at(erf, 0))


@compiled
def softmax(scores, factor, far):
    rows.softmax(at(scores, 0), scores.shape[1], at(factor, 0), at(far, 0))


@compiled
def rotate(plain, turned, heads, head, half, cosine, sine):
    rows.rotate(at(plain, 0), at(turned, 0), heads, head, half, at(cosine, 0), at(sine, 0))


@pytest.mark.parametrize("width", [1, 15, 16, 33, 48])
def test_layer_norm_reads_no_padding(width: int) -> None:
    x = np.random.default_rng(width).standard_normal((4, 48)).astype(np.float32) * 3.0 + 1.0
    x[:, width:] = np.nan
    out = np.full_like(x, np.nan)
    normed(x, width, out)
    expected = torch.nn.functional.layer_norm(torch.from_numpy(x[:, :width]).double(), (width,)).numpy()
    np.testing.assert_allclose(out[:, :width], expected, atol=2e-6)  # float32's own rounding of values up to 4
    assert not out[:, width:].any()


def test_gelu_is_the_exact_one() -> None:
    x = np.concatenate([np.linspace(-12.0, 12.0, 4091), [0.0, -0.0, 1e-30, 1e30, -1e30]]).astype(np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    got = x.copy().reshape(4, -1)
    gelu(got, pack._erf_coefficients())
    # 2e-7 of x: float32's own rounding of a value near 1, twice
    assert np.max(np.abs(got.ravel() - expected) / np.maximum(1.0, np.abs(expected))) < 4e-7


def test_softmax_over_what_is_not_hidden() -> None:
    """Scores of any size; a hidden slot weighs exactly 0, whatever finite number it holds."""
    rng = np.random.default_rng(0)
    for spread in (0.1, 3.0, 60.0):
        scores = (rng.standard_normal((4, 64)) * spread).astype(np.float32)
        hidden = rng.random(64) >= 0.5
        highest = scores[:, ~hidden].max(1, keepdims=True)
        expected = np.where(hidden, 0.0, np.exp(scores.astype(np.float64) - highest))
        softmax(scores, (~hidden).astype(np.float32), np.where(hidden, pack.FAR, 0.0).astype(np.float32))
        np.testing.assert_allclose(scores, expected / expected.sum(1, keepdims=True), atol=1e-6)
        assert not scores[:, hidden].any()


@pytest.mark.parametrize("half", [1, 4, 8, 9, 16, 17, 40])
def test_rotation_of_every_head(half: int) -> None:
    """Of any width; what is written behind a head's numbers, before the next head, is 0."""
    rng = np.random.default_rng(half)
    heads, head = 3, pack.padded(2 * half)
    plain, turned = rng.standard_normal(heads * head + LANES).astype(np.float32), np.full(heads * head + LANES, np.nan)
    turned = turned.astype(np.float32)
    angle = rng.uniform(0.0, 7.0, half).astype(np.float32)
    cosine, sine = (np.append(part(angle), np.zeros(LANES, np.float32)) for part in (np.cos, np.sin))
    rotate(plain, turned, heads, head, half, cosine, sine)
    pair = plain[: heads * head].reshape(heads, head).astype(np.float64)
    pair = (pair[:, :half] + 1j * pair[:, half : 2 * half]) * np.exp(1j * angle.astype(np.float64))
    got = turned[: heads * head].reshape(heads, head)
    np.testing.assert_allclose(got[:, :half], pair.real, atol=1e-6)
    np.testing.assert_allclose(got[:, half : 2 * half], pair.imag, atol=1e-6)
    behind = got[:, 2 * half :]
    assert not behind[~np.isnan(behind)].any()
