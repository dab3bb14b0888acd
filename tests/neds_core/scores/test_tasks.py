"""The tasks beside decoding, on a recording whose spikes follow its behaviour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from neds_core.checkpoint import Checkpoint
from neds_core.data.session import Session, part
from neds_core.errors import DataError
from neds_core.scores import bits, tasks


@pytest.fixture(scope="module")
def made(make_checkpoint: Callable[..., Checkpoint], session: Session) -> Checkpoint:
    """A random NEDS whose rates start at the mean, so that scores are of the usual size."""
    checkpoint = make_checkpoint()
    with torch.no_grad():
        head = checkpoint.model.rate_head()
        head.weight.mul_(0.1)
        head.bias.copy_(torch.from_numpy(np.log(session.counts.mean(0) + 1e-3)))
    return checkpoint


@pytest.fixture(scope="module")
def held(session: Session) -> tasks.HeldOut:
    """The last twelve trials."""
    return tasks.held_out(session)


def test_encoding_says_what_each_behaviour_gives(made: Checkpoint, held: tasks.HeldOut) -> None:
    """A row for all, each and none, for each seed; gains are differences of the rows."""
    rates = tasks.encode_rates([made, made], held)
    found = tasks.encode([made, made], held, rates)

    assert list(found["scores"]) == ["all", "wheel_speed", "choice", "none"]
    every, none = (found["scores"][n][0]["bits_per_spike"] for n in ("all", "none"))
    assert found["gains"]["all_minus_none"]["value"] == pytest.approx(every - none)
    assert found["gains"]["all_minus_trial_average"]["value"] == pytest.approx(
        every - found["trial_average"]["bits_per_spike"]
    )
    assert found["units"] == 11
    assert found["trials"] == 12
    assert found["training_mean"]["bits_per_spike"] == 0.0
    msgspec.json.encode(found)


def test_an_ensemble_is_the_mean_of_its_networks_in_every_task(
    made: Checkpoint, make_checkpoint: Callable[..., Checkpoint], held: tasks.HeldOut
) -> None:
    """And not its first network; the mean of rates is better than their mean score (bits are concave)."""
    other = make_checkpoint(seed=1)
    both = replace(made, others=(other.model,))
    one, two, mean = (tasks.encode_rates([each], held)["all"][0] for each in (made, other, both))
    np.testing.assert_allclose(mean, (one + two) / 2.0, rtol=1e-6)
    for task, key in ((tasks.within, "next_bin"), (tasks.cross, "spikes")):
        alone, joined = (task([each], held)["scores"][key][0]["bits_per_spike"] for each in (made, both))
        assert alone != joined


def test_labels_inferred_from_spikes_are_never_shown(made: Checkpoint, held: tasks.HeldOut) -> None:
    """They would give spikes back to whoever predicts spikes."""
    inferred = tuple(msgspec.structs.replace(s, labels="inferred") if s.kind == "class" else s for s in made.specs)
    other = replace(made, header=msgspec.structs.replace(made.header, specs=inferred))
    rates = tasks.encode_rates([other], held)
    found = tasks.encode([other], held, rates)

    assert list(found["scores"]) == ["all", "wheel_speed", "none"]
    assert found["left_out_because_inferred"] == ["choice"]
    assert np.array_equal(rates["all"][0], tasks.encode_rates([made], held)["wheel_speed"][0])
    cross = tasks.cross([other], held)
    assert list(cross["scores"]) == ["spikes", "wheel_speed"]
    assert cross["left_out_because_inferred"] == ["choice"]
    assert cross["scores"]["spikes"] != tasks.cross([made], held)["scores"]["spikes"]


def test_gains_of_the_same_seeds_are_paired(held: tasks.HeldOut) -> None:
    """Two seeds of unlike quality, each a little better than its partner: the gain knows no doubt."""
    goal = held.target
    good = [goal.counts * share + goal.mean * (1 - share) for share in (0.2, 0.5)]
    nothing = [np.broadcast_to(goal.mean, goal.counts.shape)] * 2

    same = tasks.seed_gain(goal, good, good)
    gain = tasks.seed_gain(goal, good, nothing)

    assert same == {"value": 0.0, "low": 0.0, "high": 0.0}
    expected = np.mean([bits.bits_per_spike(goal.counts, g, goal.mean) for g in good])
    assert gain["value"] == pytest.approx(expected)
    assert 0 < gain["low"] < gain["value"] < gain["high"]


def test_within_and_cross_have_a_row_a_seed(made: Checkpoint, session: Session, held: tasks.HeldOut) -> None:
    """Spikes from spikes both ways; every measured modality from the others."""
    within = tasks.within([made], tasks.held_out(session, 10))
    cross = tasks.cross([made, made], held)

    assert {name: len(rows) for name, rows in within["scores"].items()} == {"held_out_units": 1, "next_bin": 1}
    assert within["bins"] == cross["bins"]
    assert {name: len(rows) for name, rows in cross["scores"].items()} == {"spikes": 2, "wheel_speed": 2, "choice": 2}
    assert cross["scores"]["choice"][0]["n"] == 11  # one trial of the twelve has no label
    low, high = cross["scores"]["wheel_speed"][0]["ci95"]
    assert low < cross["scores"]["wheel_speed"][0]["r2"] < high
    msgspec.json.encode([within, cross])


def test_too_few_trials_are_refused(session: Session) -> None:
    """Four trials carry no interval."""
    with pytest.raises(DataError, match="under 5 trials"):
        tasks.held_out(part(session, 0.0, 20 / 60))


def test_checkpoints_of_different_outputs_are_refused(made: Checkpoint, held: tasks.HeldOut) -> None:
    """Their rows would not stand for the same question."""
    other = replace(made, header=msgspec.structs.replace(made.header, specs=made.specs[:1]))

    with pytest.raises(DataError, match="other outputs"):
        tasks.encode_rates([made, other], held)
