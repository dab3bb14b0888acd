"""One streaming step of a causal transformer on one CPU core: the fast twin of the torch step over `ring.Ring`.

A step allocates nothing and holds no lock (`nogil`); what it works on is made by `numba_pack`.
"""

from __future__ import annotations

import math

import numpy as np

from kernels.numba_jit import jit
from kernels.numba_pack import ERF_END, FAR, Cache, Stack, Work
from kernels.numba_tiles import across, linear, top

EPS = 1e-5  # of torch's LayerNorm


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
