"""One streaming step of a causal transformer on one CPU core: the fast twin of the torch step over `ring.Ring`.

Everything is allocated by `pack` and `Step`; a step allocates nothing and holds no lock (`nogil`).
Widths are padded to eight lanes with zeros, which change no sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.polynomial import chebyshev

from kernels.numba_tiles import LANES, across, jit, linear, top

EPS = 1e-5  # of torch's LayerNorm
FAR = np.float32(-1e30)  # added to the score of a slot without a key
ERF_END = 4.0  # beyond, erf is 1 to float32

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

    weight: np.ndarray  # (L, N, K) float32, int8, or uint16: the bits of bfloat16
    scale: np.ndarray  # (L, N) float32, 1 where the weights are not int8
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
    """Keys and values of the last W bins, `slots` a bin, and the sinks behind them.

    k (L, H, K', N) rotated, v (L, H, N, K') float32; shown (N,) 1 where a slot holds a key, else 0;
    far (N,) what is added to its score. `ring` slots are overwritten, the rest are sinks.
    """

    k: np.ndarray
    v: np.ndarray
    shown: np.ndarray
    far: np.ndarray
    band: int
    slots: int
    ring: int


class Work(NamedTuple):
    """Buffers of one step for at most T tokens."""

    x: np.ndarray  # (T, D') residual stream
    normed: np.ndarray  # (T, D')
    plain: np.ndarray  # (T, 3 * H * K') queries, keys, values before rotation
    turned: np.ndarray  # (T, H * K') rotated queries
    score: np.ndarray  # (T, N)
    bits: np.ndarray  # (N,) int32, and the same memory as float32:
    power: np.ndarray
    mixed: np.ndarray  # (T, H * K')
    inner: np.ndarray  # (T, F')
    cosine: np.ndarray  # (K / 2,)
    sine: np.ndarray


def padded(n: int, step: int = LANES) -> int:
    """n, up to the next multiple of a step."""
    return -(-n // step) * step


def _erf_coefficients() -> np.ndarray:
    """erf(x) / x for |x| <= ERF_END as a polynomial of degree 16 in t = 2 x^2 / ERF_END^2 - 1; error below 2e-7."""

    t = chebyshev.chebpts1(17)
    x = np.sqrt((t + 1) * ERF_END**2 / 2)
    ratio = np.array([math.erf(one) / one for one in x])
    return chebyshev.cheb2poly(chebyshev.chebfit(t, ratio, 16))[::-1].astype(np.float32)


def _place(values: np.ndarray, *shape: int) -> np.ndarray:
    """Values in the corner of zeros of a shape, as contiguous float32."""
    out = np.zeros(shape, np.float32)
    out[tuple(slice(0, n) for n in values.shape)] = values
    return out


def _rows(weight: Sequence[np.ndarray], bias: Sequence[np.ndarray], precision: Precision) -> Rows:
    """Weights of all layers, rounded to a precision."""
    w, b = np.stack(weight), np.stack(bias)
    ones = np.ones(w.shape[:2], np.float32)
    if precision == "float32":
        return Rows(w, ones, b)
    if precision == "bfloat16":  # to the nearest, ties to even
        bits = w.view(np.uint32)
        return Rows(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16), ones, b)
    top = np.abs(w).max(2, keepdims=True)
    scale = np.where(top > 0, top / 127.0, 1.0).astype(np.float32)
    return Rows(np.rint(w / scale).astype(np.int8), scale[..., 0].copy(), b)


def pack(
    layers: Sequence[Layer],
    norm: tuple[np.ndarray, np.ndarray],
    heads: int,
    precision: Precision = "float32",
    base: float = 10000.0,
) -> Stack:
    """Weights for `step`. norm: gain and bias (D,) of the last LayerNorm; base: of the rotary frequencies.

    precision: how the weights are stored; sums are float32 always. int8 has one scale a row.
    """
    width = len(norm[0])
    k, inner = width // heads, layers[0].up[0].shape[0]
    kp, dp, fp = padded(k, 2 * LANES), padded(width), padded(inner)
    qkv, qkv_bias, out, up, up_bias = [], [], [], [], []
    for layer in layers:
        gain, shift = (part.astype(np.float64) for part in layer.norm_attention)
        weight, bias = layer.qkv[0] * gain, layer.qkv[1] + layer.qkv[0] @ shift
        weight, bias = weight.reshape(3, heads, k, width), bias.reshape(3, heads, k)
        scale = np.array([k**-0.5, 1.0, 1.0])  # of the scores, taken into the queries
        qkv.append(_place(weight * scale[:, None, None, None], 3, heads, kp, dp).reshape(-1, dp))
        qkv_bias.append(_place(bias * scale[:, None, None], 3, heads, kp).reshape(-1))
        out.append(_place(layer.out[0].reshape(width, heads, k), dp, heads, kp).reshape(dp, -1))
        gain, shift = (part.astype(np.float64) for part in layer.norm_mlp)
        up.append(_place(layer.up[0] * gain, fp, dp))
        up_bias.append(_place(layer.up[1] + layer.up[0] @ shift, fp))
    down = [_place(layer.down[0], dp, fp) for layer in layers]
    return Stack(
        _rows(qkv, qkv_bias, precision),
        _rows(out, [_place(layer.out[1], dp) for layer in layers], precision),
        _rows(up, up_bias, precision),
        _rows(down, [_place(layer.down[1], dp) for layer in layers], precision),
        np.stack([_place(part, dp) for part in norm]),
        base ** (-np.arange(0, k, 2) / k), _erf_coefficients(),
        heads, k, width,
    )  # fmt: skip


def make_cache(layers: Sequence[Layer], heads: int, band: int, slots: int) -> Cache:
    """An empty cache of `band` bins with room for `slots` keys each, and the sinks of the layers."""
    _, n_sinks, k = layers[0].sink_k.shape
    kp, ring = padded(k, 2 * LANES), padded(band * slots, 2 * LANES)
    n = ring + padded(n_sinks, 2 * LANES)
    cache = Cache(
        np.zeros((len(layers), heads, kp, n), np.float32), np.zeros((len(layers), heads, n, kp), np.float32),
        np.zeros(n, np.float32), np.full(n, FAR, np.float32), band, slots, ring,
    )  # fmt: skip
    for i, layer in enumerate(layers):
        cache.k[i, :, :k, ring : ring + n_sinks] = layer.sink_k.transpose(0, 2, 1)
        cache.v[i, :, ring : ring + n_sinks, :k] = layer.sink_v
    cache.shown[ring : ring + n_sinks], cache.far[ring : ring + n_sinks] = 1.0, 0.0
    return cache


@jit
def forget(cache: Cache) -> None:
    """A cold start. Also wipes what was stored, so that nothing poisoned lingers behind a weight of 0."""
    cache.shown[: cache.ring] = 0.0
    cache.far[: cache.ring] = FAR
    cache.k[:, :, :, : cache.ring] = 0.0
    cache.v[:, :, : cache.ring] = 0.0


@jit
def hide(cache: Cache, position: int, first: int) -> None:
    """No key in the slots of a bin from `first` on."""
    begin = position % cache.band * cache.slots
    for slot in range(begin + first, begin + cache.slots):
        cache.shown[slot], cache.far[slot] = 0.0, FAR


@jit
def _normed(x, width, out, first, last):
    """LayerNorm without gain and bias, which are folded into the weights behind it."""
    for t in range(first, last):
        mean = np.float32(0.0)
        for d in range(width):
            mean += x[t, d]
        mean /= width
        spread = np.float32(0.0)
        for d in range(width):
            spread += (x[t, d] - mean) ** 2
        scale = np.float32(1.0 / math.sqrt(spread / width + EPS))
        for d in range(width):
            out[t, d] = (x[t, d] - mean) * scale


@jit
def _gelu(x, erf):
    """x (F,) in place: x (1 + erf(x / sqrt 2)) / 2 (Hendrycks & Gimpel 2016)."""
    half = np.float32(math.sqrt(0.5))
    end, stretch = np.float32(ERF_END), np.float32(2.0 / ERF_END**2)
    one = np.float32(1.0)
    for i in range(len(x)):
        z = x[i] * half
        near = min(max(z, -end), end)
        t = near * near * stretch - one
        ratio = erf[0]
        for j in range(1, 17):
            ratio = ratio * t + erf[j]
        x[i] = x[i] * np.float32(0.5) * (one + min(max(near * ratio, -one), one))


@jit
def _softmax(scores, t, shown, far, bits, power):
    """Row t of scores (T, N) in place to weights that sum to 1 over the shown slots."""
    score = scores[t]
    for i in range(len(score)):
        score[i] += far[i]
    highest = top(scores, t)
    per_octave, octave = np.float32(1.0 / math.log(2.0)), np.float32(math.log(2.0))
    for i in range(len(score)):  # exp(z) = 2^n exp(r), |r| <= log(2) / 2: eight terms of its series
        z = max(score[i] - highest, np.float32(-87.0))
        n = np.floor(z * per_octave + np.float32(0.5))
        r = z - n * octave
        e = np.float32(1.0 / 5040.0)
        e = e * r + np.float32(1.0 / 720.0)
        e = e * r + np.float32(1.0 / 120.0)
        e = e * r + np.float32(1.0 / 24.0)
        e = e * r + np.float32(1.0 / 6.0)
        e = e * r + np.float32(0.5)
        e = e * r + np.float32(1.0)
        score[i] = (e * r + np.float32(1.0)) * shown[i]
        bits[i] = (np.int32(n) + np.int32(127)) << np.int32(23)
    total = np.float32(0.0)
    for i in range(len(score)):
        score[i] *= power[i]
        total += score[i]
    share = np.float32(1.0) / total
    for i in range(len(score)):
        score[i] *= share


@jit
def _rotate(plain, turned, t, column, heads, padded_width, cosine, sine):
    """Rotary embedding (Su et al. 2021, half-split) of token t's heads from plain[t, column:] into turned[t, :]."""
    half = len(cosine)
    for h in range(heads):
        begin = h * padded_width
        for i in range(half):
            a, b = plain[t, column + begin + i], plain[t, column + begin + half + i]
            turned[t, begin + i] = a * cosine[i] - b * sine[i]
            turned[t, begin + half + i] = b * cosine[i] + a * sine[i]


@jit
def _product(rows, layer, x, token, n_tokens, y):
    n = rows.weight.shape[1]
    linear(rows.weight[layer], rows.scale[layer], rows.bias[layer], 0, n, x, token, n_tokens, 0, y, 0)


@jit
def step(stack: Stack, cache: Cache, work: Work, n_keys: int, n_tokens: int, position: int) -> None:
    """Run work.x (n_tokens, D') of one bin through all layers; the first n_keys tokens become keys of this bin.

    On return work.x[n_keys:n_tokens] holds the queries behind the last LayerNorm; nothing is
    computed for the key tokens that nobody reads.
    """
    heads, width, k = stack.heads, stack.width, stack.head_width
    n, kp = cache.v.shape[2:]
    span = heads * kp
    n_layers, ring = stack.out.weight.shape[0], cache.ring
    for i in range(len(work.cosine)):
        angle = position * stack.inverse_frequency[i]  # float64: bin 10**7 is as exact as bin 0
        work.cosine[i], work.sine[i] = math.cos(angle), math.sin(angle)
    begin = position % cache.band * cache.slots
    for slot in range(begin, begin + n_keys):
        cache.shown[slot], cache.far[slot] = 1.0, 0.0
    hide(cache, position, n_keys)
    for layer in range(n_layers):
        first = n_keys if layer == n_layers - 1 else 0
        asking = n_tokens - first
        _normed(work.x, width, work.normed, 0, n_tokens)
        qkv, scale, bias = stack.qkv.weight[layer], stack.qkv.scale[layer], stack.qkv.bias[layer]
        linear(qkv, scale, bias, 0, span, work.normed, first, asking, 0, work.plain, 0)
        linear(qkv, scale, bias, span, 2 * span, work.normed, 0, n_keys, 0, work.plain, span)
        for t in range(n_keys):
            _rotate(work.plain, work.turned, t, span, heads, kp, work.cosine, work.sine)
            for h in range(heads):
                for i in range(k):
                    cache.k[layer, h, i, begin + t] = work.turned[t, h * kp + i]
                    cache.v[layer, h, begin + t, i] = work.plain[t, 2 * span + h * kp + i]
        for t in range(first, n_tokens):
            _rotate(work.plain, work.turned, t, 0, heads, kp, work.cosine, work.sine)
        for h in range(heads):
            keys, values = cache.k[layer, h], cache.v[layer, h]
            across(keys, kp, 0, ring, work.turned, first, asking, h * kp, work.score, 0)
            across(keys, kp, ring, n - ring, work.plain, first, asking, h * kp, work.score, ring)
            for t in range(first, n_tokens):
                _softmax(work.score, t, cache.shown, cache.far, work.bits, work.power)
            across(values, n, 0, kp, work.score, first, asking, 0, work.mixed, h * kp)
        _product(stack.out, layer, work.mixed, first, asking, work.normed)
        for t in range(first, n_tokens):
            for d in range(width):
                work.x[t, d] += work.normed[t, d]
        _normed(work.x, width, work.normed, first, n_tokens)
        _product(stack.up, layer, work.normed, first, asking, work.inner)
        for t in range(first, n_tokens):
            _gelu(work.inner[t], stack.erf)
        _product(stack.down, layer, work.inner, first, asking, work.normed)
        for t in range(first, n_tokens):
            for d in range(width):
                work.x[t, d] += work.normed[t, d]
    _normed(work.x, width, work.normed, n_keys, n_tokens)
    for t in range(n_keys, n_tokens):
        for d in range(width):
            work.x[t, d] = work.normed[t, d] * stack.norm[0, d] + stack.norm[1, d]


def make_work(stack: Stack, cache: Cache, n_tokens: int) -> Work:
    """Buffers for steps of at most n_tokens tokens."""
    n = cache.v.shape[2]
    dp, span = stack.out.weight.shape[1:]
    bits = np.zeros(n, np.int32)

    def room(columns: int) -> np.ndarray:
        return np.zeros((n_tokens, columns), np.float32)

    half = stack.head_width // 2
    return Work(
        room(dp), room(dp), room(3 * span), room(span), room(n), bits, bits.view(np.float32), room(span),
        room(stack.up.weight.shape[1]), np.zeros(half, np.float32), np.zeros(half, np.float32),
    )  # fmt: skip


@jit
def ingest(counts, rows, constant, token):
    """Spike token (D,) of a bin: constant + sum over units of sqrt(count) row; cost follows the units that fired.

    counts (U,) uint16, rows (U, D) float32, constant (D,), token (>= D,).
    """
    width = rows.shape[1]
    for d in range(width):
        token[d] = constant[d]
    for u in range(len(counts)):
        if counts[u]:
            root = np.float32(math.sqrt(counts[u]))
            for d in range(width):
                token[d] += root * rows[u, d]


@jit
def read(x, first, weight, bias, query, groups, out):
    """Heads: out[v] = weight[v] . x[first + query[v]] + bias[v]; each group (begin, end) of out becomes a softmax.

    x (T, D'), weight (V, D), bias, out (V,) float32, query (V,) int64, groups (G, 2) int64.
    """
    for v in range(len(out)):
        total = bias[v]
        for d in range(weight.shape[1]):
            total += weight[v, d] * x[first + query[v], d]
        out[v] = total
    for g in range(len(groups)):
        begin, end = groups[g]
        top = out[begin]
        for v in range(begin, end):
            top = max(top, out[v])
        total = np.float32(0.0)
        for v in range(begin, end):
            out[v] = math.exp(out[v] - top)
            total += out[v]
        for v in range(begin, end):
            out[v] /= total
