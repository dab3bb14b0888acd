"""NaN and infinity in any engine are a flag and never a value, and a cold start heals what they touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from neds_core.checkpoint import Checkpoint
from neds_core.config import ModelConfig, TrainConfig
from neds_core.model.model import NEDS
from runtime.core.binning import Binner
from runtime.core.engine import Decoder, Engine
from runtime.core.pipeline import Pipeline, Rules
from runtime.core.values import SPIKES, Token
from runtime.engines import create as engines
from runtime.engines.ensemble import EnsembleEngine
from runtime.engines.linear import LinearEngine
from runtime.engines.rates import RateEngine
from runtime.engines.stream import StreamEngine
from runtime.engines.torch_stream import TorchStreamEngine
from runtime.engines.window import WindowEngine
from runtime.wire import Flag

U, BIN = 12, 20_000_000
NAMES = ("float32", "bfloat16", "int8", "torch", "ridge", "blend", "window")


@pytest.fixture(scope="module")
def make_engine(make_checkpoint: Callable[..., Checkpoint], make_neds: Callable[..., NEDS]) -> Callable[[str], Engine]:
    """Builder of each engine of this machine, over weights that no other engine has."""

    def make(name: str) -> Engine:
        checkpoint = make_checkpoint()
        if name == "window":
            size = ModelConfig(attention="full", width=16, heads=2, window_bins=25)
            config = TrainConfig("none", checkpoint.header.config.outputs, model=size)
            header = msgspec.structs.replace(checkpoint.header, config=config)
            return engines.create(replace(checkpoint, header=header, first=make_neds(size, (U,))), "neds")
        if name == "torch":
            return TorchStreamEngine(checkpoint)
        if name in ("ridge", "blend"):
            return engines.create(checkpoint, name)
        return engines.create(checkpoint, "neds", name)  # pyright: ignore[reportArgumentType]

    return make


def weights_of(engine: Engine) -> np.ndarray:
    """Weights that every bin with a spike meets, in place."""
    match engine:
        case StreamEngine():
            return engine.weights.rows
        case TorchStreamEngine():
            return engine.rows.numpy()
        case WindowEngine():
            return engine.model.mask_token.numpy()
        case LinearEngine():
            return engine.checkpoint.linear["choice"].weight
        case EnsembleEngine():
            return weights_of(engine.parts[0])
    raise AssertionError(engine)


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # numpy's own word for what is tested
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_the_pipeline_publishes_a_flag(make_engine: Callable[[str], Engine], name: str, bad: float) -> None:
    """Two bins out of six are computed with broken weights; the others come out as if nothing had been."""
    engine = make_engine(name)
    healthy, weights = weights_of(engine).copy(), weights_of(engine)
    binner = Binner(U, BIN, max_age_ns=10**10, future_ns=2_000_000)
    pipeline = Pipeline(binner, Decoder(engine, name, "model", "sha", "", "units", U, BIN), Rules())
    binner.start(0)
    found = []
    for k in range(6):
        weights[:] = bad if k in (2, 3) else healthy
        spikes = np.array([(k * BIN + 5, unit) for unit in range(U)], SPIKES)
        pipeline.feed(spikes, (k + 1) * BIN)
        pipeline.alive((k + 1) * BIN, (k + 1) * BIN)
        (decoded,) = pipeline.advance((k + 1) * BIN)
        found.append((decoded.values is None, bool(decoded.flags & Flag.HOLD)))
        assert decoded.values is None or np.isfinite(decoded.values).all()

    assert found == [(False, False)] * 2 + [(True, True)] * 2 + [(False, False)] * 2
    assert pipeline.bad_values == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_cold_start_heals(make_engine: Callable[[str], Engine], name: str) -> None:
    """To the last bit what an engine says that was never broken."""
    broken, fresh = make_engine(name), make_engine(name)
    healthy, weights = weights_of(broken).copy(), weights_of(broken)
    tokens = [Token(t, 0, np.full(U, 1 + t % 3, np.uint16), valid=True, clock=t) for t in range(7)]
    weights[:] = np.nan
    for token in tokens:
        assert not np.isfinite(broken.step(token)).all()

    weights[:] = healthy
    broken.reset()

    for token in tokens:
        np.testing.assert_array_equal(broken.step(token), fresh.step(token))


def test_rates_show_it_too(make_checkpoint: Callable[..., Checkpoint]) -> None:
    """An impossible behaviour makes every rate of the bin NaN, until a cold start."""
    engine, fresh = (RateEngine(StreamEngine(make_checkpoint())) for _ in "ab")
    counts = np.zeros(U, np.uint16)

    said = engine.step(Token(0, 0, counts, valid=True, observed=np.array([np.inf, 1.0], np.float32)))

    assert np.isnan(said).all()
    engine.reset()
    token = Token(1, 0, counts, valid=True, observed=np.array([1.0, 1.0], np.float32))
    np.testing.assert_array_equal(engine.step(token), fresh.step(token))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_compact_weights_are_not_made_of_broken_ones(
    make_checkpoint: Callable[..., Checkpoint], weights: str, bad: float
) -> None:
    """Rounding would turn them into plausible numbers."""
    checkpoint = make_checkpoint()
    checkpoint.model.layers[1].up.weight[3, 4] = bad
    with pytest.raises(ValueError, match=f"not finite cannot be stored as {weights}"):
        engines.create(checkpoint, "neds", weights)  # pyright: ignore[reportArgumentType]
