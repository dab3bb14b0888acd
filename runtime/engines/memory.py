"""What a step of an engine reads, to be read shortly before it."""

from __future__ import annotations

import numpy as np

from runtime.core.engine import Engine
from runtime.engines.ensemble import EnsembleEngine
from runtime.engines.linear import LinearEngine
from runtime.engines.stream import StreamEngine


def memory(engine: Engine) -> list[np.ndarray]:
    """Weights, cached keys and values of an engine, the last read first: what is touched last stays nearest.

    Nothing of engines on a GPU, and of those that need no cache to be warm: a window's step takes longer than a bin,
    and a state space fits the L1 cache.
    """
    if isinstance(engine, EnsembleEngine):
        return [array for part in reversed(engine.parts) for array in memory(part)]
    if isinstance(engine, StreamEngine):
        return _of_stream(engine)
    if isinstance(engine, LinearEngine):
        return [array for features, weight, *_ in reversed(engine.readouts) for array in (weight, features)]
    return []


def _of_stream(engine: StreamEngine) -> list[np.ndarray]:
    weights, cache = engine.weights, engine.stepper.cache
    stack = weights.stack
    read = (stack.qkv.weight, cache.k, cache.v, stack.out.weight, stack.up.weight, stack.down.weight)
    return [array[layer] for layer in reversed(range(len(weights.layers))) for array in reversed(read)] + [weights.rows]
