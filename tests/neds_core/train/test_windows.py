"""Training windows start anywhere in the training part and never leave a segment."""

from __future__ import annotations

import copy
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from neds_core.config import MaskConfig, ModelConfig, PretrainConfig, TrainConfig
from neds_core.data import filters, scalers, session as sessions
from neds_core.data.scalers import Scalers
from neds_core.data.session import Session
from neds_core.train.sources import Source
from neds_core.train.windows import MIN_BINS, Sampler, Windows


@pytest.fixture(scope="module")
def train(session: Session) -> Session:
    """The first 42 trials."""
    return sessions.split(session).train


@pytest.fixture(scope="module")
def scale(train: Session) -> Scalers:
    """Of the first 42 trials."""
    return scalers.fit(train, train.specs, 0.5)


def drawn_spans(train: Session, scale: Scalers, window_bins: int, clocked: bool) -> list[tuple[int, int]]:
    """Twenty thousand spans: a bin that could be drawn is."""
    windows, rng = Windows(train, train.specs, scale), np.random.default_rng(0)
    return [windows.span(rng, window_bins, clocked) for _ in range(20_000)]


@pytest.mark.parametrize("window_bins", [1, 5, 12, 100])
def test_cold_starts_are_random_and_stay_inside(train: Session, scale: Scalers, window_bins: int) -> None:
    """Every bin of every segment is reached, every start that leaves enough bins occurs, no border is crossed."""
    short = min(MIN_BINS, window_bins)
    found = drawn_spans(train, scale, window_bins, clocked=False)

    covered = {t for start, stop in found for t in range(start, stop)}
    starts = {start % 25 for start, _ in found}
    assert covered == set(range(42 * 25))
    assert starts == set(range(25 - short + 1))
    for start, stop in found:
        assert start // 25 == (stop - 1) // 25
        assert stop - start == min(window_bins, 25 - start % 25) >= short


def test_a_clocked_model_keeps_the_cold_starts_of_the_segments(train: Session, scale: Scalers) -> None:
    """Its clock is 0 at a cold start, as it is on the rig."""
    assert {(a % 25, b - a) for a, b in drawn_spans(train, scale, 12, clocked=True)} == {(0, 12)}


def test_longer_segments_are_drawn_more_often(train: Session, scale: Scalers) -> None:
    """In proportion to their bins, and one shorter than a window is taken whole."""
    segments = np.array([[0, 3], [10, 40]])
    uneven = replace(train, segments=segments, segment_ids=np.arange(2))

    found = drawn_spans(uneven, scale, 12, clocked=False)

    first = [span for span in found if span[0] < 10]
    assert set(first) == {(0, 3)}
    assert abs(len(first) / len(found) - 3 / 33) < 0.02  # five standard errors


def test_a_sample_asks_only_what_is_defined(train: Session, scale: Scalers, tiny: TrainConfig) -> None:
    """Asked targets are finite and inside valid bins; units are dropped at the configured share."""
    windows, rng = Windows(train, train.specs, scale), np.random.default_rng(1)
    model = msgspec.structs.replace(tiny.model, unit_dropout=0.25)
    kept = []
    for _ in range(50):
        batch, hidden, asked, keep = windows.sample(rng.spawn(16), tiny.fit, model, MaskConfig())
        assert not (asked & ~hidden).any()
        assert batch.valid[asked.any(-1)].all()
        assert batch.traces["wheel_speed"][asked[..., 1]].isfinite().all()
        assert (batch.classes["choice"][asked[..., 2]] >= 0).all()
        assert hidden[~batch.valid].all()
        kept.append(keep)

    share = torch.cat(kept)
    assert set(share.unique().tolist()) == {0.0, 1.0}
    assert abs(share.mean() - 0.75) < 0.025  # five standard errors of 50 * 16 * 12 draws


def test_prefixes_end_at_every_bin_of_a_segment(train: Session, scale: Scalers, tiny: TrainConfig) -> None:
    """Of full attention alone, all of them or the share that is asked; the start stays the segment's."""
    windows, masks = Windows(train, train.specs, scale), MaskConfig(prefix=1.0)
    size = ModelConfig(attention="full", window_bins=25)

    def lengths(masks: MaskConfig, model: ModelConfig) -> np.ndarray:
        rngs = np.random.default_rng(0).spawn(400)
        batch = windows.sample(rngs, tiny.fit, model, masks)[0]
        assert (batch.counts[:, 0].sum(1) > 0).float().mean() > 0.9  # bin 0 is never padding
        filled = torch.where(batch.traces["wheel_speed"].isfinite(), torch.arange(batch.valid.shape[1]), 0)
        return filled.max(1).values.numpy() + 1

    assert set(lengths(masks, size)) == set(range(1, 26))
    half = lengths(msgspec.structs.replace(masks, prefix=0.5), size)
    assert 0.4 < (half == 25).mean() < 0.65
    assert (lengths(MaskConfig(), size) == 25).all()
    causal = ModelConfig(clock_bins=25)
    np.testing.assert_array_equal(lengths(masks, causal), lengths(MaskConfig(), causal))


def test_filters_start_with_the_segment_of_a_window(train: Session, tiny: TrainConfig) -> None:
    """Their states before its first bin are those of all bins of the segment until there; without filters, none."""
    keep = filters.shares((40.0, 600.0), train.bin_ns)
    scale = scalers.fit(train, train.specs, 0.5, (40.0, 600.0))
    windows, rngs = Windows(train, train.specs, scale), np.random.default_rng(2).spawn(30)
    spans = [windows.span(copy.deepcopy(rng), tiny.fit.window_bins, clocked=False) for rng in rngs]

    found = windows.sample(rngs, tiny.fit, tiny.model, MaskConfig())[0].filters

    assert found is not None
    assert len({start % 25 for start, _ in spans}) > 5
    for got, (start, _) in zip(found, spans, strict=True):
        first = start - start % 25
        states = filters.run(filters.seen(train, first, start + 1)[None], torch.from_numpy(keep))[0]
        expected = states[start - first - 1] if start > first else torch.zeros(2, 12)
        assert torch.equal(got, expected)
    assert Windows(train, train.specs, scalers.fit(train, train.specs, 0.5)).states is None


def test_no_unit_is_dropped_at_share_zero(train: Session, scale: Scalers, tiny: TrainConfig) -> None:
    """And all at share one."""
    for share in (0.0, 1.0):
        model = ModelConfig(unit_dropout=share)
        keep = Windows(train, train.specs, scale).sample([np.random.default_rng(0)], tiny.fit, model, MaskConfig())[3]
        assert (keep == 1.0 - share).all()


def test_every_process_draws_its_slice_of_the_same_batch(recipe: PretrainConfig, sources: tuple[Source, ...]) -> None:
    """However many they are and however small their passes: the samples, masks and dropped units of one process."""
    windows = [Windows(source.train, source.train.specs, source.scale) for source in sources]

    def drawn(size: int, micro_batch: int = 0) -> list[tuple[object, ...]]:
        fit = msgspec.structs.replace(recipe.fit, sessions_per_step=4, micro_batch=micro_batch)
        sampler = Sampler(windows, msgspec.structs.replace(recipe, fit=fit), seed=3)
        found = []
        for piece in (p for rank in range(size) for p in sampler.pieces(7, 0, rank, size)):
            assert len(piece.hidden) <= (micro_batch or fit.batch)
            for b, valid in enumerate(piece.batch.valid):
                n = int(valid.nonzero().max()) + 1  # how far a batch is padded may differ
                tensors = (piece.batch.counts[b, :n], piece.hidden[b, :n], piece.asked[b, :n], piece.keep[b])
                found.append((piece.session, piece.batch.session, *(t.numpy().tobytes() for t in tensors)))
                assert piece.hidden[b, n:].all()
                assert not piece.asked[b, n:].any()
        return found

    whole = drawn(1)
    assert len(whole) == recipe.fit.batch
    assert len({sample[0] for sample in whole}) > 1
    for size, micro_batch in ((2, 0), (3, 0), (5, 0), (16, 0), (20, 0), (1, 3), (2, 5)):
        assert drawn(size, micro_batch) == whole


def test_sessions_are_drawn_in_proportion_to_their_bins(recipe: PretrainConfig, sources: tuple[Source, ...]) -> None:
    """42, 42 and 21 trials; the groups of a batch are as even as they can be, and another step is another draw."""
    fit = msgspec.structs.replace(recipe.fit, batch=16, sessions_per_step=16)
    windows = [Windows(source.train, source.train.specs, source.scale) for source in sources]
    sampler = Sampler(windows, msgspec.structs.replace(recipe, fit=fit), seed=0)
    two = Sampler(windows, recipe, seed=0)

    drawn = np.concatenate([sampler.sessions(step) for step in range(500)])

    # five standard errors of 8000 draws
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), [0.4, 0.4, 0.2], atol=0.028)
    for step in range(20):
        assert set(np.bincount(two.sessions(step)).tolist()) <= {0, 8, 16}
    assert len({tuple(two.sessions(step)) for step in range(20)}) > 1
