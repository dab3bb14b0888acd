"""What a unit's features are, and which units are asked about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from neds_core.config import ModelConfig
from neds_core.data.session import Session, UnitTable
from neds_core.errors import DataError
from neds_core.model.model import NEDS
from neds_core.scores import nested, regions


def test_places_are_kept_units_of_regions_seen_often_enough() -> None:
    """ "b" was seen in one animal only (twice), "c" has two units, "root" is nowhere, and unit 0 was filtered out."""
    first = np.array(["a", "a", "b", "b", "root", "root", "d"])
    second = np.array(["b", "a", "c", "d", "root", "d"])
    third = np.array(["a", "c", "d", "root"])
    kept = [np.arange(7) > 0, np.ones(6, bool), np.ones(4, bool)]

    found = regions.places([first, second, third], kept, ["m1", "m1", "m2"], min_animals=2, min_units=3)

    assert found.names == ("a", "d")
    assert found.session.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert found.row.tolist() == [1, 6, 1, 3, 5, 0, 2]
    assert found.label.tolist() == [0, 1, 0, 1, 1, 0, 1]


def test_a_map_needs_two_regions() -> None:
    """Refused in one sentence."""
    with pytest.raises(DataError, match="a map needs two"):
        regions.places([np.full(30, "ca1")], [np.ones(30, bool)], ["rat"])


def test_embeddings_are_a_sessions_own_rows(make_neds: Callable[..., NEDS]) -> None:
    """One row a unit: what its spikes add to the token, and how its log-rate is read."""
    model = make_neds(ModelConfig(width=16, layers=1, heads=2), n_units=(6, 9))

    rows = regions.embedding(model, session=1)

    shapes = {name: x.shape for name, x in rows.items()}
    assert shapes == {"tokenizer": (9, 16), "readout": (9, 16), "both": (9, 32)}
    counts = torch.eye(9) * 4
    tokens = model.tokenizer(1)(counts) - model.tokenizer(1)(torch.zeros(9))
    np.testing.assert_allclose(rows["tokenizer"], tokens.numpy() / 2, atol=1e-5)  # sqrt(4); float32
    np.testing.assert_array_equal(rows["both"][:, 16:], model.rate_head(1).weight.numpy())


def by_hand(session: Session) -> np.ndarray:
    """Counts (S, T, U)."""
    return np.stack([session.counts[a:b] for a, b in session.segments]).astype(float)


def test_plain_features_are_what_they_say(session: Session) -> None:
    """Against the same statistics written out with trials x bins x units."""
    counts = by_hand(session)

    found = regions.plain_features(session)

    trial = counts.sum(1)
    np.testing.assert_allclose(found["rate"][:, 0], np.log(trial.mean(0) + 0.01))
    psth = np.sqrt(counts.mean(0))
    np.testing.assert_allclose(found["shape"][:11], ((psth - psth.mean(0)) / psth.std(0)).T[:11])
    blocks = np.sqrt(trial).reshape(20, 3, 12).mean(1)
    np.testing.assert_allclose(found["drift"][:11], ((blocks - blocks.mean(0)) / blocks.std(0)).T[:11], atol=1e-9)
    z = (np.sqrt(trial) - np.sqrt(trial).mean(0)) / np.sqrt(trial).std(0)
    np.testing.assert_allclose(found["covariance"] @ found["covariance"].T, z.T @ z, atol=1e-8)  # 12 of 20 patterns
    assert found["plain"].shape == (12, 1 + 25 + 20 + 12)


def test_features_come_from_the_segments_alone(session: Session) -> None:
    """Counts outside of them may be anything: the held-out part is never read."""
    part = replace(session, segments=session.segments[:40], segment_ids=session.segment_ids[:40])
    poisoned = session.counts.copy()
    poisoned[part.segments[-1, 1] :] = 200

    for frame in (False, True):
        clean = regions.plain_features(part, frame)
        other = regions.plain_features(replace(part, counts=poisoned), frame)
        for name, x in clean.items():
            np.testing.assert_array_equal(x, other[name])


def test_a_shared_frame_does_not_depend_on_the_other_units_order(session: Session) -> None:
    """Loadings belong to a session's own patterns; quantiles of correlations mean the same in every session."""
    order = np.random.default_rng(0).permutation(12)
    other = replace(session, counts=session.counts[:, order])

    found, moved = regions.plain_features(session, True), regions.plain_features(other, True)

    np.testing.assert_allclose(moved["covariance"], found["covariance"][order], atol=1e-9)
    correlation = np.corrcoef(np.sqrt(by_hand(session).sum(1)).T)
    np.testing.assert_allclose(found["covariance"][0, 2], np.median(correlation[0, 1:]), atol=1e-9)


def test_a_region_with_its_own_time_course_is_told_by_it(session: Session) -> None:
    """Planted: the units of one region fire early in the trial, those of the other late; order and rate are alike."""
    rng = np.random.default_rng(0)
    early = np.tile(np.exp(-((np.arange(25) - 5.0) ** 2) / 20), 60)
    late = np.tile(np.exp(-((np.arange(25) - 18.0) ** 2) / 20), 60)
    label = rng.permutation(np.arange(40) % 2)
    rate = np.where(label == 0, early[:, None], late[:, None]) + 0.2
    units = UnitTable(np.arange(40), label.astype(str), np.full(40, np.nan, np.float32))
    one = replace(session, units=units, counts=rng.poisson(rate).astype(np.uint8))

    found = regions.plain_features(one)

    hit = {k: (nested.predict(found[k], label, 2) == label).astype(float) for k in ("shape", "rate", "drift")}
    assert nested.balanced(label, hit["shape"]) == 1.0
    assert nested.balanced(label, hit["drift"]) < 0.8


def test_an_unbroken_recording_has_no_trial_average(unbroken: Session) -> None:
    """Refused in one sentence."""
    with pytest.raises(DataError, match="no trial average"):
        regions.plain_features(unbroken)


def test_the_plane_is_scikit_learns() -> None:
    """Principal components of z-scored columns, up to sign."""
    x = np.random.default_rng(0).normal(size=(50, 6)) @ np.random.default_rng(1).normal(size=(6, 6))

    place, share = regions.principal_plane(x)

    theirs = PCA(2).fit((x - x.mean(0)) / x.std(0))
    np.testing.assert_allclose(np.abs(place), np.abs(theirs.transform((x - x.mean(0)) / x.std(0))), atol=1e-9)
    np.testing.assert_allclose(share, theirs.explained_variance_ratio_)
