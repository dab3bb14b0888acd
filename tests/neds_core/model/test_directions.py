"""What a prediction may depend on, in every direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from neds_core.config import ModelConfig
from neds_core.data import scalers
from neds_core.data.session import Session, part
from neds_core.model import directions
from neds_core.model.batches import Cutter
from neds_core.model.model import NEDS

SIZE = ModelConfig(width=16, layers=2, heads=2, band=4, registers=1)
BOTH = ("wheel_speed", "choice")
AT = 40  # a bin in the middle of the second trial of 25 bins


@pytest.fixture(scope="module")
def few(session: Session) -> Session:
    """Four trials of the planted recording."""
    return part(session, 0.0, 4 / 60)


@pytest.fixture(scope="module", params=[(), (40.0, 300.0)], ids=["counts", "filters"])
def model(request: pytest.FixtureRequest, make_neds: Callable[..., NEDS]) -> NEDS:
    """Twelve units, wheel and choice; tokens of the bin's counts, and filtered ones."""
    return make_neds(msgspec.structs.replace(SIZE, filter_taus_ms=request.param), (12,))


def read(session: Session) -> tuple[Cutter, list[directions.Span]]:
    """A cutter with the scalers of the four trials as they are planted, and their spans."""
    scale = scalers.Scalers(
        np.ones(12, bool), np.zeros(12, np.float32), np.ones(12, np.float32),
        {"wheel_speed": 2.0}, {"wheel_speed": 3.0}, {"choice": np.array([0.5, 0.5])}, {},
    )  # fmt: skip
    return Cutter(session, session.specs, scale), directions.spans_of(session)


def with_counts(session: Session, bins: slice, units: slice = slice(None)) -> Session:
    """Three spikes more."""
    counts = session.counts.copy()
    counts[bins, units] += 3
    return replace(session, counts=counts)


def with_values(session: Session, name: str, bins: slice) -> Session:
    """The wheel faster, or the other choice."""
    values = session.values[name].copy()
    values[bins] = values[bins] + 2 if name == "wheel_speed" else np.where(values[bins] >= 0, 1 - values[bins], -1)
    return replace(session, values={**session.values, name: values})


def changed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) bool: rows that differ by more than rounding."""
    difference = np.abs(first - second)
    return difference.reshape(len(difference), -1).max(1) > 1e-5


def test_encoding_sees_behaviour_until_now_and_no_spike(model: NEDS, few: Session) -> None:
    """A change of the wheel from one bin on moves the rates from that bin on, in its own trial alone."""
    before = directions.encode(model, *read(few), ("wheel_speed", "choice"))
    wheel = directions.encode(model, *read(with_values(few, "wheel_speed", slice(AT, AT + 1))), ("wheel_speed",))
    spikes = directions.encode(model, *read(with_counts(few, slice(None))), ("wheel_speed", "choice"))
    alone = directions.encode(model, *read(few), ("wheel_speed",))

    assert np.array_equal(before, spikes)
    where = np.flatnonzero(changed(alone, wheel))
    assert where[0] == AT
    assert where[-1] < 50


def test_encoding_sees_only_what_is_shown(model: NEDS, few: Session) -> None:
    """The other behaviour does not matter, and with none shown nothing does."""
    other = with_values(few, "choice", slice(None))

    def rates(session: Session, *shown: str) -> np.ndarray:
        return directions.encode(model, *read(session), shown)

    assert np.array_equal(rates(few, "wheel_speed"), rates(other, "wheel_speed"))
    assert changed(rates(few, "choice"), rates(other, "choice")).any()
    nothing = rates(few)
    assert np.array_equal(nothing, rates(with_values(other, "wheel_speed", slice(None))))


def test_encoding_is_the_forward_pass(model: NEDS, few: Session) -> None:
    """Rates are exp of the log-rates of a window where spikes are hidden and known behaviour is not."""
    windows, spans = read(few)
    batch, defined = windows.cut(spans[1:2], False)
    hidden = torch.from_numpy(~defined)
    hidden[..., 0] = True

    with torch.inference_mode():
        expected = model(batch, hidden)["spikes"][0].exp().numpy()

    # 1e-6: the same window in a batch of four
    np.testing.assert_allclose(
        directions.encode(model, windows, spans, ("wheel_speed", "choice"))[25:50], expected, rtol=1e-5, atol=1e-6
    )


def test_the_next_bin_sees_earlier_spikes_alone(model: NEDS, few: Session) -> None:
    """A bin's own spikes move the bins after it, not itself; behaviour never matters."""
    before = directions.next_bin(model, *read(few))
    spikes = directions.next_bin(model, *read(with_counts(few, slice(AT, AT + 1))))
    behaviour = directions.next_bin(model, *read(with_values(few, "wheel_speed", slice(None))))

    where = np.flatnonzero(changed(before, spikes))
    assert where[0] == AT + 1
    assert where[-1] < 50
    assert np.array_equal(before, behaviour)


def test_held_out_units_are_predicted_from_the_others_of_their_bin_and_before(model: NEDS, few: Session) -> None:
    """Their own spikes move nothing of theirs; another unit's in the same bin do."""
    held = np.arange(12) < 4
    before = directions.co_smooth(model, *read(few), [held])
    own = directions.co_smooth(model, *read(with_counts(few, slice(None), slice(0, 4))), [held])
    others = directions.co_smooth(model, *read(with_counts(few, slice(AT, AT + 1), slice(4, 9))), [held])

    assert np.array_equal(before[:, held], own[:, held])
    assert np.isnan(before[:, ~held]).all()
    where = np.flatnonzero(changed(before[:, held], others[:, held]))
    assert where[0] == AT
    assert where[-1] < 50


def test_every_unit_is_held_out_once() -> None:
    """Folds are even parts of the units."""
    folds = directions.unit_folds(12, 5)

    assert np.sum(folds, axis=0).tolist() == [1] * 12
    assert sorted(f.sum() for f in folds) == [2, 2, 2, 3, 3]


def test_cross_never_sees_what_it_predicts(model: NEDS, few: Session) -> None:
    """A token's own value never moves its own prediction, and moves some other modality's."""
    before = directions.cross(model, *read(few), 3, BOTH)
    spikes = directions.cross(model, *read(with_counts(few, slice(AT, AT + 1))), 3, BOTH)
    wheel = directions.cross(model, *read(with_values(few, "wheel_speed", slice(AT, AT + 1))), 3, BOTH)
    choice = directions.cross(model, *read(with_values(few, "choice", slice(25, 50))), 3, BOTH)

    assert not changed(before["spikes"], spikes["spikes"])[AT]
    assert not changed(before["wheel_speed"], wheel["wheel_speed"])[AT]
    assert changed(before["spikes"], wheel["spikes"]).any()
    # constant in its trial: shown in one bin, it would be copied to the next
    assert not changed(before["choice"], choice["choice"]).any()
    assert changed(before["spikes"], choice["spikes"])[25:50].any()


def test_cross_sees_only_what_is_shown(model: NEDS, few: Session) -> None:
    """A behaviour that is not shown moves nothing, and is predicted all the same."""
    before = directions.cross(model, *read(few), 3, ("wheel_speed",))
    choice = directions.cross(model, *read(with_values(few, "choice", slice(25, 50))), 3, ("wheel_speed",))

    assert set(before) == {"spikes", "wheel_speed", "choice"}
    for name, values in before.items():
        assert not changed(values, choice[name]).any()


def test_cross_hides_every_bin_once_for_each_modality(few: Session, make_neds: Callable[..., NEDS]) -> None:
    """With as many folds as bins a modality hides one bin at a time: the rest of its past is there to see."""
    model = make_neds(SIZE, (12,))
    before = directions.cross(model, *read(few), 25, BOTH)["wheel_speed"]
    changed_few = with_values(few, "wheel_speed", slice(AT, AT + 1))
    later = directions.cross(model, *read(changed_few), 25, BOTH)["wheel_speed"]

    assert np.flatnonzero(changed(before, later))[0] == AT + 1


def test_long_segments_are_cut_into_pieces(unbroken: Session) -> None:
    """In order, none longer than asked, and nothing left out."""
    spans = directions.spans_of(unbroken, 150)

    assert spans == [(0, 150), (150, 300), (300, 400)]
    assert np.array_equal(directions.bins_of(spans), np.arange(400))
    assert directions.spans_of(unbroken) == [(0, 400)]
