"""`score`: each output beside the ridge, on the part that was decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from neds_core import decode, score
from neds_core.checkpoint import Checkpoint
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import DataError
from neds_core.public.decode import Decoded
from neds_core.scores import r2 as scores


@pytest.fixture(scope="module")
def decoded(make_checkpoint: Callable[..., Checkpoint], session: Session) -> Decoded:
    """The planted recording's last 20 %."""
    return decode(make_checkpoint(), session)


def test_a_trace_is_scored_on_its_known_bins(decoded: Decoded, session: Session) -> None:
    """R2 of each decoder, and the difference of NEDS and the blend from the ridge, with intervals over trials."""
    known = decoded.inside & np.isfinite(session.values["wheel_speed"])
    y = session.values["wheel_speed"][known]

    found = score(decoded, session)["wheel_speed"]

    assert (found.measure, found.n) == ("R2", int(known.sum()))
    for name, one in found.each.items():
        assert one.value == pytest.approx(scores.r2(y, decoded.of(name)["wheel_speed"][known]))
        assert one.low < one.value < one.high
    assert found.ridge.value > 0.5  # the planted relation
    gain = found.minus_ridge["neds"]
    assert gain.value == pytest.approx(found.neds.value - found.ridge.value)
    assert gain.low < gain.value < gain.high


def test_a_class_is_scored_at_the_last_bins_of_trials(decoded: Decoded, session: Session) -> None:
    """Beside the logistic decoder, on the trials that are labelled; a class has its chance."""
    last = session.segments[48:, 1] - 1
    label = session.values["choice"][last]
    known = label >= 0

    found = score(decoded, session)["choice"]

    guess = decoded.ridge["choice"][last]
    assert (found.measure, found.n, found.chance) == ("balanced accuracy", int(known.sum()), 0.5)
    assert found.ridge.value == pytest.approx(scores.balanced_accuracy(label[known], guess[known], 2))


def test_angles_are_scored_in_degrees_and_points_in_distance(decoded: Decoded, session: Session) -> None:
    """The median over bins of the angle between, or of the distance; each output has its R2 as well."""
    rng = np.random.default_rng(0)
    turn = rng.uniform(-np.pi, np.pi, session.n_bins)
    off = rng.normal(0.0, 0.3, session.n_bins)
    specs = (
        BehaviourSpec("head_cos", "continuous", group="head", angle="cos"),
        BehaviourSpec("head_sin", "continuous", group="head", angle="sin"),
        BehaviourSpec("x", "continuous", "cm", group="place"),
        BehaviourSpec("y", "continuous", "cm", group="place"),
    )
    truth = {"head_cos": np.cos(turn), "head_sin": np.sin(turn), "x": 10 * np.cos(turn), "y": np.zeros(len(turn))}
    said = {"head_cos": 3 * np.cos(turn + off), "head_sin": 3 * np.sin(turn + off), "x": truth["x"] + 3, "y": off + 4}
    float32 = {k: v.astype(np.float32) for k, v in said.items()}
    header = msgspec.structs.replace(decoded.checkpoint.header, specs=specs)
    whole = replace(session, specs=specs, values={k: v.astype(np.float32) for k, v in truth.items()})
    each = replace(
        decoded, checkpoint=replace(decoded.checkpoint, header=header), said=dict.fromkeys(decoded.said, float32)
    )

    found = score(each, whole)

    inside = decoded.inside
    assert (found["head"].measure, found["head"].unit) == ("median error", "deg")
    assert found["head"].neds.value == pytest.approx(np.median(np.degrees(np.abs(off[inside]))), rel=1e-4)
    assert found["place"].unit == "cm"
    assert found["place"].neds.value == pytest.approx(np.median(np.hypot(3.0, off[inside] + 4.0)), rel=1e-4)
    assert found["head"].minus_ridge["neds"] == pytest.approx((0.0, 0.0, 0.0))
    assert found["x"].measure == "R2"
    assert "head: median error in deg NEDS" in str(found)


def test_what_has_no_score_says_why(decoded: Decoded, session: Session) -> None:
    """A behaviour that is not there, does not vary, or whose labels were inferred; few trials have no interval."""
    wheel, choice = session.specs
    still = {"wheel_speed": np.ones(session.n_bins, np.float32), "choice": session.values["choice"]}
    header = msgspec.structs.replace(
        decoded.checkpoint.header, specs=(wheel, msgspec.structs.replace(choice, labels="inferred"))
    )
    inferred = replace(decoded, checkpoint=replace(decoded.checkpoint, header=header))
    alone = replace(session, specs=(choice,), values={"choice": session.values["choice"]})

    assert score(decoded, replace(session, values=still))["wheel_speed"].without == "it did not vary"
    assert score(decoded, alone)["wheel_speed"].without == "it is not in this recording"
    assert score(inferred, session)["choice"].without == "its labels were inferred"
    assert "choice: not scored: its labels were inferred" in str(score(inferred, session))
    few = score(decode(decoded.checkpoint, session), replace(session, segments=session.segments))
    assert np.isfinite(few["wheel_speed"].ridge.low)
    whole = replace(session, segments=session.segments[:4], segment_ids=session.segment_ids[:4])
    short = score(decode(decoded.checkpoint, whole, part="all"), whole)["wheel_speed"]
    assert np.isfinite(short.ridge.value)
    assert np.isnan(short.ridge.low)
    assert np.isnan(short.minus_ridge["blend"].high)


@pytest.mark.parametrize("part", ["train", "all"])
def test_a_part_that_was_trained_on_is_no_evidence(decoded: Decoded, session: Session, part: str) -> None:
    """Which the scores say, as text and in a notebook; those of the test part have no such note."""
    found = score(decode(decoded.checkpoint, session, part=part), session)  # pyright: ignore[reportArgumentType]

    assert f"by bins of this part ({part}): these scores are no evidence of skill" in str(found)
    assert "no evidence" in found._repr_html_()
    assert score(decoded, session).note == ""
    assert "not the recording" in score(decoded.checkpoint, replace(session, name="another day")).note


def test_a_name_or_a_recording_that_is_not_there(decoded: Decoded, session: Session) -> None:
    with pytest.raises(KeyError, match="'pupil' was not scored; there are wheel_speed, choice"):
        score(decoded, session)["pupil"]
    with pytest.raises(DataError, match="decoded were 1500 bins of 'planted', and this is 'other' with 1500"):
        score(decoded, replace(session, name="other"))
