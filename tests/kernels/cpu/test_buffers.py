"""A step leaves no trace outside its buffers and, after a cold start, none inside them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kernels.cpu import pack, step as kernel
from kernels.cpu.pack import Layer, Stack


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("half", [4, 8])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_poisoned_token_shows(
    small: Callable[..., tuple[list[Layer], Stack]], poison: float, half: int, precision: pack.Precision
) -> None:
    """It is not turned into a plausible number, and a cold start removes every trace of it, whatever comes then."""
    layers, stack = small(half, precision)
    rng, slots, queries = np.random.default_rng(0), 3, 4
    cache, fresh = (pack.make_cache(layers, 3, 5, slots) for _ in range(2))
    work, clean = (pack.make_work(stack, one, slots + queries) for one in (cache, fresh))

    def run(cache: pack.Cache, work: pack.Work, token: np.ndarray, n_keys: int, position: int) -> np.ndarray:
        work.x[: len(token), : token.shape[1]] = token
        kernel.step(pack.Parts(stack, cache, work), n_keys, len(token), position)
        return work.x[n_keys : len(token), : token.shape[1]].copy()

    bad = rng.standard_normal((slots + queries, stack.width)).astype(np.float32)
    bad[0, 3] = poison
    assert not np.isfinite(run(cache, work, bad, slots, 0)).any()
    kernel.forget(cache)
    for position, (n_keys, asked) in enumerate([(0, 1), (1, 3), (3, 4), (2, 2), (0, 4), (3, 1), (1, 4)], 1):
        x = rng.standard_normal((n_keys + asked, stack.width)).astype(np.float32)
        got = run(cache, work, x, n_keys, position)
        assert np.isfinite(got).all()
        assert np.array_equal(got, run(fresh, clean, x, n_keys, position))


@pytest.mark.parametrize("half", [1, 4, 8, 9, 16, 17])
@pytest.mark.parametrize("fill", [1.0, np.nan])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_step_stays_in_its_buffers(
    small: Callable[..., tuple[list[Layer], Stack]], half: int, fill: float, precision: pack.Precision
) -> None:
    """Made for exactly its tokens, they lie between numbers that it leaves alone, and NaNs that it does not use."""
    layers, stack = small(half, precision)
    rng = np.random.default_rng(half)
    for slots, asked in ((1, 1), (1, 3), (2, 4), (3, 4), (4, 5), (5, 1)):
        beside: list[np.ndarray] = []

        def moved(array: np.ndarray, beside: list[np.ndarray] = beside) -> np.ndarray:
            room = rng.standard_normal(array.size + 2048) * (fill if array.dtype == np.float32 else 100.0)
            room = room.astype(array.dtype)
            inside = room[1024:-1024].reshape(array.shape)
            inside[...] = array
            beside.extend([room[:1024], room[-1024:]])
            return inside

        cache = pack.make_cache(layers, 3, 4, slots)
        cache = cache._replace(**{name: moved(getattr(cache, name)) for name in ("k", "v", "factor", "far")})
        work = pack.Work(*(moved(one) for one in pack.make_work(stack, cache, slots + asked)))
        parts = pack.Parts(stack, cache, work)
        before = [one.copy() for one in beside]
        for position in range(6):
            n_keys = slots - position % 2
            work.x[: n_keys + asked, : stack.width] = rng.standard_normal((n_keys + asked, stack.width))
            kernel.step(parts, n_keys, n_keys + asked, position)
            assert np.isfinite(work.x[n_keys : n_keys + asked]).all()
        for one, then in zip(beside, before, strict=True):
            np.testing.assert_array_equal(one, then)
