"""With and without markers, the values that are scored are those of the same bins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from benchmarks.studies import pauses
from neds_core.checkpoint import Checkpoint
from neds_core.data import session as sessions
from neds_core.data.session import Session
from neds_core.errors import CheckpointError
from neds_core.model import offline
from neds_core.scores import r2
from runtime.core.timeline import GAP_BINS


def honest(made: Checkpoint, refit: bool = False) -> Checkpoint:
    """As of a training that kept the validation part apart."""
    fit = msgspec.structs.replace(made.header.config.fit, refit=refit)
    config = msgspec.structs.replace(made.header.config, fit=fit)
    return replace(made, header=msgspec.structs.replace(made.header, config=config))


def test_scores_are_of_the_same_bins_decoded_cold_and_through_gaps(
    session: Session, make_checkpoint: Callable[..., Checkpoint]
) -> None:
    """Each segment alone; and all of them as one stretch with empty bins between, of which no bin is scored."""
    made, part = honest(make_checkpoint()), sessions.split(session).validation
    rows = {row.decoder: row for row in pauses.score(made, session)}
    counts = np.zeros((6, 25 + GAP_BINS, 12), np.uint8)
    counts[:, :25] = session.counts[part.bins()].reshape(6, 25, 12)
    flat, n_bins = counts.reshape(-1, 12), counts.shape[0] * counts.shape[1]
    inside = np.arange(n_bins) % (25 + GAP_BINS) < 25
    target = part.values["wheel_speed"][part.bins()]
    known = np.isfinite(target) & part.valid[part.bins()]

    def expected(spans: list[tuple[int, int]]) -> float:
        decoded = np.full(n_bins, np.nan)
        found = offline.decode(made.model, flat, np.ones(n_bins, bool), np.full(n_bins, -1), spans)["wheel_speed"]
        decoded[np.concatenate([np.arange(a, b) for a, b in spans])] = found
        value = decoded[inside] * made.scalers.sd["wheel_speed"] + made.scalers.mean["wheel_speed"]
        return r2.r2(target[known], value[known])

    trials = [(at, at + 25) for at in range(0, n_bins, 25 + GAP_BINS)]
    neds, ridge = rows["neds"], rows["ridge"]
    assert neds.output == "wheel_speed"
    # 1e-5: float32 sums in another order
    np.testing.assert_allclose(neds.markers, expected(trials), atol=1e-5)
    np.testing.assert_allclose(neds.no_markers, expected([(0, n_bins)]), atol=1e-5)
    assert neds.markers != neds.no_markers
    assert neds.difference["value"] == pytest.approx(neds.no_markers - neds.markers)
    assert ridge.markers > 0.5


def test_a_checkpoint_that_has_seen_the_part_is_refused(
    session: Session, make_checkpoint: Callable[..., Checkpoint]
) -> None:
    """Its scores would say nothing."""
    with pytest.raises(CheckpointError, match="was trained on the validation part too; train it with refit = false"):
        pauses.score(honest(make_checkpoint(), refit=True), session)
