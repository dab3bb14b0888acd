"""One streaming step of a causal transformer on one CPU core: the fast twin of the torch step over `ring.Ring`.

A step allocates nothing and holds no lock (`nogil`); what it works on is made by `numba_pack`.
"""

from __future__ import annotations

import math

import numpy as np

from kernels.numba_jit import jit
from kernels.numba_pack import FAR, Cache, Stack, Work
from kernels.numba_rows import added, gelu, normed, rotate, scaled, scatter, softmax
from kernels.numba_tiles import product
from kernels.numba_vectors import FOUR, LANES, at


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
def step(stack: Stack, cache: Cache, work: Work, n_keys: int, n_tokens: int, position: int) -> None:
    """Run work.x (n_tokens, D') of one bin through all layers; the first n_keys tokens become keys of this bin.

    On return work.x[n_keys:n_tokens] holds the queries behind the last LayerNorm; nothing is
    computed for the key tokens that nobody reads.
    """
    heads, width, k = stack.heads, stack.width, stack.head_width
    n, kp = cache.v.shape[2:]
    span, ring, half = heads * kp, cache.ring, len(stack.inverse_frequency)
    n_layers, wide = stack.out.bias.shape
    inner, turns = stack.up.bias.shape[1], work.turned.shape[1]
    for i in range(half):
        angle = position * stack.inverse_frequency[i]  # float64: bin 10**7 is as exact as bin 0
        work.cosine[i], work.sine[i] = math.cos(angle), math.sin(angle)
    begin = position % cache.band * cache.slots
    for slot in range(begin, begin + n_keys):
        cache.shown[slot], cache.far[slot] = 1.0, 0.0
    hide(cache, position, n_keys)
    x, normal, plain, turned = at(work.x, 0), at(work.normed, 0), at(work.plain, 0), at(work.turned, 0)
    score, mixed, hidden = at(work.score, 0), at(work.mixed, 0), at(work.inner, 0)
    cosine, sine, shown, far, erf = at(work.cosine, 0), at(work.sine, 0), at(cache.shown, 0), at(cache.far, 0), at(stack.erf, 0)
    for layer in range(n_layers):
        first = n_keys if layer == n_layers - 1 else 0
        asking = n_tokens - first
        rows = 3 * span
        weight, scale, bias = at(stack.qkv.weight, layer * rows * wide), at(stack.qkv.scale, layer * rows), at(stack.qkv.bias, layer * rows)
        for t in range(0, n_tokens, FOUR):
            normed(at(x, t * wide), at(normal, t * wide), wide, width)
        product(weight, LANES * wide, LANES, wide, span // LANES, at(normal, first * wide), wide, asking, at(plain, first * rows), rows)
        product(at(weight, span * wide), LANES * wide, LANES, wide, 2 * span // LANES, normal, wide, n_keys, at(plain, span), rows)
        for t in range(first, n_tokens, FOUR):
            scaled(at(plain, t * rows), rows, span, scale, bias)
        for t in range(0, n_keys, FOUR):
            scaled(at(plain, t * rows + span), rows, 2 * span, at(scale, span), at(bias, span))
        for t in range(n_keys):
            key, value = at(turned, t * turns), at(plain, t * rows + 2 * span)
            rotate(at(plain, t * rows + span), key, heads, kp, half, cosine, sine)
            for h in range(heads):
                block = (layer * heads + h) * kp * n
                scatter(at(key, h * kp), k, at(cache.k, block + begin + t), n)
                scatter(at(value, h * kp), k, at(cache.v, block + (begin + t) * kp), 1)
        for t in range(first, n_tokens):
            rotate(at(plain, t * rows), at(turned, t * turns), heads, kp, half, cosine, sine)
        for h in range(heads):
            block = (layer * heads + h) * kp * n
            keys, values, scores = at(cache.k, block), at(cache.v, block), at(score, first * n)
            product(keys, LANES, n, kp, ring // LANES, at(turned, first * turns + h * kp), turns, asking, scores, n)
            product(at(keys, ring), LANES, n, kp, (n - ring) // LANES, at(plain, first * rows + h * kp), rows, asking, at(scores, ring), n)
            for t in range(first, n_tokens, FOUR):
                softmax(at(score, t * n), n, shown, far)
            product(values, LANES, kp, n, kp // LANES, scores, n, asking, at(mixed, first * span + h * kp), span)
        product(at(stack.out.weight, layer * wide * span), LANES * span, LANES, span, wide // LANES, at(mixed, first * span), span, asking, at(normal, first * wide), wide)
        for t in range(first, n_tokens, FOUR):
            added(at(normal, t * wide), wide, wide, at(stack.out.scale, layer * wide), at(stack.out.bias, layer * wide), at(x, t * wide))
        for t in range(first, n_tokens, FOUR):
            normed(at(x, t * wide), at(normal, t * wide), wide, width)
        product(at(stack.up.weight, layer * inner * wide), LANES * wide, LANES, wide, inner // LANES, at(normal, first * wide), wide, asking, at(hidden, first * inner), inner)
        for t in range(first, n_tokens, FOUR):
            scaled(at(hidden, t * inner), inner, inner, at(stack.up.scale, layer * inner), at(stack.up.bias, layer * inner))
            gelu(at(hidden, t * inner), inner, erf)
        product(at(stack.down.weight, layer * wide * inner), LANES * inner, LANES, inner, wide // LANES, at(hidden, first * inner), inner, asking, at(normal, first * wide), wide)
        for t in range(first, n_tokens, FOUR):
            added(at(normal, t * wide), wide, wide, at(stack.down.scale, layer * wide), at(stack.down.bias, layer * wide), at(x, t * wide))
    for t in range(n_keys, n_tokens, FOUR):
        normed(at(x, t * wide), at(normal, t * wide), wide, width)
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
