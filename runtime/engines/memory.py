"""What brings what a step of an engine reads into the processor's caches, shortly before it."""

from __future__ import annotations

from collections.abc import Callable

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


def rehearsal(engine: Engine) -> tuple[Callable[[], None], list[np.ndarray]] | None:
    """A step that nobody reads and that changes nothing a step reads, and what of `memory` it leaves out; None where an
    engine has no such step."""
    if isinstance(engine, StreamEngine):
        return engine.rehearse, [engine.weights.rows]
    if not isinstance(engine, EnsembleEngine):
        return None
    streams = [network for network in engine.networks if isinstance(network, StreamEngine)]
    if len(streams) < len(engine.networks):
        return None
    others = [array for part in reversed(engine.parts[len(streams) :]) for array in memory(part)]
    return engine.rehearse, others + [network.weights.rows for network in reversed(streams)]


def _of_stream(engine: StreamEngine) -> list[np.ndarray]:
    weights, cache = engine.weights, engine.stepper.cache
    stack = weights.stack
    read = (stack.qkv.weight, cache.k, cache.v, stack.out.weight, stack.up.weight, stack.down.weight)
    return [array[layer] for layer in reversed(range(len(weights.layers))) for array in reversed(read)] + [weights.rows]
