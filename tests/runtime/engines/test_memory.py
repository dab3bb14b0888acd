"""What is touched before a step is what the step reads, and not a copy of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from kernels.cpu.touch import parts
from neds_core import ensemble
from neds_core.checkpoint import Checkpoint
from runtime.engines import create as engines
from runtime.engines.ensemble import EnsembleEngine
from runtime.engines.linear import LinearEngine
from runtime.engines.memory import memory
from runtime.engines.nothing import Nothing
from runtime.engines.stream import StreamEngine


@pytest.fixture(scope="module")
def joined(make_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    """Two networks and the linear decoder."""
    return ensemble.join([replace(make_checkpoint(seed=s), sha=f"sha-{s}") for s in range(2)], "all")


def test_all_that_a_step_of_a_blend_reads_is_touched(joined: Checkpoint) -> None:
    engine = engines.create(joined, "blend")
    assert isinstance(engine, EnsembleEngine)
    touched = [part for array in memory(engine) for part in parts(array)]
    read: list[np.ndarray] = []
    for one in engine.parts:
        if isinstance(one, StreamEngine):
            stack, cache = one.weights.stack, one.stepper.cache
            read += [rows.weight for rows in (stack.qkv, stack.out, stack.up, stack.down)]
            read += [cache.k, cache.v, one.weights.rows]
        elif isinstance(one, LinearEngine):
            read += [array for features, weight, *_ in one.readouts for array in (features, weight)]
    assert len(read) == 2 * 7 + 2 * 2
    for array in read:
        assert sum(part.nbytes for part in touched if np.shares_memory(part, array)) == array.nbytes
    assert sum(part.nbytes for part in touched) == sum(array.nbytes for array in read)


def test_another_engine_has_nothing_to_touch() -> None:
    assert memory(Nothing()) == []
