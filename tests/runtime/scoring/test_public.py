"""The calls of `neds_core` against a run: `decode` is what is streamed, `score` what `neds-rt evaluate` prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neds_core import checkpoint as checkpoints, decode, load, score
from neds_core.checkpoint import Checkpoint
from neds_core.data import session as sessions
from neds_core.data.session import Session
from runtime.cli import evaluate as cmd_evaluate
from runtime.core.engine import RECOMMENDED
from runtime.engines.layout import layout
from runtime.live import offline
from runtime.scoring import score as scoring, seeds

EXAMPLES = Path(__file__).parents[3] / "examples"


def values_of(made: Checkpoint, found: dict[str, np.ndarray]) -> np.ndarray:
    """(T, V) in the order of a run's values."""
    return np.concatenate([v[:, None] if v.ndim == 1 else v for v in (found[s.name] for s in made.specs)], axis=1)


@pytest.mark.parametrize("decoder", ["neds", "ridge", "blend", RECOMMENDED])
def test_what_is_decoded_is_what_a_run_streams(judged_checkpoint: Checkpoint, session: Session, decoder: str) -> None:
    """Bin by bin through the pipeline, of three networks; bins with a known fault are sent like others."""
    part = sessions.split(session).validation
    log = offline.stream(judged_checkpoint, part, decoder)

    found = decode(judged_checkpoint, session, part="validation")

    said = {s.name: found.said[found.recommended[s.name]][s.name] for s in judged_checkpoint.specs}
    said = said if decoder == RECOMMENDED else found.said[decoder]  # pyright: ignore[reportArgumentType]
    rows, values = log.decoded_rows(), values_of(judged_checkpoint, said)[part.bins()]
    exact = scoring.exactness(layout(judged_checkpoint), log.values[rows], values, np.ones(len(rows), bool))
    assert not session.valid[part.bins()].all()
    assert exact is not None
    # 1e-5 in z-scores: float32 sums in another order
    assert exact < 1e-5


def test_full_attention_sees_no_later_bin() -> None:
    """The shipped decoder of the window engine, over two trials."""
    whole = load(EXAMPLES / "ibl-dy016" / "session.npz")
    few = sessions.select(whole, slice(240, 242))
    made = checkpoints.load(EXAMPLES / "ibl-dy016" / "full.safetensors")
    log = offline.stream(made, few, "neds")

    values = values_of(made, decode(made, few, part="all").said["neds"])[few.bins()]

    exact = scoring.exactness(layout(made), log.values[log.decoded_rows()], values, np.ones(len(values), bool))
    assert exact is not None
    assert exact < 1e-5


def test_scores_are_those_of_evaluate() -> None:
    """Of the shipped demo: R2 and gains of NEDS, ridge and blend with their intervals, and what is recommended."""
    whole = load(EXAMPLES / "ibl-dy016" / "session.npz")
    made = checkpoints.load(EXAMPLES / "ibl-dy016" / "ensemble.safetensors")
    pooled = seeds.pool(cmd_evaluate._decoded([made], whole, cmd_evaluate.Split.TEST))

    found = score(made, whole)

    for name, row in pooled["traces"].items():
        ours = found[name]
        assert [ours.recommended] == row["recommended"]
        # 1e-5: a blend of values in float32 here, in float64 there
        for decoder in ("neds", "blend"):
            assert ours.each[decoder] == pytest.approx((row[decoder][0], *row[f"{decoder}_ci95"][0]), abs=1e-5)
            gain = row[f"{decoder}_minus_ridge"]
            assert ours.minus_ridge[decoder] == pytest.approx((gain["value"], gain["low"], gain["high"]), abs=1e-5)
        assert ours.ridge == pytest.approx((row["ridge"], *row["ridge_ci95"]), abs=1e-5)
    assert found["choice"].without
    assert pooled["other"]["choice"][0]["null_reason"] == found["choice"].without


def test_an_angle_has_the_degrees_of_evaluate() -> None:
    """The mouse's head over its last minute, in blocks of 10 s."""
    whole = load(EXAMPLES / "mouse-head-direction" / "session.npz")
    last = replace(whole, segments=np.array([[whole.n_bins - 3000, whole.n_bins]]))
    made = checkpoints.load(EXAMPLES / "mouse-head-direction" / "ensemble.safetensors")
    (row,) = seeds.pool(cmd_evaluate._decoded([made], last, cmd_evaluate.Split.ALL))["other"]["head_direction"]

    ours = score(decode(made, last, part="all"), last)["head_direction"]

    assert (ours.unit, ours.n) == ("deg", row["n_all"])
    for name, one in ours.each.items():
        wanted = (row[f"{name}_median_error_all"], *row[f"{name}_ci95_all"])
        assert one == pytest.approx(wanted, abs=1e-3)  # degrees
    gain = row["blend_minus_ridge_all"]
    assert ours.minus_ridge["blend"] == pytest.approx((gain["value"], gain["low"], gain["high"]), abs=1e-3)


def test_a_class_has_the_accuracy_of_evaluate(judged_checkpoint: Checkpoint, session: Session) -> None:
    """At the trials' last bins."""
    (row,) = seeds.pool(cmd_evaluate._decoded([judged_checkpoint], session))["other"]["choice"]

    ours = score(judged_checkpoint, session)["choice"]

    assert (ours.n, ours.chance) == (row["n"], row["chance"])
    assert ours.neds.value == pytest.approx(row["neds_balanced_accuracy"])
    assert ours.ridge.value == pytest.approx(row["logistic_balanced_accuracy"])
    assert ours.each[ours.recommended] == pytest.approx((row["balanced_accuracy"], *row["ci95"]))
