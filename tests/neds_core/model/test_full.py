"""Full attention: what may reach an output, and that the same training and decoding serve it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from neds_core import checkpoint as checkpoints, toml
from neds_core.config import ModelConfig, TrainConfig
from neds_core.data import scalers, session as sessions, session_file
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import DataError
from neds_core.model import attention
from neds_core.model.model import NEDS, Batch
from neds_core.scores import r2
from neds_core.train import loop, single
from neds_core.train.loop import Plan
from neds_core.train.single import Job
from neds_core.train.sources import Source

SPECS = (
    BehaviourSpec("wheel_speed", "continuous"),
    BehaviourSpec("choice", "class", classes=("left", "right", "no_go")),
)
MODALITIES = ("spikes", "wheel_speed", "choice")
B, T, U, M = 3, 9, 5, len(MODALITIES)
ROWS = ModelConfig(attention="full", width=16, layers=2, heads=2, window_bins=12)
STITCHER = msgspec.structs.replace(ROWS, tokenizer="stitcher")
CAUSAL = ModelConfig(width=16, layers=2, heads=2, band=4)
MakeNeds = Callable[..., NEDS]


def a_batch(seed: int = 0, session: int = 0) -> Batch:
    """Three windows of nine bins where everything is known and valid; one label a window."""
    rng = torch.Generator().manual_seed(seed)
    return Batch(
        counts=torch.randint(0, 4, (B, T, U), generator=rng).float(),
        valid=torch.ones(B, T, dtype=torch.bool),
        traces={"wheel_speed": torch.randn(B, T, generator=rng)},
        classes={"choice": torch.randint(0, 3, (B, 1), generator=rng).expand(B, T).clone()},
        clock=torch.full((B, T), -1),
        session=session,
    )


def some_hidden() -> Tensor:
    """About half of all tokens."""
    return torch.rand(B, T, M, generator=torch.Generator().manual_seed(9)) < 0.5


def with_other_values(batch: Batch, at: Tensor) -> Batch:
    """Other values at the tokens `at` (B, T, M), NaN among them."""
    return replace(
        batch,
        counts=torch.where(at[..., :1], batch.counts + 3, batch.counts),
        traces={n: torch.where(at[..., 1], torch.nan, x) for n, x in batch.traces.items()},
        classes={n: torch.where(at[..., 2], (x + 1) % 3, x) for n, x in batch.classes.items()},
    )


def rows_of(batch: Batch, rows: slice, n_bins: int = T) -> Batch:
    """Some windows of a batch, cut to their first bins."""

    def cut(x: Tensor) -> Tensor:
        return x[rows, :n_bins]

    return replace(
        batch,
        counts=cut(batch.counts),
        valid=cut(batch.valid),
        traces={n: cut(x) for n, x in batch.traces.items()},
        classes={n: cut(x) for n, x in batch.classes.items()},
        clock=cut(batch.clock),
    )


@pytest.fixture(scope="module", params=[ROWS, STITCHER], ids=["rows", "stitcher"])
def model(request: pytest.FixtureRequest, make_neds: MakeNeds) -> NEDS:
    """Two sessions, of 5 and 3 units."""
    return make_neds(request.param, (U, 3), SPECS)


def test_the_future_reaches_the_past(model: NEDS) -> None:
    """Other spikes in the last bin change all outputs in the first, and so do other spikes in the first the last."""
    hidden, nothing = torch.zeros(B, T, M, dtype=torch.bool), torch.zeros(B, T, M, dtype=torch.bool)
    for source, reached in ((-1, 0), (0, -1)):
        at = nothing.clone()
        at[:, source, 0] = True
        before, after = model(a_batch(), hidden), model(with_other_values(a_batch(), at), hidden)
        assert all((before[name][:, reached] != after[name][:, reached]).any() for name in MODALITIES)


def test_a_hidden_value_never_leaks(model: NEDS) -> None:
    """Every hidden count, trace and label changed: the same bits."""
    hidden = some_hidden()

    before, after = model(a_batch(), hidden), model(with_other_values(a_batch(), hidden), hidden)

    assert all(torch.equal(before[name], after[name]) for name in MODALITIES)


def test_what_a_hidden_token_stands_for_can_be_read(model: NEDS) -> None:
    """Hidden tokens are keys, as published: hiding one more behaviour's bin reaches other bins of other modalities."""
    hidden = some_hidden()
    more = hidden.clone()
    more[:, 4, 1] = ~more[:, 4, 1]

    before, after = model(a_batch(), hidden), model(a_batch(), more)

    assert (before["spikes"][:, 0] != after["spikes"][:, 0]).any()


def test_an_invalid_bin_reaches_no_other(model: NEDS) -> None:
    """Whatever it holds and whether it is hidden: it is nobody's key, and no class is read from it."""
    batch, hidden, at = a_batch(), some_hidden(), torch.zeros(B, T, M, dtype=torch.bool)
    at[:, 5] = True
    batch = replace(batch, valid=~at[..., 0])

    before = model(batch, hidden & ~at)
    after = model(with_other_values(batch, at & ~hidden), hidden | at)

    others = np.flatnonzero(np.arange(T) != 5)
    # 1e-5: a masked key adds exactly nothing, but vectorised sums may be cut at other places
    for name in MODALITIES:
        torch.testing.assert_close(before[name][:, others], after[name][:, others], atol=1e-5, rtol=1e-5)


def test_padding_changes_nothing(model: NEDS) -> None:
    """A window of six bins alone, and at the front of one of nine that says so."""
    batch, hidden = a_batch(), some_hidden()
    live = (torch.arange(T) < 6).expand(B, T)

    alone = model(rows_of(batch, slice(None), 6), hidden[:, :6])
    padded = model(replace(batch, valid=live), hidden)

    # 1e-5: float32 sums of other lengths
    for name in MODALITIES:
        torch.testing.assert_close(padded[name][:, :6], alone[name], atol=1e-5, rtol=1e-5)


def test_a_window_without_a_key_attends_to_all_of_it() -> None:
    """Beside one that has keys: softmax over nothing would be NaN, and its gradient would spoil the whole batch."""
    q, k, v = torch.randn(3, 2, 2, T, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    hidden = torch.zeros(2, T, dtype=torch.bool)
    hidden[0, 2:], hidden[1] = True, True

    out = attention.Full()(q, k, v, position=torch.arange(T), hidden=hidden)

    everything = attention.Full()(q, k, v, position=torch.arange(T), hidden=torch.zeros_like(hidden))
    torch.testing.assert_close(out[1], everything[1])
    assert (out[0] != everything[0]).any()


def test_a_class_is_read_from_the_window_or_from_each_bin(make_neds: MakeNeds) -> None:
    """The published read-out weighs the window's bins: one answer, given at every bin. Rows answer bin by bin."""
    hidden = some_hidden()
    window, bins = (make_neds(c, (U,), SPECS)(a_batch(), hidden)["choice"] for c in (STITCHER, ROWS))

    assert window.shape == bins.shape == (B, T, 3)
    assert (window == window[:, :1]).all()
    assert (bins[:, 1:] != bins[:, :-1]).any(-1).all()


def test_a_filtered_or_dropped_unit_has_no_effect(make_neds: MakeNeds) -> None:
    """Gain 0, or `keep` 0: its count is not read."""
    batch, hidden = a_batch(), torch.zeros(B, T, M, dtype=torch.bool)
    other = replace(batch, counts=batch.counts + torch.tensor([0.0, 0, 5, 0, 0]))
    keep = torch.tensor([1.0, 1, 0, 1, 1]).expand(B, 1, U)
    for config in (ROWS, STITCHER):
        model = make_neds(config, (U,), SPECS)
        assert (model(batch, hidden)["wheel_speed"] != model(other, hidden)["wheel_speed"]).all()
        assert torch.equal(model(batch, hidden, keep)["wheel_speed"], model(other, hidden, keep)["wheel_speed"])
        model.tokenizer().gain[2] = 0.0
        assert torch.equal(model(batch, hidden)["wheel_speed"], model(other, hidden)["wheel_speed"])


@pytest.mark.parametrize("config", [ROWS, CAUSAL, ModelConfig(width=16, layers=1, heads=2, clock_bins=5)])
def test_an_embedding_can_be_switched_off(config: ModelConfig) -> None:
    """It is zero, is not trained, and is all that is missing: the others learn."""
    off = NEDS(msgspec.structs.replace(config, without=("modality", "temporal", "session")), (U,), SPECS).train()
    on = NEDS(config, (U,), SPECS).train()
    for model in (off, on):
        out = model(replace(a_batch(), clock=torch.arange(T).expand(B, T)), some_hidden())
        torch.stack([y.square().sum() for y in out.values()]).sum().backward()

    tables = {"modality", "session", "position", "clock.weight"} & {name for name, _ in on.named_parameters()}
    assert len(tables) == 2 + (config.attention == "full" or config.clock_bins > 0)
    for (name, a), (_, b) in zip(off.named_parameters(), on.named_parameters(), strict=True):
        assert b.grad is not None
        assert (a.grad is None) == (name in tables)
        assert name not in tables or not a.any()


def test_a_window_longer_than_the_positions_is_refused(
    make_neds: MakeNeds, session: Session, tiny: TrainConfig
) -> None:
    """By the model, and by the training before its first step."""
    short = msgspec.structs.replace(ROWS, window_bins=T - 1)
    with pytest.raises(DataError, match="a window of 9 bins is longer than the 8 of this model"):
        make_neds(short, (U,), SPECS)(a_batch(), some_hidden())

    parts = sessions.split(session)
    seen = []
    source = Source(parts.train, None, scalers.fit(parts.train, session.specs, 0.5))
    config = msgspec.structs.replace(tiny, model=short)
    with pytest.raises(DataError, match="segment of 25 bins, longer than the window of full attention"):
        loop.fit(Plan(config, (source,), 0, steps=1), seen.append)
    assert not seen


FULL_TOML = """
recording = "session.npz"
outputs = ["wheel_speed", "choice"]
[model]
attention = "full"
tokenizer = "{tokenizer}"
width = 32
layers = 2
heads = 2
window_bins = 25
unit_dropout = 0.1
dropout = 0.1
embed_dropout = 0.1
[fit]
steps = 100
batch = 16
learning_rate = 1e-2
refit = false
check_every = 25
threads = 1
[linear]
lags = [3]
filter_taus_ms = [[40.0]]
penalties = [10.0]
folds = 2
"""


@pytest.mark.parametrize("tokenizer", [pytest.param("rows", marks=pytest.mark.slow), "stitcher"])
def test_it_is_trained_released_and_decoded_like_any_other(tokenizer: str, session: Session, tmp_path: Path) -> None:
    """A planted relation is found in later trials, after the checkpoint's file; windows are whole segments."""
    session_file.save(session, tmp_path / "session.npz")
    config = toml.parse(FULL_TOML.format(tokenizer=tokenizer), TrainConfig, "train.toml")

    made, fit, _ = single.release(Job(config, tmp_path / "session.npz", 0, "full"))

    checkpoints.save(made, tmp_path / "full.safetensors")
    read = checkpoints.load(tmp_path / "full.safetensors")
    test = sessions.split(session).test
    decoded, again = loop.decode(made.model, test), loop.decode(read.model, test)
    assert all(np.array_equal(decoded[name], again[name]) for name in config.outputs)
    bins = test.bins()
    wheel = again["wheel_speed"] * read.header.sd["wheel_speed"] + read.header.mean["wheel_speed"]
    target, label = test.values["wheel_speed"][bins], test.values["choice"][bins]
    assert r2.r2(target[np.isfinite(target)], wheel[np.isfinite(target)]) > 0.5
    assert (again["choice"].argmax(1) == label)[label >= 0].mean() > 0.75
    assert {t for p in fit.history for t in p.terms} == {"spikes", *config.outputs}
    assert read.header.imported is None
    assert read.clocked
    assert {m.bank.clock_bins for m in read.linear.values()} == {read.header.config.model.window_bins}


def test_decoded_live_it_sees_no_later_bin(session: Session, make_neds: MakeNeds) -> None:
    """At the last bin that is the whole segment, before it that is less; a causal model sees the same anyway."""
    test = sessions.split(session).test
    full = make_neds(ModelConfig(attention="full", width=16, heads=2, window_bins=25), (12,), session.specs)
    causal = make_neds(ModelConfig(width=16, heads=2, band=5), (12,), session.specs)
    bins = test.bins()
    last = np.isin(bins, test.segments[:, 1] - 1)

    whole, live = loop.decode(full, test)["wheel_speed"], loop.decode_live(full, test)["wheel_speed"]

    # 1e-5: float32 sums over windows of other shapes
    np.testing.assert_allclose(live[last], whole[last], atol=1e-5, rtol=1e-5)
    assert np.abs(live[~last] - whole[~last]).mean() > 0.05
    short = make_neds(ModelConfig(attention="full", width=16, heads=2, window_bins=24), (12,), session.specs)
    with pytest.raises(DataError, match=r"25 bins is longer than the 24 of this model; raise model\.window_bins"):
        loop.decode_live(short, test)
    seen = loop.decode(causal, test), loop.decode_live(causal, test)
    np.testing.assert_array_equal(seen[0]["wheel_speed"], seen[1]["wheel_speed"])
