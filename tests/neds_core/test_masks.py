"""What a sample hides, what it is asked, and that the loss reads exactly that."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional

from neds_core import losses, masks
from neds_core.config import MaskConfig
from neds_core.masks import FAMILIES
from neds_core.model import Batch
from neds_core.session import BehaviourSpec


def only(family: str, ratio: float) -> MaskConfig:
    """A configuration that always draws one family."""
    return weighted(ratio, **{family: 1.0})


def weighted(ratio: float, **weight: float) -> MaskConfig:
    """A configuration that draws these families and no other."""
    return MaskConfig(**{name: weight.get(name, 0.0) for name in FAMILIES}, ratio=ratio)


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


# family: (share of spikes hidden, share of behaviour hidden, spikes asked, behaviour asked)
COVER = {
    "encoding": ("all", "none", True, True),
    "decoding": ("none", "all", True, True),
    "within_spikes": ("some", "all", True, False),
    "within_behaviour": ("all", "some", False, True),
    "cross_modal": ("some", "some", True, True),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ratio", [0.0, 0.4, 1.0])
def test_each_family_covers_what_it_says(family: str, ratio: float) -> None:
    """Spikes and behaviours hidden all, none, or bin by bin; what a family asks is what it hides, or nothing."""
    spikes, behaviour, asks_spikes, asks_behaviour = COVER[family]
    share = {"all": 1.0, "none": 0.0, "some": ratio}

    hidden, asked = masks.draw(
        np.random.default_rng(0), only(family, ratio), np.ones((4000, 4), bool), np.zeros(4, bool)
    )

    # 0.04: five standard errors of a share over 4000 bins; shares 0 and 1 are met exactly
    wanted = np.array([share[spikes], *[share[behaviour]] * 3])
    found = hidden.mean(0)
    assert np.abs(found - wanted).max() < 0.04
    assert np.array_equal(found[wanted % 1 == 0], wanted[wanted % 1 == 0])
    assert np.array_equal(asked, hidden & np.array([asks_spikes, *[asks_behaviour] * 3]))


def test_modalities_and_samples_are_drawn_independently() -> None:
    """Which bins one modality hides says nothing about another's, nor about the next sample's."""
    rng = np.random.default_rng(1)
    draws = [masks.draw(rng, only("cross_modal", 0.5), np.ones((2000, 3), bool), np.zeros(3, bool))[0] for _ in "ab"]
    columns = np.concatenate(draws, axis=1).astype(float)

    correlation = np.corrcoef(columns.T) - np.eye(6)

    assert np.abs(correlation).max() < 0.12  # five standard errors over 2000 bins


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


SPECS = (
    BehaviourSpec("wheel_speed", "continuous"),
    BehaviourSpec("choice", "class", classes=("left", "right", "no_go")),
)
B, T, U = 2, 5, 3
KEPT = torch.tensor([True, False, True])


def outputs_and_targets(seed: int) -> tuple[dict[str, torch.Tensor], Batch]:
    """Random outputs of a model, and a batch of targets."""
    rng = torch.Generator().manual_seed(seed)
    out = {
        "spikes": torch.randn(B, T, U, generator=rng),
        "wheel_speed": torch.randn(B, T, generator=rng),
        "choice": torch.randn(B, T, 3, generator=rng),
    }
    batch = Batch(
        counts=torch.randint(0, 5, (B, T, U), generator=rng).float(),
        valid=torch.ones(B, T, dtype=torch.bool),
        traces={"wheel_speed": torch.randn(B, T, generator=rng)},
        classes={"choice": torch.randint(0, 3, (B, T), generator=rng)},
        clock=torch.full((B, T), -1),
    )
    return out, batch


@given(seed=st.integers(0, 2**31), asked=arrays(bool, (B, T, 3)))
def test_the_loss_reads_every_asked_token_and_no_other(seed: int, asked: np.ndarray) -> None:
    """A target changed outside what is asked leaves each term's bits; one changed inside moves its own term."""
    out, batch = outputs_and_targets(seed)
    ask = torch.from_numpy(asked)

    def terms() -> dict[str, torch.Tensor]:
        return losses.loss(out, batch, ask, SPECS, KEPT)

    before = terms()
    assert set(before) == {n for m, n in enumerate(("spikes", "wheel_speed", "choice")) if asked[..., m].any()}
    for m, (name, target) in enumerate(
        (("spikes", batch.counts), ("wheel_speed", batch.traces["wheel_speed"]), ("choice", batch.classes["choice"]))
    ):
        kept = target.clone()
        target[~ask[..., m]] = -1 if name == "choice" else torch.nan  # -1: undefined; cross_entropy would refuse it
        assert all(torch.equal(value, before[n]) for n, value in terms().items())
        target.copy_(kept)
        for b, t in np.argwhere(asked[..., m]):
            target[b, t] = (target[b, t] + 1) % 3 if name == "choice" else target[b, t] + 1
            after = terms()
            assert after[name] != before[name]
            assert all(torch.equal(after[n], before[n]) for n in before if n != name)
            target.copy_(kept)


def test_the_loss_leaves_filtered_units_out() -> None:
    """Their counts and their log-rates."""
    out, batch = outputs_and_targets(0)
    ask = torch.ones(B, T, 3, dtype=torch.bool)
    before = losses.loss(out, batch, ask, SPECS, KEPT)["spikes"]
    batch.counts[..., 1] += 5
    out["spikes"][..., 1] -= 2

    assert torch.equal(losses.loss(out, batch, ask, SPECS, KEPT)["spikes"], before)


def test_each_term_is_torchs_own() -> None:
    """Poisson of log-rates, squared error, cross-entropy, each a mean over asked tokens; their sum is weighted."""
    out, batch = outputs_and_targets(1)
    ask = torch.rand(B, T, 3, generator=torch.Generator().manual_seed(2)) < 0.6
    spikes, wheel, choice = ask.unbind(-1)
    poisson = torch.nn.PoissonNLLLoss(log_input=True, full=False)
    expected = {
        "spikes": poisson(out["spikes"][spikes][:, KEPT], batch.counts[spikes][:, KEPT]),
        "wheel_speed": ((out["wheel_speed"][wheel] - batch.traces["wheel_speed"][wheel]) ** 2).mean(),
        "choice": functional.nll_loss(out["choice"][choice].log_softmax(-1), batch.classes["choice"][choice]),
    }

    terms = losses.loss(out, batch, ask, SPECS, KEPT)

    torch.testing.assert_close(terms, expected)
    total = 2.0 * expected["spikes"] + expected["wheel_speed"]
    torch.testing.assert_close(losses.total(terms, {"spikes": 2.0, "choice": 0.0}), total)
