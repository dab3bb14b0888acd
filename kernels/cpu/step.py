"""One streaming step of a causal transformer on one CPU core.

Specification: `kernels.reference`: `ingest` is its `stream_tokens`, `step` its `stream_block` layer after layer, and
`read` its `stream_read`. A step allocates nothing and holds no lock (`nogil`); it works on what `pack` makes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from kernels.cpu.jit import jit
from kernels.cpu.pack import FAR, REHEARSAL, Cache, Ends, Members, Parts
from kernels.cpu.rows import added, gelu, normed, rotate, scaled, scatter, shortened, softmax
from kernels.cpu.tiles import product
from kernels.cpu.vectors import FOUR, LANES, at


@jit
def forget(cache: Cache) -> None:
    """A cold start. Also wipes keys and values: a NaN in a slot would poison every step, because 0 times NaN is NaN."""
    cache.factor[: cache.ring] = 0.0
    cache.far[: cache.ring] = FAR
    cache.k[:, :, : cache.ring // LANES] = 0.0
    cache.v[:, :, :, : cache.ring] = 0.0


@jit
def hide(cache: Cache, position: int, first: int) -> None:
    """No key in the slots of a bin from `first` on."""
    begin = position % cache.band * cache.slots
    for slot in range(begin + first, begin + cache.slots):
        cache.factor[slot], cache.far[slot] = 0.0, FAR


@jit
def _norm(x, n_tokens, stride, width, out):
    for t in range(0, n_tokens, FOUR):
        normed(at(x, t * stride), at(out, t * stride), stride, width)


def _fitted(w, x, k, n_tokens, short) -> Any:
    """The tokens as `product` takes them beside weights w, and their stride: x (T, K), or beside int8 x `shortened`."""
    raise NotImplementedError("compiled code alone has this")


@overload(_fitted)
def _fitted_to(w, x, k, n_tokens, short):
    if w.dtype != types.int8:
        return lambda w, x, k, n_tokens, short: (x, k)

    def shorten(w, x, k, n_tokens, short):
        top = min(32767, (2**31 - 1) // (127 * k))  # so that no sum leaves int32
        for t in range(0, n_tokens, FOUR):
            shortened(at(x, t * k), k, top, at(short, t * (k + 2)))
        return short, k + 2

    return shorten


@jit
def _times(rows, layer, first, n_rows, x, n_tokens, y, short):
    """y[t, r] = w[first + r] . x[t] for n_rows rows of a layer's weights; x (T, K), y (T, N) pointers."""
    _, parts, panels, columns, width = rows.weight.shape
    k, panel = parts * columns, columns * width
    w = at(rows.weight, (layer * parts * panels + first // LANES) * panel)
    x, stride = _fitted(w, x, k, n_tokens, short)
    product(w, panel, panels * panel, k, n_rows // LANES, x, stride, n_tokens, y, rows.bias.shape[1])


@jit
def _linear(rows, layer, first, n_rows, x, n_tokens, y, short):
    """y[t, r] = scale[r] w[r] . x[t] + bias[r] for n_rows rows r of a layer's weights; x (T, K), y (T, N) pointers."""
    n, y = rows.bias.shape[1], at(y, first)
    row = layer * n + first
    _times(rows, layer, first, n_rows, x, n_tokens, y, short)
    for t in range(0, n_tokens, FOUR):
        scaled(at(y, t * n), n, n_rows, at(rows.scale, row), at(rows.bias, row))


@jit
def _onto(rows, layer, x, n_tokens, y, residual, short):
    """residual (T, N) += scale w . x + bias of a layer; y (T, N) is a buffer."""
    n = rows.bias.shape[1]
    row = layer * n
    _times(rows, layer, 0, n, x, n_tokens, y, short)
    for t in range(0, n_tokens, FOUR):
        added(at(y, t * n), n, n, at(rows.scale, row), at(rows.bias, row), at(residual, t * n))


@jit
def _store(cache, layer, key, value, k, slot):
    """One token's rotated key and its value (H * K',), k numbers in each head, into a slot."""
    heads, n_vectors, n, _ = cache.v.shape[1:]
    kp, panel, lane = n_vectors * LANES, slot // LANES, slot % LANES
    for h in range(heads):
        block = (layer * heads + h) * kp * n
        scatter(at(key, h * kp), k, at(cache.k, block + panel * kp * LANES + lane), LANES)
        for v in range(n_vectors):
            scatter(at(value, h * kp + v * LANES), LANES, at(cache.v, block + (v * n + slot) * LANES), 1)


@jit
def _attend(cache, layer, turned, plain, n_tokens, score, mixed):
    """mixed (T, H * K') of queries, rotated (T, H * K') for the ring and plain (T, 3 * H * K') for the sinks."""
    heads, n_vectors, n, _ = cache.v.shape[1:]
    kp, ring = n_vectors * LANES, cache.ring
    span, wide = heads * kp, kp * LANES
    factor, far = at(cache.factor, 0), at(cache.far, 0)
    for h in range(heads):
        block, column = (layer * heads + h) * kp * n, h * kp
        keys, values = at(cache.k, block), at(cache.v, block)
        sinks, n_sinks = at(keys, ring * kp), (n - ring) // LANES
        product(keys, wide, None, kp, ring // LANES, at(turned, column), span, n_tokens, score, n)
        product(sinks, wide, None, kp, n_sinks, at(plain, column), 3 * span, n_tokens, at(score, ring), n)
        for t in range(0, n_tokens, FOUR):
            softmax(at(score, t * n), n, factor, far)
        product(values, n * LANES, None, n, n_vectors, score, n, n_tokens, at(mixed, column), span)


@jit
def step(parts: Parts, n_keys: int, n_tokens: int, position: int) -> None:
    """Run work.x (n_tokens, D') of one bin through all layers; the first n_keys tokens become keys of this bin.

    On return work.x[n_keys:n_tokens] holds the queries behind the last LayerNorm. In the last
    layer the key tokens get a key and a value only: nothing reads the rest.
    """
    stack, cache, work = parts.stack, parts.cache, parts.work
    heads, kp, k, width = stack.heads, cache.k.shape[3], stack.head_width, stack.width
    span, half = heads * kp, len(stack.inverse_frequency)
    n_layers, wide = stack.out.bias.shape
    inner = stack.up.bias.shape[1]
    for i in range(half):
        angle = position * stack.inverse_frequency[i]  # float64: bin 10**7 is as exact as bin 0
        work.cosine[i], work.sine[i] = math.cos(angle), math.sin(angle)
    begin = position % cache.band * cache.slots
    for slot in range(begin, begin + n_keys):
        cache.factor[slot], cache.far[slot] = 1.0, 0.0
    hide(cache, position, n_keys)
    cosine, sine, erf, short = at(work.cosine, 0), at(work.sine, 0), at(stack.erf, 0), at(work.short, 0)
    for layer in range(n_layers):
        first = n_keys if layer == n_layers - 1 else 0
        asking = n_tokens - first
        x, normal, hidden = at(work.x, first * wide), at(work.normed, first * wide), at(work.inner, 0)
        plain, turned = at(work.plain, first * 3 * span), at(work.turned, first * span)
        _norm(at(work.x, 0), n_tokens, wide, width, at(work.normed, 0))
        _linear(stack.qkv, layer, 0, span, normal, asking, plain, short)
        _linear(stack.qkv, layer, span, 2 * span, at(work.normed, 0), n_keys, at(work.plain, 0), short)
        for t in range(n_keys):
            key, value = at(work.plain, (3 * t + 1) * span), at(work.plain, (3 * t + 2) * span)
            rotate(key, at(work.turned, 0), heads, kp, half, cosine, sine)
            _store(cache, layer, at(work.turned, 0), value, k, begin + t)
        for t in range(asking):
            rotate(at(plain, 3 * t * span), at(turned, t * span), heads, kp, half, cosine, sine)
        _attend(cache, layer, turned, plain, asking, at(work.score, 0), at(work.mixed, 0))
        _onto(stack.out, layer, at(work.mixed, 0), asking, normal, x, short)
        _norm(x, asking, wide, width, normal)
        _linear(stack.up, layer, 0, inner, normal, asking, hidden, short)
        for t in range(0, asking, FOUR):
            gelu(at(hidden, t * inner), inner, erf)
        _onto(stack.down, layer, hidden, asking, normal, x, short)
    _norm(at(work.x, n_keys * wide), n_tokens - n_keys, wide, width, at(work.normed, n_keys * wide))
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
def ingest_filtered(features, rows, constant, token):
    """Spike token (D,) of a bin with filters: constant + features @ rows; features (F,), rows (F, D)."""
    n, width = rows.shape
    for d in range(width):
        token[d] = constant[d]
    whole = n - n % FOUR
    for f in range(0, whole, FOUR):
        for d in range(width):
            token[d] += (
                features[f] * rows[f, d]
                + features[f + 1] * rows[f + 1, d]
                + features[f + 2] * rows[f + 2, d]
                + features[f + 3] * rows[f + 3, d]
            )
    for f in range(whole, n):
        for d in range(width):
            token[d] += features[f] * rows[f, d]


@jit
def follow(ends: Ends, counts: np.ndarray, spikes: bool) -> None:
    """One bin into the filters: their states, and with spikes the features; without, a bin in which nobody fired."""
    n, units = ends.state.shape
    for k in range(n):
        keep, new = ends.keep[k], np.float32(1.0) - ends.keep[k]
        for u in range(units):
            ends.state[k, u] *= keep
        if spikes:
            for u in range(units):
                ends.state[k, u] += new * np.float32(counts[u])
                ends.features[(1 + k) * units + u] = math.sqrt(ends.state[k, u])
    if n and spikes:
        for u in range(units):
            ends.features[u] = math.sqrt(np.float32(counts[u]))


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


@jit
def decode(parts: Parts, ends: Ends, counts: np.ndarray, spikes: bool, n_seen: int, row: int, position: int) -> None:
    """One bin from its counts (U,) uint16 to `ends.values`. One call: Python between several would run on cold caches.

    spikes: whether counts become a token, which is a key. The caller has written the tokens of n_seen behaviours, keys
    too, into work.x from row 1 on, or from row 0 without spikes. row: of the clock.
    Row `REHEARSAL`, with counts (0,): a step that nobody reads. It brings weights, keys, values and the code itself
    into the processor's caches. Its key lies in the slot of the bin to come until that bin writes or hides it.
    """
    if row != REHEARSAL:
        follow(ends, counts, spikes)
    if spikes:
        _take_in(ends, ends, counts, row, parts.work.x[0])
    _answer(parts, ends, n_seen + spikes, row, position)


@jit
def _take_in(ends: Ends, followed: Ends, counts: np.ndarray, row: int, token: np.ndarray) -> None:
    """The spike token of a bin; followed: whose filters have taken it in."""
    if len(ends.keep):
        ingest_filtered(followed.features, ends.rows, ends.constants[max(0, row)], token)
    else:
        ingest(counts, ends.rows, ends.constants[max(0, row)], token)


@jit
def _answer(parts: Parts, ends: Ends, n_keys: int, row: int, position: int) -> None:
    """From the n_keys tokens in work.x to `ends.values`."""
    x = parts.work.x
    n_asked, width = ends.asked.shape
    for q in range(n_asked):
        for d in range(width):
            x[n_keys + q, d] = ends.asked[q, d] + ends.codes[max(0, row), d]
    step(parts, n_keys, n_keys + n_asked, position)  # called once: each call would be compiled with all of it
    if row == REHEARSAL:
        return
    read(x, n_keys, ends.weight, ends.bias, ends.query, ends.groups, ends.values)
    for v in range(len(ends.values)):
        ends.values[v] = ends.values[v] * ends.scale[v] + ends.offset[v]


@jit
def decode_each(members: Members, counts: np.ndarray, spikes: bool, row: int, position: int) -> None:
    """`decode` of several models on the same bin, in which no behaviour is observed; the first's filters serve all."""
    followed = members.each[0][1]
    if row != REHEARSAL:
        follow(followed, counts, spikes)
    for m in range(len(members.each)):
        parts, ends = members.each[m]
        if spikes:
            _take_in(ends, followed, counts, row, parts.work.x[0])
        _answer(parts, ends, int(spikes), row, position)
