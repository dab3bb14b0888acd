"""What is touched before a step is what the step reads, and not a copy of it; what is rehearsed leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kernels.cpu.touch import parts
from neds_core import ensemble
from neds_core.checkpoint import Checkpoint
from runtime.core.engine import Engine
from runtime.core.values import Token
from runtime.engines import create as engines
from runtime.engines.ensemble import EnsembleEngine
from runtime.engines.linear import LinearEngine
from runtime.engines.memory import memory, rehearsal
from runtime.engines.nothing import Nothing
from runtime.engines.stream import StreamEngine

BOTH = ("wheel_speed", "choice")
OPERATIONS = ("step", "dropped", "skip", "reset", "poison")


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
    assert rehearsal(Nothing()) is None


@pytest.fixture(scope="module")
def rehearsed(joined: Checkpoint, tiny_ones: dict[str, Checkpoint]) -> dict[str, tuple[Engine, Engine]]:
    """Two of each engine that has a step to rehearse."""

    def two(make: Callable[[], Engine]) -> tuple[Engine, Engine]:
        return make(), make()

    kinds = {
        "observed": two(lambda: StreamEngine(tiny_ones["clocked"], observed=BOTH)),
        "filtered": two(lambda: StreamEngine(tiny_ones["filtered"])),
        "bfloat16": two(lambda: StreamEngine(tiny_ones["one layer"], "bfloat16")),
        "int8": two(lambda: StreamEngine(tiny_ones["phase-free"], "int8")),
    }
    return kinds | {name: two(lambda name=name: engines.create(joined, name)) for name in ("neds", "blend")}


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["observed", "filtered", "bfloat16", "int8", "neds", "blend"]),
    steps=st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 3)), min_size=1, max_size=60),
    seed=st.integers(0, 2**31),
)
def test_a_rehearsal_changes_no_bit(
    rehearsed: dict[str, tuple[Engine, Engine]], kind: str, steps: list[tuple[str, int]], seed: int
) -> None:
    """However often and whenever: before bins with and without data, what was skipped, cold starts and poison, after
    which a run starts cold."""
    rng, (plain, warm) = np.random.default_rng(seed), rehearsed[kind]
    found = rehearsal(warm)
    assert found is not None
    for engine in (plain, warm):
        engine.reset(seed)
    for t, (operation, times) in enumerate(steps):
        counts = rng.poisson(0.6, 12).astype(np.uint16)
        seen = np.array([rng.normal() if rng.random() < 0.5 else np.nan, rng.integers(0, 2)])
        seen[1] = seen[1] if rng.random() < 0.5 else np.nan
        if operation == "poison" and kind == "observed":
            seen[0] = np.inf
        token = Token(t, 0, counts, valid=operation != "dropped", clock=t % 4, observed=seen)
        before = warm.values.copy()
        for _ in range(times):
            found[0]()
        np.testing.assert_array_equal(warm.values, before)
        for engine in (plain, warm):
            if operation == "skip":
                engine.skip(times)
            elif operation == "reset":
                engine.reset(t)
            else:
                engine.step(token)
        np.testing.assert_array_equal(warm.values, plain.values)
        if not np.isfinite(plain.values).all():
            for engine in (plain, warm):
                engine.reset(t)


def test_what_a_rehearsal_leaves_out_is_the_rest(joined: Checkpoint) -> None:
    """Rows of units, of which a step reads those that fired, and the linear decoder."""
    engine = engines.create(joined, "blend")
    assert isinstance(engine, EnsembleEngine)
    found = rehearsal(engine)
    assert found is not None
    linear = engine.parts[-1]
    expected = [*memory(linear), *(one.weights.rows for one in engine.networks if isinstance(one, StreamEngine))]
    assert len(found[1]) == len(expected)
    assert all(any(np.shares_memory(left, array) for array in expected) for left in found[1])
