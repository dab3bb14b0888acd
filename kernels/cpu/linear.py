"""One streaming step of a linear decoder: causal features of counts, and their weighted sums; and how far several
decoders are apart. Allocates nothing.

A feature bank is its state (copies, U): the last bins, newest first, or one exponential filter a row.
"""

from __future__ import annotations

import math

import numpy as np

from kernels.cpu.jit import jit


@jit
def take_lags(state, counts, used, root, features):
    """A new bin into `state` (n, U) of the last n bins, and its features (>= n * U,): the state, or its square roots.

    counts (U,) uint16; used (U,) bool: units that enter, the others are zeros; float32 where no type is given.
    """
    n, units = state.shape
    for lag in range(n - 1, 0, -1):
        for u in range(units):
            state[lag, u] = state[lag - 1, u]
    for u in range(units):
        state[0, u] = np.float32(counts[u]) if used[u] else np.float32(0.0)
    _write(state, root, features)


@jit
def take_filters(state, keep, counts, used, root, features):
    """A new bin into filters `state` (n, U) that keep the share keep (n,) of theirs, and its features (>= n * U,)."""
    n, units = state.shape
    for f in range(n):
        kept, new = keep[f], np.float32(1.0) - keep[f]
        for u in range(units):
            state[f, u] *= kept
            if used[u]:
                state[f, u] += new * np.float32(counts[u])
    _write(state, root, features)


@jit
def _write(state, root, features):
    n, units = state.shape
    for c in range(n):
        for u in range(units):
            x = state[c, u]
            features[c * units + u] = math.sqrt(x) if root else x


@jit
def read(features, weight, bias, is_class, out):
    """out (C,) = features (F,) @ weight (F, C) + bias (C,), of a class their softmax; features of 0 cost little."""
    for c in range(len(out)):
        out[c] = bias[c]
    for f in range(len(features)):
        x = features[f]
        if x != 0.0:
            for c in range(len(out)):
                out[c] += x * weight[f, c]
    if is_class:
        top = out.max()
        total = np.float32(0.0)
        for c in range(len(out)):
            out[c] = math.exp(out[c] - top)
            total += out[c]
        for c in range(len(out)):
            out[c] /= total


@jit
def variance(each, out):
    """out (V,) = sample variance over the rows of each (K, V) float32, K > 1, about their mean."""
    n, width = each.shape
    for v in range(width):
        total, square = np.float32(0.0), np.float32(0.0)
        for k in range(n):
            total += each[k, v]
        mean = total / np.float32(n)
        for k in range(n):
            square += (each[k, v] - mean) ** 2
        out[v] = square / np.float32(n - 1)


@jit
def advance(a, b, offset, counts, state, new):
    """state (V,) = a (V, V) @ state + b (V, U) @ counts (U,) uint16 + offset (V,), float64; new (V,) is scratch."""
    width, units = b.shape
    for v in range(width):
        total = offset[v]
        for w in range(width):
            total += a[v, w] * state[w]
        for u in range(units):
            total += b[v, u] * counts[u]
        new[v] = total
    for v in range(width):
        state[v] = new[v]
