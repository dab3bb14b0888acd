"""What a streaming step works on: packed weights, the cache of keys and values, and its buffers.

Everything is allocated here, once. Widths are padded with zeros, which change no sum; a prime marks a padded width:

| letter | is                                      |
| ------ | --------------------------------------- |
| D'     | width, padded to a multiple of LANES    |
| K'     | head width, padded                      |
| F'     | hidden units of the MLP, padded         |
| N      | slots of the ring and sinks, padded     |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numba import types
from numba.experimental import structref
from numpy.polynomial import chebyshev

from kernels.cpu.rows import ERF_END, ERF_TERMS
from kernels.cpu.tiles import in_parts, panels
from kernels.cpu.vectors import FOUR, LANES, MOVES_BYTES, aligned

# Bytes of float32 weights beyond which they are stored in three bytes, in steps of 2^-23 of their row's largest: one to
# two units in its last place. The rounding error of a product grows by about a tenth. Once every
# 20 ms, on cold caches, fewer bytes save more than the conversion costs (docs/latency.md); back to back, within an L3
# cache and with 256 bits, 5 layers took up to 7% more. With 512 bits the conversion wants one instruction that some
# processors lack; there it was not measured.
LARGE = 3 * 2**19 if LANES == 8 or MOVES_BYTES else math.inf
LEAST_STEP = np.float32(1e-30)  # of rounded weights: far from subnormal numbers, which are slow and less exact
FAR = np.float32(-1e30)  # added to the score of a hidden slot
REHEARSAL = -1  # in place of a clock row: see `kernels.cpu.step.decode`

Precision = Literal["float32", "bfloat16", "int8"]


class Layer(NamedTuple):
    """One pre-LayerNorm block, weights (out, in) as torch has them, all float32 arrays."""

    norm_attention: tuple[np.ndarray, np.ndarray]  # gain, bias
    qkv: tuple[np.ndarray, np.ndarray]  # weight, bias
    out: tuple[np.ndarray, np.ndarray]
    norm_mlp: tuple[np.ndarray, np.ndarray]
    up: tuple[np.ndarray, np.ndarray]
    down: tuple[np.ndarray, np.ndarray]
    sink_k: np.ndarray  # (H, S, K), not rotated
    sink_v: np.ndarray  # (H, S, K)


class Rows(NamedTuple):
    """A product's weights for all layers: scale w . x + bias, one scale a row."""

    weight: np.ndarray  # N rows of K, `in_parts`: float32, or LARGE, int8, or uint16, the bits of bfloat16
    scale: np.ndarray  # (L, N) float32, 1 where the weights are float32 or bfloat16
    bias: np.ndarray  # (L, N) float32


class Stack(NamedTuple):
    """All layers packed in the order a step reads them; norms and the score's scale are folded in."""

    qkv: Rows  # N = 3 * H * K', K = D'
    out: Rows  # D', H * K'
    up: Rows  # F', D'
    down: Rows  # D', F'
    norm: np.ndarray  # (2, D'): gain and bias of the last LayerNorm
    inverse_frequency: np.ndarray  # (K / 2,) float64
    erf: np.ndarray  # coefficients, highest power first
    heads: int
    head_width: int
    width: int


class Cache(NamedTuple):
    """Keys and values of the last W bins, `slots` a bin, and the sinks behind them; all float32.

    Two numbers hide a slot (a bin without such a key, or padding): FAR is added to its score, so that it is never the
    highest, and its weight is multiplied by 0, so that it is exactly 0.
    """

    k: np.ndarray  # (L, H, N / LANES, K', LANES) rotated: `panels` of the keys
    v: np.ndarray  # (L, H, K' / LANES, N, LANES): `panels` of the values' columns
    factor: np.ndarray  # (N,) of a slot's weight: 0 where it is hidden, else 1
    far: np.ndarray  # (N,) added to its score: FAR where it is hidden, else 0
    band: int  # W
    slots: int
    ring: int  # slots that are overwritten; the rest are sinks


class Work(NamedTuple):
    """Buffers of one step for at most T tokens, and the rows behind them that complete the last FOUR."""

    x: np.ndarray  # (T, D') residual stream
    normed: np.ndarray  # (T, D')
    plain: np.ndarray  # (T, 3 * H * K') queries, keys, values before rotation
    turned: np.ndarray  # (T, H * K') rotated queries
    score: np.ndarray  # (T, N)
    mixed: np.ndarray  # (T, H * K')
    inner: np.ndarray  # (T, F')
    short: np.ndarray  # (T, max(D', H * K', F') + 2) int16: rows that `rows.shortened` wrote
    cosine: np.ndarray  # (K / 2 + LANES,)
    sine: np.ndarray


@structref.register
class _PartsType(types.StructRef):
    """How Numba sees `Parts`."""


class Parts(structref.StructRefProxy):
    """Parts(stack, cache, work): all that a step works on, as one argument of compiled code.

    A call with tuples unpacks every array each time, which took 8 us for these; this takes 1 us.
    """

    stack: Stack
    cache: Cache
    work: Work


structref.define_proxy(Parts, _PartsType, list(Parts.__annotations__))


@structref.register
class _EndsType(types.StructRef):
    """How Numba sees `Ends`."""


class Ends(structref.StructRefProxy):
    """A bin's tokens before the step, and its outputs behind it; like `Parts`, read by compiled code alone.

    For U units, K filters, C clock rows, Q queries and V outputs; float32 where no type is given. An output is
    scale[v] * (weight[v] . x[query[v]] + bias[v]) + offset[v], and in a group the softmax of its sums in place of the
    sum.
    """

    keep: np.ndarray  # (K,) of a filter's state, from bin to bin
    state: np.ndarray  # (K, U) overwritten
    features: np.ndarray  # ((1 + K) U,) overwritten; not used without filters
    rows: np.ndarray  # ((1 + K) U, D): of the roots of counts, then of each filter
    constants: np.ndarray  # (C, D) of the spike token
    codes: np.ndarray  # (C, D) of every other token
    asked: np.ndarray  # (Q, D) queries
    weight: np.ndarray  # (V, D)
    bias: np.ndarray  # (V,)
    query: np.ndarray  # (V,) int64: the one that an output is read from
    groups: np.ndarray  # (G, 2) int64: begin and end of the outputs of a class
    scale: np.ndarray  # (V,)
    offset: np.ndarray  # (V,)
    values: np.ndarray  # (V,) overwritten


structref.define_proxy(Ends, _EndsType, list(Ends.__annotations__))


@structref.register
class _MembersType(types.StructRef):
    """How Numba sees `Members`."""


class Members(structref.StructRefProxy):
    """Members(each): several models of one shape as one argument of compiled code, each its (`Parts`, `Ends`)."""

    each: tuple[tuple[Parts, Ends], ...]


structref.define_proxy(Members, _MembersType, list(Members.__annotations__))


def padded(n: int) -> int:
    """n, up to the next multiple of LANES."""
    return -(-n // LANES) * LANES


def _erf_coefficients() -> np.ndarray:
    """erf(x) / x for |x| <= ERF_END as a polynomial of degree 16 in t = 2 x^2 / ERF_END^2 - 1; error below 2e-7."""

    t = chebyshev.chebpts1(ERF_TERMS)
    x = np.sqrt((t + 1) * ERF_END**2 / 2)
    ratio = np.array([math.erf(one) / one for one in x])
    return chebyshev.cheb2poly(chebyshev.chebfit(t, ratio, ERF_TERMS - 1))[::-1].astype(np.float32)


def _place(values: np.ndarray, *shape: int) -> np.ndarray:
    """Values in the corner of zeros of a shape, as contiguous float32."""
    out = np.zeros(shape, np.float32)
    out[tuple(slice(0, n) for n in values.shape)] = values
    return out


def _rows(weight: Sequence[np.ndarray], bias: Sequence[np.ndarray], precision: Precision, large: bool) -> Rows:
    """Weights of all layers, rounded to a precision; large: float32 in three bytes."""
    w, b = np.stack(weight), np.stack(bias)
    ones = np.ones(w.shape[:2], np.float32)
    if precision == "float32" and not large:
        return Rows(in_parts(w), ones, b)
    if precision != "float32" and not np.isfinite(w).all():  # rounding would turn them into plausible numbers
        raise ValueError(f"weights that are not finite cannot be stored as {precision}; leave them float32")
    if precision == "bfloat16":  # to the nearest, ties to even
        bits = w.view(np.uint32)
        return Rows(in_parts(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)), ones, b)
    most, kind, unit = (127, np.int8, 1) if precision == "int8" else (2**23 - 2, np.int32, 256)
    step = np.maximum(np.abs(w).max(2, keepdims=True) / most, LEAST_STEP)
    with np.errstate(invalid="ignore"):
        numbers = np.nan_to_num(np.rint(w / step.astype(np.float64)))  # a row that is not finite keeps such a step
    return Rows(in_parts(numbers.astype(kind)), (step / unit)[..., 0].astype(np.float32), b)


def pack(
    layers: Sequence[Layer],
    norm: tuple[np.ndarray, np.ndarray],
    heads: int,
    precision: Precision = "float32",
    base: float = 10000.0,
) -> Stack:
    """Weights for `step`. norm: gain and bias (D,) of the last LayerNorm; base: of the rotary frequencies.

    precision: how the weights are stored. int8 weights have one scale a row and are multiplied in integers with
    activations rounded to 16 bits, one scale a token; all other sums are float32. Raises ValueError.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"weights cannot be stored as {precision!r}; give one of {', '.join(get_args(Precision))}")
    width = len(norm[0])
    if width % (2 * heads):
        raise ValueError(f"a width of {width} is not {heads} heads of an even width, which rotary positions need")
    k, inner = width // heads, layers[0].up[0].shape[0]
    kp, dp, fp = padded(k), padded(width), padded(inner)
    qkv, qkv_bias, out, up, up_bias = [], [], [], [], []
    for layer in layers:
        gain, shift = (part.astype(np.float64) for part in layer.norm_attention)
        weight, bias = layer.qkv[0] * gain, layer.qkv[1] + layer.qkv[0] @ shift
        weight, bias = weight.reshape(3, heads, k, width), bias.reshape(3, heads, k)
        scale = np.array([k**-0.5, 1.0, 1.0])  # of the scores, folded into the queries
        qkv.append(_place(weight * scale[:, None, None, None], 3, heads, kp, dp).reshape(-1, dp))
        qkv_bias.append(_place(bias * scale[:, None, None], 3, heads, kp).reshape(-1))
        out.append(_place(layer.out[0].reshape(width, heads, k), dp, heads, kp).reshape(dp, -1))
        gain, shift = (part.astype(np.float64) for part in layer.norm_mlp)
        up.append(_place(layer.up[0] * gain, fp, dp))
        up_bias.append(_place(layer.up[1] + layer.up[0] @ shift, fp))
    down = [_place(layer.down[0], dp, fp) for layer in layers]
    large = sum(w.nbytes for w in (*qkv, *out, *up, *down)) > LARGE
    return Stack(
        _rows(qkv, qkv_bias, precision, large),
        _rows(out, [_place(layer.out[1], dp) for layer in layers], precision, large),
        _rows(up, up_bias, precision, large),
        _rows(down, [_place(layer.down[1], dp) for layer in layers], precision, large),
        np.stack([_place(part, dp) for part in norm]),
        base ** (-np.arange(0, k, 2) / k), _erf_coefficients(),
        heads, k, width,
    )  # fmt: skip


def make_cache(layers: Sequence[Layer], heads: int, band: int, slots: int) -> Cache:
    """An empty cache of `band` bins with room for `slots` keys each, and the sinks of the layers."""
    _, n_sinks, k = layers[0].sink_k.shape
    kp, ring = padded(k), padded(band * slots)
    n = ring + padded(n_sinks)
    both = np.zeros((2, len(layers), heads, n, kp), np.float32)
    for i, layer in enumerate(layers):
        both[:, i, :, ring : ring + n_sinks, :k] = layer.sink_k, layer.sink_v
    factor, far = np.zeros(n, np.float32), np.full(n, FAR, np.float32)
    factor[ring : ring + n_sinks], far[ring : ring + n_sinks] = 1.0, 0.0
    return Cache(panels(both[0]), panels(both[1].swapaxes(-2, -1)), factor, far, band, slots, ring)


def make_work(stack: Stack, cache: Cache, n_tokens: int) -> Work:
    """Buffers for steps of at most n_tokens tokens."""
    n = cache.v.shape[3]
    dp, span, inner = len(stack.norm[0]), stack.qkv.bias.shape[1] // 3, stack.up.bias.shape[1]
    half = stack.head_width // 2

    def room(columns: int, dtype: type = np.float32) -> np.ndarray:
        return aligned((n_tokens + FOUR - 1, columns), dtype)

    return Work(
        room(dp), room(dp), room(3 * span), room(span), room(n), room(span), room(inner),
        room(max(dp, span, inner) + 2, np.int16),
        np.zeros(half + LANES, np.float32), np.zeros(half + LANES, np.float32),
    )  # fmt: skip
