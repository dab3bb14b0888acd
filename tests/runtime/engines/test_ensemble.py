"""The weighted sum of several networks and the linear decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from numba.core import event

from kernels.cpu.pack import Precision
from neds_core import ensemble
from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Verdict
from neds_core.errors import ConfigError
from runtime.core.engine import DECODERS, Engine
from runtime.core.values import Token
from runtime.engines import create as engines, prepare
from runtime.engines.ensemble import EnsembleEngine

U, T = 12, 40


@pytest.fixture(scope="module", params=[{}, {"clock_bins": 4}, {"filter_taus_ms": (30.0, 600.0)}], ids=str)
def joined(request: pytest.FixtureRequest, make_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    """Three networks."""
    each = [replace(make_checkpoint(seed=s, **request.param), sha=f"sha-{s}") for s in range(3)]
    return ensemble.join(each, "all")


def tokens() -> list[Token]:
    """Bins with and without spikes and live data, two cold starts."""
    rng = np.random.default_rng(5)
    counts = rng.poisson(0.7, (T, U)).astype(np.uint16)
    return [Token(t, 0, counts[t], valid=t % 9 != 4, clock=t % 20, reset=t % 20 == 0) for t in range(T)]


def play(engine: Engine) -> np.ndarray:
    """Values (T, V) of the tokens; three bins go unseen after the tenth."""
    found = []
    for token in tokens():
        if token.reset:
            engine.reset(token.index)
        if token.index == 10:
            engine.skip(3)
        found.append(engine.step(token).copy())
    return np.stack(found)


@pytest.mark.parametrize("weights", ["float32", "int8"])
@pytest.mark.parametrize("decoder", ["neds", "blend"])
def test_it_is_the_weighted_sum_of_its_parts(joined: Checkpoint, decoder: str, weights: Precision) -> None:
    """To the last bit, in the order of the parts: one call for all networks changes nothing in any of them."""
    alone = [play(engines.create(joined.alone(m), "neds", weights)) for m in range(3)]
    share = np.full((3, 3), 1 / 3)
    if decoder == "blend":
        share = np.repeat([[0.35, 0.8, 0.8]], 3, axis=0) / 3
    parts, own = alone, share.astype(np.float32)
    if decoder == "blend":
        parts, own = [*alone, play(engines.create(joined, "ridge"))], np.concatenate([own, 1.0 - own.sum(0)[None]])
    expected = own[0] * parts[0]
    for weight, part in zip(own[1:], parts[1:], strict=True):
        expected = expected + weight * part

    np.testing.assert_array_equal(play(engines.create(joined, decoder, weights)), expected)


@pytest.mark.parametrize("decoder", ["neds", "ridge", "blend"])
def test_streamed_is_offline(joined: Checkpoint, decoder: str) -> None:
    """Over cold starts and bins without live data."""
    engine, each = engines.create(joined, decoder), tokens()
    streamed = []
    for token in each:
        if token.reset:
            engine.reset()
        streamed.append(engine.step(token).copy())

    told = [np.array([getattr(t, name) for t in each]) for name in ("counts", "valid", "clock", "reset")]
    offline = engine.offline(*told)

    valid = np.array([t.valid for t in each])
    np.testing.assert_allclose(np.stack(streamed)[valid], offline[valid], atol=1e-5, rtol=1e-5)


def test_its_variance_is_that_between_its_networks(joined: Checkpoint) -> None:
    """After each step, also where one of them is all there is."""
    alone = np.stack([play(engines.create(joined.alone(m), "neds")) for m in range(3)])
    for decoder in ("neds", "blend"):
        engine, found = engines.create(joined, decoder), []
        assert isinstance(engine, EnsembleEngine)
        step = engine.step
        engine.step = lambda token, step=step, engine=engine, found=found: (  # pyright: ignore[reportAttributeAccessIssue]
            step(token), found.append(engine.variance.copy()), engine.values
        )[2]  # fmt: skip
        play(engine)
        # 1e-6: float32 sums in another order
        np.testing.assert_allclose(np.stack(found), alone.var(0, ddof=1), atol=1e-6, rtol=1e-4)
    one = engines.create(joined.alone(0), "blend")
    assert isinstance(one, EnsembleEngine)
    play(one)
    assert not one.variance.any()


def of_verdicts(made: Checkpoint, **recommended: str) -> Checkpoint:
    """The same with other recommendations, none given = not judged."""
    verdicts = {name: Verdict(decoder, "") for name, decoder in recommended.items()}  # pyright: ignore[reportArgumentType]
    return replace(made, header=msgspec.structs.replace(made.header, verdicts=verdicts))


@pytest.mark.parametrize("wheel", DECODERS)
@pytest.mark.parametrize("choice", DECODERS)
def test_each_output_is_decoded_as_recommended(joined: Checkpoint, wheel: str, choice: str) -> None:
    """By the values of its own decoder; where all outputs agree, by that decoder, under its own name."""
    made = of_verdicts(joined, wheel_speed=wheel, choice=choice)
    by = {name: play(engines.create(made, name)) for name in {wheel, choice}}

    found = play(engines.create(made, "recommended"))

    # 1e-6: the shares of three networks do not sum to 1 to the last bit
    np.testing.assert_allclose(found[:, :1], by[wheel][:, :1], atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(found[:, 1:], by[choice][:, 1:], atol=1e-6, rtol=1e-6)
    decoder = engines.decoder(made, "recommended")
    assert decoder.name == (wheel if wheel == choice else "recommended")
    assert engines.said(made) == f"decoder as recommended: wheel_speed {wheel}, choice {choice}"


def test_a_checkpoint_that_was_not_judged_decodes_by_neds(joined: Checkpoint) -> None:
    """As ever, and it is said."""
    assert engines.decoder(of_verdicts(joined), "recommended").name == "neds"
    assert engines.said(of_verdicts(joined)).startswith("decoder neds: the checkpoint does not recommend one")
    with pytest.raises(ConfigError, match="choose one of neds, ridge, blend, recommended"):
        engines.create(joined, "best")


def test_the_mean_of_one_is_that_one(make_checkpoint: Callable[..., Checkpoint]) -> None:
    """A checkpoint of one network has no sum around it."""
    assert not isinstance(engines.create(make_checkpoint(), "neds"), EnsembleEngine)


def test_it_says_what_it_is_made_of(joined: Checkpoint) -> None:
    """In every message."""
    assert engines.create(joined, "neds").name == "3 x stream-numba-cpu"
    assert engines.create(joined, "blend").name == "3 x stream-numba-cpu + linear-numba-cpu"
    assert engines.create(joined.alone(1), "blend").name == "stream-numba-cpu + linear-numba-cpu"


def test_counts_of_another_shape_are_refused_by_all(joined: Checkpoint) -> None:
    """Compiled code does not check them."""
    engine = engines.create(joined, "neds")
    with pytest.raises(ValueError, match="this decoder takes uint16"):
        engine.step(Token(0, 0, np.zeros(U - 1, np.uint16), valid=True))


def test_after_warm_up_nothing_is_compiled(joined: Checkpoint) -> None:
    """Nor is the position of one network another than that of the others."""
    engine = engines.create(joined, "blend")
    assert isinstance(engine, EnsembleEngine)
    prepare.warm_up(engine, U)

    with event.install_recorder("numba:compile") as compiled:
        play(engine)

    assert not compiled.buffer
    assert len({network.stepper.position for network in engine.networks}) == 1  # pyright: ignore[reportAttributeAccessIssue]
