"""`score`: each output beside the ridge, on the part that was decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from neds_core import decode, fit, load, score
from neds_core.checkpoint import Checkpoint
from neds_core.data import session_file
from neds_core.data.session import BehaviourSpec, Session, content
from neds_core.errors import DataError, NedsError
from neds_core.public.decode import Decoded
from neds_core.public.given import sha_of
from neds_core.scores import r2 as scores


@pytest.fixture(scope="module")
def decoded(make_checkpoint: Callable[..., Checkpoint], session: Session) -> Decoded:
    """The planted recording's last 20 %, by a checkpoint that was trained on it."""
    made = make_checkpoint()
    record = msgspec.structs.replace(made.header.record, recording_sha=sha_of(session))
    return decode(replace(made, header=msgspec.structs.replace(made.header, record=record)), session)


def of(decoded: Decoded, session: Session) -> Decoded:
    """As if another recording had been decoded."""
    return replace(decoded, recording=session.name, content=content(session))


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
        of(decoded, whole),
        checkpoint=replace(decoded.checkpoint, header=header),
        said=dict.fromkeys(decoded.said, float32),
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

    stopped = replace(session, values=still)
    assert score(of(decoded, stopped), stopped)["wheel_speed"].without == "it did not vary"
    assert score(of(decoded, alone), alone)["wheel_speed"].without == "it is not in this recording"
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


def test_a_recording_is_known_by_its_file_and_not_by_its_name(
    decoded: Decoded, session: Session, tmp_path: Path
) -> None:
    """Another day of the same name, or one that was changed, is not known to be evidence; the own, renamed, is none."""
    session_file.save(session, tmp_path / "own.npz")
    session_file.save(replace(session, name="day 2", counts=session.counts[::-1]), tmp_path / "other.npz")
    own, other = load(tmp_path / "own.npz"), load(tmp_path / "other.npz")
    written = load(tmp_path / "own.npz")
    written.values["wheel_speed"][:5] = 0.0

    assert score(decoded.checkpoint, own).note == ""
    renamed = replace(own, name="renamed")
    assert "no evidence" in score(decode(decoded.checkpoint, renamed, part="all"), renamed).note
    for changed in (written, replace(own, counts=own.counts[::-1]), replace(session, name="made up")):
        assert "not known whether this part (test) was trained on" in score(decoded.checkpoint, changed).note
    assert "not the recording that was trained on" in score(decoded.checkpoint, other).note
    assert score(decode(decoded.checkpoint, other, part="all"), other).note == ""


def test_a_part_without_values_is_refused(decoded: Decoded, session: Session) -> None:
    """Of full attention beyond its window: NaN is no class, and its score is none of the part."""
    late = {name: v.copy() for name, v in decoded.said["neds"].items()}
    late["choice"][session.segments[50:, 1] - 1] = np.nan
    said = {**decoded.said, "neds": late}

    with pytest.raises(DataError, match="neds has no value of choice in 10 of 300 bins: its weights are not finite"):
        score(replace(decoded, said=said), session)

    header = decoded.checkpoint.header
    model = msgspec.structs.replace(header.config.model, attention="full", window_bins=24)
    header = msgspec.structs.replace(header, config=msgspec.structs.replace(header.config, model=model))
    with pytest.raises(DataError, match=r"segments are longer than its 24 bins; raise model\.window_bins"):
        score(replace(decoded, said=said, checkpoint=replace(decoded.checkpoint, header=header)), session)


def test_a_name_or_a_recording_that_is_not_there(decoded: Decoded, session: Session) -> None:
    with pytest.raises(KeyError, match="'pupil' was not scored; there are wheel_speed, choice"):
        score(decoded, session)["pupil"]
    with pytest.raises(DataError, match="decoded were 1500 bins of 'planted', and this is 'other' with 1500"):
        score(decoded, replace(session, name="other"))
    with pytest.raises(DataError, match="'planted' holds something else than when it was decoded; decode it again"):
        score(decoded, replace(session, values={k: v[::-1] for k, v in session.values.items()}))


@pytest.mark.parametrize("wrong", [5, None, ["session.npz"]])
def test_what_is_of_another_type_is_one_sentence(decoded: Decoded, session: Session, wrong: Any) -> None:
    """With what is to be given."""
    calls = (
        lambda: score(wrong, session), lambda: score(decoded, wrong), lambda: decode(wrong, session),
        lambda: decode(decoded.checkpoint, wrong), lambda: load(wrong), lambda: fit(wrong),
        lambda: fit(session, outputs=5), lambda: fit(session, seed=wrong and -1), lambda: fit(session, wrong or 5),
        lambda: fit(session, out=wrong or 5), lambda: fit(session, progress=wrong or 5),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(NedsError, match="give "):
            call()
