"""What may reach an output of NEDS, and what may not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from neds_core.config import ModelConfig
from neds_core.data.session import BehaviourSpec
from neds_core.model import offline
from neds_core.model.model import NEDS, Batch

SPECS = (
    BehaviourSpec("wheel_speed", "continuous"),
    BehaviourSpec("choice", "class", classes=("left", "right", "no_go")),
    BehaviourSpec("pupil_diameter", "continuous"),
)
MODALITIES = ("spikes", *(s.name for s in SPECS))
B, T, U, M = 2, 14, 6, len(MODALITIES)
SIZE = ModelConfig(width=16, layers=2, heads=2, band=4, registers=2)


@pytest.fixture(scope="module")
def model(make_neds: Callable[..., NEDS]) -> NEDS:
    """Phase-free, two layers, a band of four bins."""
    return make_neds(SIZE, (U,), SPECS)


def a_batch(seed: int = 0) -> Batch:
    """Two windows of 14 bins where everything is known and valid."""
    rng = torch.Generator().manual_seed(seed)
    return Batch(
        counts=torch.randint(0, 4, (B, T, U), generator=rng).float(),
        valid=torch.ones(B, T, dtype=torch.bool),
        traces={s.name: torch.randn(B, T, generator=rng) for s in SPECS if s.kind == "continuous"},
        classes={"choice": torch.randint(0, 3, (B, T), generator=rng)},
        clock=torch.full((B, T), -1),
    )


def with_other_values(batch: Batch, at: Tensor) -> Batch:
    """The batch with other values at the tokens `at` (B, T, M) bool."""
    return replace(
        batch,
        counts=torch.where(at[..., :1], batch.counts + 3, batch.counts),
        traces={n: torch.where(at[..., MODALITIES.index(n)], x + 2, x) for n, x in batch.traces.items()},
        classes={n: torch.where(at[..., MODALITIES.index(n)], (x + 1) % 3, x) for n, x in batch.classes.items()},
    )


def nowhere() -> Tensor:
    """(B, T, M) bool, all False: nothing hidden, or nothing changed."""
    return torch.zeros(B, T, M, dtype=torch.bool)


def some_hidden() -> Tensor:
    """About half of all tokens hidden."""
    return torch.rand(B, T, M, generator=torch.Generator().manual_seed(9)) < 0.5


def moved(model: NEDS, batch: Batch, other: Batch, hidden: Tensor, other_hidden: Tensor | None = None) -> Tensor:
    """(B, T, M) bool: which outputs have other bits for the other batch."""
    a, b = model(batch, hidden), model(other, hidden if other_hidden is None else other_hidden)
    return torch.stack([(a[n] != b[n]).reshape(B, T, -1).any(-1) for n in MODALITIES], dim=-1)


@pytest.mark.parametrize("bin_", [0, 5, T - 1])
def test_the_future_does_not_reach_the_past(model: NEDS, bin_: int) -> None:
    """Other spikes and behaviour from a bin on change no earlier output, and do change that bin's."""
    at = nowhere()
    at[:, bin_:] = True

    found = moved(model, a_batch(), with_other_values(a_batch(), at), nowhere())

    assert not found[:, :bin_].any()
    assert found[:, bin_].all()


@pytest.mark.parametrize("source", range(M), ids=MODALITIES)
def test_tokens_of_a_bin_see_each_other(model: NEDS, source: int) -> None:
    """A visible token reaches all outputs of its own bin, those before it in the sequence included."""
    at = nowhere()
    at[:, 6, source] = True

    found = moved(model, a_batch(), with_other_values(a_batch(), at), nowhere())

    assert found[:, 6].all()
    assert not found[:, :6].any()


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("band", [1, 2, 4])
def test_the_receptive_field_is_exact(make_neds: Callable[..., NEDS], layers: int, band: int) -> None:
    """A bin reaches the L(W-1)+1 outputs from its own on, and not one more."""
    size = ModelConfig(width=16, layers=layers, heads=2, band=band, registers=1)
    at, hidden = nowhere(), nowhere()
    at[:, 2, 0], hidden[..., 1:] = True, True

    found = moved(make_neds(size, (U,), SPECS), a_batch(), with_other_values(a_batch(), at), hidden)

    reached = [t for t in range(T) if found[:, t].any()]
    assert reached == list(range(2, 2 + size.receptive_field))


def test_a_hidden_value_never_leaks(model: NEDS) -> None:
    """Changing every hidden count, trace and label changes no bit of any output; NaN is as good a value."""
    hidden = some_hidden()
    other = with_other_values(a_batch(), hidden)
    for name, trace in other.traces.items():
        trace[hidden[..., MODALITIES.index(name)]] = torch.nan

    assert not moved(model, a_batch(), other, hidden).any()


def test_an_invalid_bin_leaves_no_trace(model: NEDS) -> None:
    """Other bins' outputs are those of a bin whose tokens are all hidden, whatever the invalid bin holds."""
    batch, at, hidden = a_batch(), nowhere(), some_hidden()
    at[:, 5] = True
    invalid = replace(with_other_values(batch, at), valid=~at[..., 0])

    found = moved(model, batch, invalid, hidden | at, hidden)

    found[:, 5] = False  # its own tokens may be shown to itself
    assert not found.any()


def test_a_filtered_unit_has_no_effect(make_neds: Callable[..., NEDS]) -> None:
    """Gain 0: neither its counts nor its row matter."""
    model = make_neds(SIZE, (U,), SPECS)
    batch = a_batch()
    other = batch.counts.clone()
    other[..., 2] += 5.0
    assert moved(model, batch, replace(batch, counts=other), nowhere()).all()
    model.tokenizer().gain[2] = 0.0
    before = model(batch, nowhere())

    model.tokenizer().rows[2] += 10.0

    after = model(replace(batch, counts=other), nowhere())
    assert all(torch.equal(after[name], before[name]) for name in MODALITIES)


def test_a_dropped_unit_has_no_effect(model: NEDS) -> None:
    """`keep` 0 is unit dropout."""
    keep = torch.ones(B, 1, U)
    keep[0, 0, 3] = 0.0
    batch = a_batch()
    other = batch.counts.clone()
    other[..., 3] += 5.0

    before, after = model(batch, nowhere(), keep), model(replace(batch, counts=other), nowhere(), keep)

    assert torch.equal(before["wheel_speed"][0], after["wheel_speed"][0])
    assert (before["wheel_speed"][1] != after["wheel_speed"][1]).all()


def test_the_clock_enters_only_if_asked_for(make_neds: Callable[..., NEDS], model: NEDS) -> None:
    """A phase-free model cannot read it; a clocked one does, up to its last bin and -1 apart from 0."""
    clocked = make_neds(ModelConfig(width=16, layers=2, heads=2, band=4, clock_bins=5), (U,), SPECS)

    def at(clock: int) -> Batch:
        return replace(a_batch(), clock=torch.full((B, T), clock))

    assert not moved(model, at(-1), at(3), nowhere()).any()
    assert moved(clocked, at(-1), at(0), nowhere()).all()
    assert moved(clocked, at(3), at(4), nowhere()).all()
    assert not moved(clocked, at(4), at(400), nowhere()).any()


def test_each_session_has_its_own_units(make_neds: Callable[..., NEDS]) -> None:
    """Two recordings of 6 and 4 units share the blocks; the session chooses tokenizer, rates and sink."""
    model = make_neds(SIZE, (U, 4), SPECS)
    first = a_batch()
    second = replace(first, counts=first.counts[..., :4], session=1)

    assert model(first, nowhere())["spikes"].shape == (B, T, U)
    assert model(second, nowhere())["spikes"].shape == (B, T, 4)
    hidden = ~nowhere()
    assert (model(first, hidden)["wheel_speed"] != model(second, hidden)["wheel_speed"]).all()


def test_a_fresh_model_predicts_the_mean() -> None:
    """Small heads: z-scores near 0, and classes near equal, before the first step."""
    torch.manual_seed(0)
    out = NEDS(SIZE, (U,), SPECS).eval()(a_batch(), nowhere())

    assert out["wheel_speed"].abs().max() < 0.5
    assert (out["choice"].softmax(-1) - 1 / 3).abs().max() < 0.2


def test_spans_are_decoded_as_if_alone(model: NEDS) -> None:
    """Padding, and grouping by 32, change nothing: spans of 1 to 12 bins against one at a time."""
    rng = np.random.default_rng(5)
    edges = np.cumsum([0, *rng.integers(1, 13, 40)])
    spans = [(int(a), int(b)) for a, b in pairwise(edges)]
    counts = rng.integers(0, 4, (edges[-1], U)).astype(np.uint8)
    valid, clock = rng.random(edges[-1]) < 0.8, np.full(edges[-1], -1)

    together = offline.decode(model, counts, valid, clock, spans)

    for name, got in together.items():
        alone = np.concatenate([offline.decode(model, counts, valid, clock, [span])[name] for span in spans])
        # 1e-5: float32 products of other shapes
        np.testing.assert_allclose(got, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("left_out", "table"), [("modality", "modality"), ("temporal", "clock.weight"), ("session", "session")]
)
def test_an_embedding_can_be_left_out(left_out: str, table: str) -> None:
    """Its table is zero before and after a step of training; every other table starts as it does beside it."""
    whole = msgspec.structs.replace(SIZE, clock_bins=5)
    ablated = msgspec.structs.replace(whole, without=(left_out,))
    torch.manual_seed(0)
    reference = NEDS(whole, (U,), SPECS).state_dict()
    torch.manual_seed(0)
    model = NEDS(ablated, (U,), SPECS)
    differs = [name for name, value in model.state_dict().items() if not torch.equal(value, reference[name])]
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)

    torch.stack([y.sum() for y in model(a_batch(), nowhere()).values()]).sum().backward()
    optimiser.step()

    assert differs == [table]
    assert not model.state_dict()[table].any()
    assert model.units[0].get_parameter("rows").grad is not None
