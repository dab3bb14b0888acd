"""`decode`: what a checkpoint says of a part of a recording, in units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from neds_core import checkpoint as files, decode, score
from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Verdict
from neds_core.data import session as sessions, session_file
from neds_core.data.session import Session
from neds_core.errors import CheckpointError, ConfigError, DataError
from neds_core.linear import baseline


@pytest.fixture(scope="module")
def made(make_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    """NEDS of random weights, and a linear decoder of the wheel, which is what is recommended for it."""
    one = make_checkpoint()
    verdicts = {"wheel_speed": Verdict("ridge", "a test"), "choice": Verdict("blend", "a test")}
    return replace(one, header=msgspec.structs.replace(one.header, verdicts=verdicts))


@pytest.mark.parametrize("part", ["train", "validation", "test", "all"])
def test_a_part_is_decoded_and_nothing_else(made: Checkpoint, session: Session, part: str) -> None:
    """Arrays of the whole recording's bins: NaN and -1 outside the part, and none inside it."""
    segments = session.segments if part == "all" else getattr(sessions.split(session), part).segments
    inside = np.zeros(session.n_bins, bool)
    for start, stop in segments:
        inside[start:stop] = True

    found = decode(made, session, part=part)  # pyright: ignore[reportArgumentType]

    np.testing.assert_array_equal(found.inside, inside)
    for each in (found.values, found.ridge, found.of("neds"), found.of("blend")):
        assert each["wheel_speed"].dtype == np.float32
        np.testing.assert_array_equal(np.isfinite(each["wheel_speed"]), inside)
        assert each["choice"].dtype == np.int64
        np.testing.assert_array_equal(each["choice"] >= 0, inside)
    probs = found.probs["choice"]
    np.testing.assert_allclose(probs[inside].sum(1), 1.0, atol=1e-5)  # a softmax in float32
    assert np.isnan(probs[~inside]).all()


def test_each_bin_is_at_its_right_edge(made: Checkpoint, session: Session) -> None:
    """When its value is known."""
    found = decode(made, session)

    assert found.t_s.dtype == np.float64
    np.testing.assert_allclose(found.t_s, np.arange(1, session.n_bins + 1) * 0.02)


def test_the_ridge_is_that_of_the_checkpoint_in_units(made: Checkpoint, session: Session) -> None:
    """Published where it is recommended; a class is the one that the spikes speak for, its share in training aside."""
    live = replace(session, valid=np.ones(session.n_bins, bool))
    wanted = baseline.predict(made.linear["wheel_speed"], live, made.scalers.kept, "continuous")

    found = decode(made, session, part="all")

    np.testing.assert_array_equal(found.ridge["wheel_speed"], wanted)
    np.testing.assert_array_equal(found.values["wheel_speed"], wanted)
    assert found.recommended == {"wheel_speed": "ridge", "choice": "blend"}
    np.testing.assert_array_equal(found.probs["choice"], found.said["blend"]["choice"])
    odds = found.probs["choice"] / made.scalers.prior["choice"]
    np.testing.assert_array_equal(found.values["choice"], odds.argmax(1))


def test_paths_are_taken_as_text_or_path(made: Checkpoint, session: Session, tmp_path: Path) -> None:
    unjudged = replace(made, header=msgspec.structs.replace(made.header, verdicts={}))
    files.save(unjudged, tmp_path / "a.safetensors")
    session_file.save(session, tmp_path / "session.npz")
    wanted = decode(unjudged, session).values["wheel_speed"]
    np.testing.assert_array_equal(wanted, decode(made, session).of("neds")["wheel_speed"])  # where nothing was judged

    for kind in (str, Path):
        found = decode(kind(tmp_path / "a.safetensors"), kind(tmp_path / "session.npz"))
        np.testing.assert_array_equal(found.values["wheel_speed"], wanted)
        scored = score(kind(tmp_path / "a.safetensors"), kind(tmp_path / "session.npz"))
        assert repr(scored) == repr(score(unjudged, session))


def test_what_it_holds_is_said_short(made: Checkpoint, session: Session) -> None:
    found = decode(made, session)

    assert repr(found) == "<Decoded wheel_speed, choice of 'planted', test part, 300 of 1500 bins>"
    assert found.spec("wheel_speed").unit == "rad/s"
    with pytest.raises(ConfigError, match="'pupil' was not decoded; the outputs are wheel_speed, choice"):
        found.spec("pupil")
    with pytest.raises(ConfigError, match="decoder 'kalman' is not there; choose neds, ridge, blend"):
        found.of("kalman")  # pyright: ignore[reportArgumentType]


def test_what_cannot_be_decoded_is_refused(made: Checkpoint, session: Session) -> None:
    """Other units, other bins, a checkpoint without linear decoder, a part that is none: one sentence each."""
    units = replace(session.units, ids=session.units.ids + 1)
    cases = (
        (made, replace(session, units=units), "test", DataError, "was trained on other units than 'planted' has"),
        (made, replace(session, bin_ns=10_000_000), "test", DataError, "has bins of 10 ms and checkpoint 'tiny' dec"),
        (replace(made, linear={}), session, "test", CheckpointError, "'tiny' holds no linear decoder"),
        (made, session, "held-out", ConfigError, "part 'held-out' is not known; choose train, validation, test or all"),
    )
    for one, recording, part, kind, says in cases:
        with pytest.raises(kind, match=says):
            decode(one, recording, part=part)  # pyright: ignore[reportArgumentType]
