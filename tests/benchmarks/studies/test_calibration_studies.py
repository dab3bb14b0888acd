"""The studies of calibration simulate what they say, and cut what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.studies import gate
from benchmarks.studies.calibration import row_starts
from calibration.judge import CONSTANT
from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Offer
from neds_core.data.session import Session, UnitTable


@pytest.mark.parametrize(("neds", "ridge"), [(0.0, 0.2), (0.3, 0.3)])
def test_simulated_traces_have_their_skill(neds: float, ridge: float) -> None:
    """Less the cost of fitting."""
    found = gate.trace(np.random.default_rng(0), neds, ridge, 2000)

    scores = {k: float(found.statistic(v.sum(0))) for k, v in found.sums.items()}
    assert scores["neds"] == pytest.approx(neds - gate.COST, abs=0.02)
    assert scores["ridge"] == pytest.approx(ridge - gate.COST, abs=0.02)
    assert scores[CONSTANT] == pytest.approx(0.0, abs=0.02)


def test_simulated_labels_have_their_accuracy() -> None:
    found = gate.label(np.random.default_rng(0), 0.5, 0.8, 20000)

    scores = {k: float(found.statistic(v.sum(0))) for k, v in found.sums.items()}
    assert scores["neds"] == pytest.approx(0.5, abs=0.02)
    assert scores["ridge"] == pytest.approx(0.8, abs=0.02)
    assert scores[CONSTANT] == 0.5


@pytest.mark.parametrize(
    ("word", "neds", "ridge", "wrong"),
    [
        ("PASS", 0.0, 0.0, True),
        ("PASS", 0.2, 0.3, True),
        ("PASS", 0.2, 0.21, False),
        ("RIDGE", 0.2, 0.0, True),
        ("RIDGE", 0.3, 0.2, False),
        ("NEED", 0.0, 0.0, False),
    ],
)
def test_what_counts_as_a_wrong_pass(word: str, neds: float, ridge: float, wrong: bool) -> None:
    found = Offer(word, "neds", "")  # pyright: ignore[reportArgumentType]

    assert gate.passes_wrongly(found, neds, ridge, 0.0) == wrong


@pytest.mark.parametrize("kind", row_starts.KINDS)
def test_units_that_are_alike_start_alike(
    session: Session, make_checkpoint: Callable[..., Checkpoint], kind: str
) -> None:
    """The statistics of a unit are its own: they move with it to another place of the table."""
    order = np.random.default_rng(0).permutation(len(session.units))
    moved = replace(
        session,
        units=UnitTable(*(getattr(session.units, k)[order] for k in ("ids", "region", "depth_um"))),
        counts=session.counts[:, order],
    )

    ours, theirs = row_starts.statistics(session, kind), row_starts.statistics(moved, kind)

    np.testing.assert_allclose(theirs, ours[order], atol=1e-5)
    base, model = make_checkpoint().model, make_checkpoint(seed=1).model
    row_starts.take(model, kind, session, session, base)
    assert np.isfinite(model.tokenizer().rows.numpy()).all()
