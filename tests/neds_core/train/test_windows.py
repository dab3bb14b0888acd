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
from neds_core.model.batches import NO_PAUSE
from neds_core.train import masks
from neds_core.train.sources import Source
from neds_core.train.windows import MIN_BINS, Sampler, Windows, keyed


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
    windows, mask = Windows(train, train.specs, scale), MaskConfig(prefix=1.0)
    size = ModelConfig(attention="full", window_bins=25)

    def lengths(mask: MaskConfig, model: ModelConfig) -> np.ndarray:
        rngs = np.random.default_rng(0).spawn(400)
        batch = windows.sample(rngs, tiny.fit, model, mask)[0]
        assert (batch.counts[:, 0].sum(1) > 0).float().mean() > 0.9  # bin 0 is never padding
        filled = torch.where(batch.traces["wheel_speed"].isfinite(), torch.arange(batch.valid.shape[1]), 0)
        return filled.max(1).values.numpy() + 1

    assert set(lengths(mask, size)) == set(range(1, 26))
    half = lengths(msgspec.structs.replace(mask, prefix=0.5), size)
    assert 0.4 < (half == 25).mean() < 0.65
    assert (lengths(MaskConfig(), size) == 25).all()
    causal = ModelConfig(clock_bins=25)
    np.testing.assert_array_equal(lengths(mask, causal), lengths(MaskConfig(), causal))


@pytest.mark.parametrize(("window_bins", "least"), [(5, 5), (12, 8), (100, 8)])
def test_a_pause_follows_the_end_of_another_segment(
    train: Session, scale: Scalers, window_bins: int, least: int
) -> None:
    """Of any other one, from a random cold start; its gap is of any length that is asked for, live or not."""
    windows, rng = Windows(train, train.specs, scale), np.random.default_rng(0)
    mask = MaskConfig(pause=0.8, pause_bins=(2, 4))
    found = [windows.pause(rng, (110, 110 + least), window_bins, mask) for _ in range(5000)]
    paused = [pause for pause in found if pause is not NO_PAUSE]

    assert abs(len(paused) / len(found) - 0.8) < 0.03  # five standard errors
    assert {pause.stop for pause in paused} == {25 * n for n in range(1, 43)} - {125}
    assert {pause.n_tail for pause in paused} == set(range(least, min(window_bins, 25) + 1))
    assert {(pause.n_gap, pause.live) for pause in paused} == {(n, live) for n in (2, 3, 4) for live in (True, False)}


def test_longer_segments_are_seen_before_a_pause_more_often(train: Session, scale: Scalers) -> None:
    """In proportion to their bins; never the span's own."""
    uneven = replace(train, segments=np.array([[0, 3], [10, 40], [50, 59]]), segment_ids=np.arange(3))
    windows, rng, mask = Windows(uneven, uneven.specs, scale), np.random.default_rng(0), MaskConfig(pause=1.0)

    stops = [windows.pause(rng, (12, 40), 12, mask).stop for _ in range(4000)]

    assert set(stops) == {3, 59}
    assert abs(np.mean(np.array(stops) == 3) - 3 / 12) < 0.035  # five standard errors


def test_a_gap_is_shown_and_never_asked(train: Session, scale: Scalers, tiny: TrainConfig) -> None:
    """Its bins hold no spike; a label is hidden all or none on either side, whatever the other side's is."""
    windows, rng = Windows(train, train.specs, scale), np.random.default_rng(2)
    mask = MaskConfig(decoding=0.0, encoding=0.0, pause=1.0, pause_bins=(40, 40))
    kinds, lengths, apart, sides = set(), set(), 0, np.zeros(2, int)
    for _ in range(10):
        batch, hidden, asked, _ = windows.sample(rng.spawn(16), tiny.fit, tiny.model, mask)
        known = (batch.classes["choice"] >= 0) & batch.valid
        for b, empty in enumerate(batch.counts.sum(-1) == 0):
            runs = "".join("01"[int(e)] for e in empty)
            first = runs.index("1" * 40)
            gap, ends = slice(first, first + 40), int((batch.counts[b].sum(-1) > 0).nonzero().max()) + 1
            lengths.add(ends - first - 40)
            kinds.add((bool(batch.valid[b, gap].all()), bool(batch.valid[b, gap].any())))
            assert not asked[b, gap].any()
            assert hidden[b, gap][~batch.valid[b, gap]].all()
            assert hidden[b, gap, 1:].all()
            shown = [~hidden[b, rows, 2][known[b, rows]] for rows in (slice(first), slice(first + 40, ends))]
            assert all(side.all() or not side.any() for side in shown)
            apart += len(shown[0]) > 0 and len(shown[1]) > 0 and bool(shown[0].all()) != bool(shown[1].all())
            sides += np.array([asked[b, :first].any(), asked[b, ends - 1].any()])
    assert kinds == {(True, True), (False, False)}
    assert min(lengths) < 12  # 20 where the span would begin with its segment
    assert apart > 0
    assert (sides > 40).all()


def test_without_pauses_a_sample_is_what_it_was_before_there_were_any(
    train: Session, scale: Scalers, tiny: TrainConfig
) -> None:
    """Span, mask and dropped units, drawn one after the other from the sample's own key; nothing else is drawn."""
    windows, mask = Windows(train, train.specs, scale), MaskConfig(spans=1.0, modality_dropout=0.2)
    batch, hidden, asked, keep = windows.sample([keyed(3, 1, 0, b, 0) for b in range(64)], tiny.fit, tiny.model, mask)

    for b in range(64):
        rng = keyed(3, 1, 0, b, 0)
        start, stop = windows.span(rng, tiny.fit.window_bins, clocked=False)
        alone, defined = windows.cut([(start, stop)], clocked=False)
        expected = masks.draw(rng, mask, defined[0], windows.constant(alone)[0])
        rows = slice(stop - start)
        np.testing.assert_array_equal(batch.counts[b, rows], train.counts[start:stop])
        np.testing.assert_array_equal(hidden[b, rows], expected[0])
        np.testing.assert_array_equal(asked[b, rows], expected[1])
        np.testing.assert_array_equal(keep[b, 0], rng.random(12) >= np.float64(tiny.model.unit_dropout))
        assert not batch.valid[b, stop - start :].any()


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


@pytest.mark.parametrize("pause", [0.0, 0.5])
def test_every_process_draws_its_slice_of_the_same_batch(
    recipe: PretrainConfig, sources: tuple[Source, ...], pause: float
) -> None:
    """However many they are and however small their passes: the samples, masks and dropped units of one process."""
    windows = [Windows(source.train, source.train.specs, source.scale) for source in sources]

    def drawn(size: int, micro_batch: int = 0) -> list[tuple[object, ...]]:
        fit = msgspec.structs.replace(recipe.fit, sessions_per_step=4, micro_batch=micro_batch)
        sampler = Sampler(windows, msgspec.structs.replace(recipe, fit=fit, masks=MaskConfig(pause=pause)), seed=3)
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
