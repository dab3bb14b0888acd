"""What filtered tokens hold, and that nothing hidden is in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from neds_core.config import MaskConfig, ModelConfig
from neds_core.data.session import BehaviourSpec
from neds_core.model.embed import UnitTokenizer
from neds_core.model.model import NEDS, Batch
from neds_core.train import masks

SPECS = (BehaviourSpec("wheel_speed", "continuous"), BehaviourSpec("choice", "class", classes=("left", "right")))
SIZE = ModelConfig(width=16, layers=2, heads=2, band=4, registers=1, filter_taus_ms=(40.0, 600.0))
B, T, U = 2, 30, 6


@pytest.fixture(scope="module")
def model(make_neds: Callable[..., NEDS]) -> NEDS:
    """Two filters of each of six units."""
    return make_neds(SIZE, (U,), SPECS)


def a_batch() -> Batch:
    """Two windows of which everything is known; the filters are warm, and one bin in five is not valid."""
    rng = torch.Generator().manual_seed(0)
    return Batch(
        torch.randint(0, 4, (B, T, U), generator=rng).float(), torch.rand(B, T, generator=rng) < 0.8,
        {"wheel_speed": torch.randn(B, T, generator=rng)}, {"choice": torch.randint(0, 2, (B, T), generator=rng)},
        torch.full((B, T), -1), filters=torch.rand(B, 2, U, generator=rng),
    )  # fmt: skip


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether all outputs have the same bits."""
    return all(torch.equal(first[name], second[name]) for name in first)


@torch.inference_mode()
@pytest.mark.parametrize("family", masks.FAMILIES)
def test_no_hidden_count_reaches_an_output(model: NEDS, family: str) -> None:
    """In no family of masks: other counts in hidden bins change no bit, and in shown ones they do."""
    batch = a_batch()
    weights = dict.fromkeys(masks.FAMILIES, 0.0) | {family: 1.0}
    defined = np.repeat(batch.valid.numpy()[..., None], 3, axis=2)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        drawn = [masks.draw(rng, MaskConfig(**weights), defined[b], np.zeros(3, bool))[0] for b in range(B)]
        hidden = torch.from_numpy(np.stack(drawn))
        unseen = hidden[..., :1]
        assert unseen.any()
        said = model(batch, hidden)

        assert same(said, model(replace(batch, counts=batch.counts + 5 * unseen), hidden))
        if not unseen.all():
            assert not same(said, model(replace(batch, counts=batch.counts + 5 * ~unseen), hidden))


@torch.inference_mode()
def test_a_hidden_bin_is_an_empty_one_to_the_filters_of_later_bins(model: NEDS) -> None:
    """The token of a later bin is what it would be had nobody fired in the hidden one."""
    batch, hidden = a_batch(), torch.zeros(B, T, dtype=torch.bool)
    hidden[:, 4] = True
    silent = batch.counts.clone()
    silent[:, 4] = 0.0

    got = model.spike_content(batch, hidden, None)

    expected = model.spike_content(replace(batch, counts=silent), torch.zeros_like(hidden), None)
    assert torch.equal(got, expected)
    assert not torch.equal(got[:, 5:], model.spike_content(batch, torch.zeros_like(hidden), None)[:, 5:])


@torch.inference_mode()
def test_a_window_with_its_state_is_a_piece_of_the_whole(model: NEDS) -> None:
    """Its tokens are those of the same bins in the longer window; from a cold start they are others."""
    whole, hidden = a_batch(), torch.zeros(B, T, dtype=torch.bool)
    tokenizer = model.tokenizer()
    assert isinstance(tokenizer, UnitTokenizer)
    seen = whole.counts * whole.valid[..., None]
    state = seen.new_zeros(B, 2, U) if whole.filters is None else whole.filters
    for t in range(7):
        state = tokenizer.filter_keep[:, None] * state + (1 - tokenizer.filter_keep[:, None]) * seen[:, t, None]
    piece = replace(whole, counts=whole.counts[:, 7:], valid=whole.valid[:, 7:], filters=state)

    expected = model.spike_content(whole, hidden, None)[:, 7:]

    torch.testing.assert_close(model.spike_content(piece, hidden[:, 7:], None), expected, rtol=1e-5, atol=1e-5)
    cold = model.spike_content(replace(piece, filters=None), hidden[:, 7:], None)
    assert (cold - expected).abs().max() > 0.1


@torch.inference_mode()
def test_a_dropped_unit_is_dropped_in_all_its_copies(model: NEDS) -> None:
    """Neither its counts nor its filters from before the window are left."""
    batch, shown = a_batch(), torch.zeros(B, T, 3, dtype=torch.bool)
    keep = torch.ones(B, 1, U)
    keep[0, 0, 2] = keep[1, 0, 4] = 0.0
    assert batch.filters is not None
    counts, before = batch.counts.clone(), batch.filters.clone()
    for b, unit in ((0, 2), (1, 4)):
        counts[b, :, unit] += 3
        before[b, :, unit] += 1
    other = replace(batch, counts=counts, filters=before)

    assert same(model(batch, shown, keep), model(other, shown, keep))
    assert not same(model(batch, shown), model(other, shown))


@torch.inference_mode()
def test_a_token_is_the_sum_of_the_rows_of_its_features(model: NEDS) -> None:
    """From the definition, in float64: counts first, then each filter, every feature a z-score."""
    batch = replace(a_batch(), valid=torch.ones(B, T, dtype=torch.bool))
    tokenizer = model.tokenizer()
    assert isinstance(tokenizer, UnitTokenizer)
    assert batch.filters is not None
    keep, rows, counts = tokenizer.filter_keep.double(), tokenizer.rows.double(), batch.counts.double()
    state, expected = batch.filters.double(), []
    for t in range(T):
        state = keep[:, None] * state + (1 - keep[:, None]) * counts[:, t, None]
        z = [counts[:, t].sqrt(), *((state[:, k].sqrt() - 0.2) * 3.0 for k in range(2))]
        expected.append(torch.cat(z, 1) @ rows + tokenizer.bias)

    got = model.spike_content(batch, torch.zeros(B, T, dtype=torch.bool), None)

    # 1e-5: float32 sums of 18 terms of about 1
    torch.testing.assert_close(got.double(), torch.stack(expected, 1), rtol=1e-5, atol=1e-5)


def test_full_attention_has_no_filters() -> None:
    with pytest.raises(ValueError, match="filter_taus_ms is for attention 'causal'"):
        ModelConfig(attention="full", filter_taus_ms=(200.0,))
