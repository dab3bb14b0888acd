"""What a sample hides, and what it is asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from neds_core.config import MaskConfig
from neds_core.train import masks
from neds_core.train.masks import FAMILIES


def only(family: str, ratio: float) -> MaskConfig:
    """A configuration that always draws one family."""
    return weighted(ratio, **{family: 1.0})


def weighted(ratio: float, **weight: float) -> MaskConfig:
    """A configuration that draws these families and no other."""
    return MaskConfig(**{name: weight.get(name, 0.0) for name in FAMILIES}, ratio=ratio, span_bins=(2, 10))


@pytest.mark.parametrize("family", FAMILIES)
@given(
    seed=st.integers(0, 2**31),
    ratio=st.floats(0, 1),
    defined=st.tuples(st.integers(1, 12), st.integers(2, 4)).flatmap(lambda shape: arrays(bool, shape)),
    data=st.data(),
)
def test_asked_lies_inside_hidden_and_defined(
    family: str, seed: int, ratio: float, defined: np.ndarray, data: st.DataObject
) -> None:
    """Also where a class is constant: it is hidden all or none, and what is undefined is always hidden."""
    constant = data.draw(arrays(bool, defined.shape[1]))
    constant[0] = False

    hidden, asked = masks.draw(np.random.default_rng(seed), only(family, ratio), defined, constant)

    assert not (asked & ~(hidden & defined)).any()
    assert (hidden | defined).all()
    for m in np.flatnonzero(constant):
        known = hidden[defined[:, m], m]
        assert known.all() or not known.any()
        assert not asked[:, m].any() or asked[defined[:, m], m].all()


@pytest.mark.parametrize("family", FAMILIES)
@given(
    seed=st.integers(0, 2**31),
    lengths=st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 6)),
    data=st.data(),
)
def test_a_label_is_hidden_all_or_none_in_each_segment_of_a_sample(
    family: str, seed: int, lengths: tuple[int, int, int], data: st.DataObject
) -> None:
    """Two segments with a gap between them: what a label is in one of them, the other may show."""
    first, gap, second = lengths
    defined = np.ones((first + gap + second, 3), bool)
    defined[first : first + gap, 1:] = False
    parts = (slice(first), slice(first + gap, None))
    constant = data.draw(arrays(bool, (2, 3)))
    constant[:, 0] = False

    hidden, asked = masks.draw(np.random.default_rng(seed), only(family, 0.5), defined, constant, parts)

    assert not (asked & ~(hidden & defined)).any()
    for rows, unchanging in zip(parts, constant, strict=True):
        for m in np.flatnonzero(unchanging):
            assert hidden[rows, m].all() or not hidden[rows, m].any()


# family: (share of spikes hidden, share of behaviour hidden, spikes asked, behaviour asked)
COVER = {
    "encoding": ("all", "none", True, True),
    "decoding": ("none", "all", True, True),
    "within_spikes": ("some", "all", True, False),
    "within_behaviour": ("all", "some", False, True),
    "cross_modal": ("some", "some", True, True),
    "spans": ("some", "some", True, True),
}


@pytest.mark.parametrize("family", COVER)
@pytest.mark.parametrize("ratio", [0.0, 0.4, 1.0])
def test_each_family_covers_what_it_says(family: str, ratio: float) -> None:
    """Spikes and behaviours hidden all, none, or bin by bin; what a family asks is what it hides, or nothing."""
    spikes, behaviour, asks_spikes, asks_behaviour = COVER[family]
    share = {"all": 1.0, "none": 0.0, "some": ratio}

    hidden, asked = masks.draw(
        np.random.default_rng(0), only(family, ratio), np.ones((4000, 4), bool), np.zeros(4, bool)
    )

    # five standard errors of a share over 4000 bins, or over as many as have no stretch of 10 in common with another
    wanted = np.array([share[spikes], *[share[behaviour]] * 3])
    found = hidden.mean(0)
    assert np.abs(found - wanted).max() < (0.16 if family == "spans" else 0.04)
    assert np.array_equal(found[wanted % 1 == 0], wanted[wanted % 1 == 0])
    assert np.array_equal(asked, hidden & np.array([asks_spikes, *[asks_behaviour] * 3]))


@given(seed=st.integers(0, 2**31), defined=st.integers(1, 9).flatmap(lambda n: arrays(bool, (n, 4))))
def test_a_single_behaviour_encodes_alone(seed: int, defined: np.ndarray) -> None:
    """One behaviour that is known somewhere is shown wherever it is known, and only spikes are asked."""
    hidden, asked = masks.draw(np.random.default_rng(seed), only("single_behaviour", 0.3), defined, np.zeros(4, bool))

    shown = ~hidden.all(0)
    assert shown.sum() == defined[:, 1:].any()
    assert np.array_equal(hidden[:, shown], ~defined[:, shown])
    assert np.array_equal(asked, defined & [True, False, False, False])


def test_every_known_behaviour_gets_its_turn_alone() -> None:
    """Evenly."""
    rng = np.random.default_rng(3)
    defined = np.array([[True, True, False, True]] * 5)
    draws = [masks.draw(rng, only("single_behaviour", 0.3), defined, np.zeros(4, bool))[0] for _ in range(1000)]
    shown = 1.0 - np.mean([h.all(0) for h in draws], axis=0)

    assert shown[[0, 2]].tolist() == [0.0, 0.0]
    assert np.abs(shown[[1, 3]] - 0.5).max() < 0.08  # five standard errors


@given(seed=st.integers(0, 2**31), n_live=st.integers(1, 8), n_padded=st.integers(0, 4))
def test_a_causal_suffix_hides_the_newest_live_bins(seed: int, n_live: int, n_padded: int) -> None:
    """Once hidden, hidden to the end; at least the newest live bin, also where the window is padded."""
    defined = np.arange(n_live + n_padded)[:, None] < [n_live] * 3
    hidden, asked = masks.draw(np.random.default_rng(seed), only("causal_suffix", 0.0), defined, np.zeros(3, bool))

    assert (hidden[1:] >= hidden[:-1]).all()
    assert hidden[n_live - 1].all()
    assert np.array_equal(asked, hidden & defined)


def test_a_suffix_is_as_often_long_as_short() -> None:
    """Its length is uniform from 1 to all bins, for each modality."""
    rng = np.random.default_rng(4)
    config, defined = only("causal_suffix", 0.3), np.ones((5, 2), bool)
    draws = [masks.draw(rng, config, defined, np.zeros(2, bool))[0] for _ in range(900)]
    lengths = np.sum(draws, axis=1)

    share = np.stack([(lengths == n).mean(0) for n in range(1, 6)])
    assert np.abs(share - 0.2).max() < 0.07  # five standard errors


@given(seed=st.integers(0, 2**31), ratio=st.floats(0.01, 0.5), length=st.integers(1, 7))
def test_spans_come_in_stretches(seed: int, ratio: float, length: int) -> None:
    """Between the window's edges no hidden stretch is shorter than the shortest span."""
    config = MaskConfig(0, 0, 0, 0, 0, ratio=ratio, spans=1.0, span_bins=(length, length + 2))
    hidden, _ = masks.draw(np.random.default_rng(seed), config, np.ones((60, 2), bool), np.zeros(2, bool))

    for column in hidden.T:
        edge = np.flatnonzero(np.diff(np.r_[False, column, False].astype(int)))
        inner = [b - a for a, b in edge.reshape(-1, 2) if a > 0 and b < 60]
        assert min(inner, default=length) >= length


@given(seed=st.integers(0, 2**31), share=st.floats(0, 1), hidden=arrays(bool, (6, 4)), question=arrays(bool, (6, 4)))
def test_dropped_modalities_are_whole_and_one_always_stays(
    seed: int, share: float, hidden: np.ndarray, question: np.ndarray
) -> None:
    """A modality loses all of its shown tokens and its question, or none; something is still shown and asked."""
    asked = question & hidden

    out, still = masks.drop_modalities(np.random.default_rng(seed), hidden, asked, share)

    for m in range(4):
        if not np.array_equal(out[:, m], hidden[:, m]):
            assert out[:, m].all()
            assert not still[:, m].any()
        else:
            assert np.array_equal(still[:, m], asked[:, m])
    assert (~out).any() == (~hidden).any()
    assert still.any() == asked.any()


def test_dropped_modalities_are_not_asked() -> None:
    """Dropout takes inputs away at the rate that is configured; what was hidden before is asked as it was."""
    rng = np.random.default_rng(5)
    config = MaskConfig(0, 1, 0, 0, 0, modality_dropout=0.4)
    drawn = [masks.draw(rng, config, np.ones((3, 2), bool), np.zeros(2, bool)) for _ in range(200)]
    crossed = MaskConfig(0, 0, 0, 0, 1, modality_dropout=0.4)
    partly = [masks.draw(rng, crossed, np.ones((30, 3), bool), np.zeros(3, bool)) for _ in range(50)]
    several = MaskConfig(1, 0, 0, 0, 0, modality_dropout=0.4)
    encoded = [masks.draw(rng, several, np.ones((3, 9), bool), np.zeros(9, bool)) for _ in range(200)]

    assert all(np.array_equal(h, a) for h, a in drawn)  # spikes were all there was: they stay
    assert any(h.all(0).any() for h, _ in partly)
    assert not any(a[:, h.all(0)].any() for h, a in partly)
    assert all(np.array_equal(a, np.arange(9)[None] == np.zeros((3, 1))) for _, a in encoded)
    assert abs(np.mean([h[0, 1:].mean() for h, _ in encoded]) - 0.4) < 0.07  # five standard errors


@given(seed=st.integers(0, 2**31))
def test_a_family_of_weight_0_leaves_the_random_stream_as_it_is(seed: int) -> None:
    """The five families that train by default draw what they would draw if there were no others."""
    defined = np.ones((20, 3), bool)
    rng = np.random.default_rng(seed)
    weight = np.array([1.0, 3.0, 1.0, 1.0, 1.0])
    family = list(FAMILIES.values())[:5][rng.choice(5, p=weight / weight.sum())]
    expected = family(rng, defined, MaskConfig())
    again = np.random.default_rng(seed)

    found = masks.draw(again, MaskConfig(decoding=3.0), defined, np.zeros(3, bool))

    assert np.array_equal(found, expected)
    assert again.random() == rng.random()


@pytest.mark.parametrize("family", ["cross_modal", "spans", "causal_suffix"])
def test_modalities_and_samples_are_drawn_independently(family: str) -> None:
    """Whether one modality hides the middle bin says nothing about another's, nor about the next sample's."""
    rng = np.random.default_rng(1)
    config, defined = only(family, 0.5), np.ones((21, 3), bool)
    middle = [masks.draw(rng, config, defined, np.zeros(3, bool))[0][10] for _ in range(2000)]
    columns = np.stack(middle).reshape(1000, 6).astype(float)  # two samples that follow each other, side by side

    correlation = np.corrcoef(columns.T) - np.eye(6)

    assert np.abs(correlation).max() < 0.16  # five standard errors over 1000 pairs


def test_families_are_drawn_by_weight() -> None:
    """Weights are relative; a weight of 0 is never."""
    rng = np.random.default_rng(2)
    config = weighted(0.3, encoding=30.0, decoding=10.0)
    drawn = [masks.draw(rng, config, np.ones((1, 2), bool), np.zeros(2, bool))[0] for _ in range(2000)]
    encoding = np.array([h[0, 0] and not h[0, 1] for h in drawn])
    decoding = np.array([h[0, 1] and not h[0, 0] for h in drawn])

    assert (encoding | decoding).all()
    assert abs(encoding.mean() - 0.75) < 0.05  # five standard errors


@given(seed=st.integers(0, 2**31), ratio=st.floats(0, 1))
def test_a_constant_class_is_hidden_all_or_none(seed: int, ratio: float) -> None:
    """A label shown in one bin of a trial would be copied to the others."""
    rng = np.random.default_rng(seed)
    hidden, asked = masks.draw(rng, only("cross_modal", ratio), np.ones((9, 2), bool), np.array([False, True]))

    assert hidden[:, 1].all() or not hidden[:, 1].any()
    assert np.array_equal(asked, hidden)
