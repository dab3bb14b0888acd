"""A session written as NWB is read back as it was, passes the inspector, and is refused where NWB cannot hold it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import ConfigError, DataError
from neds_core.io import nwb, recording
from neds_core.io.nwb import Origin, Subject
from neds_core.train import command
from neds_core.train.log import Silent

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries warn of one another's versions
START = Origin(1_790_000_000_123_456_789, versions={"neds-rt": "1", "torch": "2"}, more={"rig": "r"})


@pytest.fixture(scope="module")
def timed(session: Session) -> Session:
    """The planted session with spike times, a fault, a moment, and where the wheel stood when a trial began."""
    from runtime.core.timeline import spread

    return replace(
        session, events=spread(session.counts, session.bin_ns, 1), counts=session.counts.astype(np.uint16),
        moments={"first_movement": np.where(np.arange(60) % 3 == 0, np.nan, np.arange(60) % 7 * 31.0)},
        starts={"wheel_speed": np.where(np.arange(60) % 4 == 0, np.nan, np.arange(60) / 7.0)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def path(timed: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its file."""
    found = tmp_path_factory.mktemp("nwb") / "session.nwb"
    nwb.save(timed, found, START)
    return found


def test_it_is_read_as_it_was_written(timed: Session, path: Path) -> None:
    found = recording.load(path)
    for name in ("counts", "valid", "segments", "segment_ids"):
        np.testing.assert_array_equal(getattr(found, name), getattr(timed, name), err_msg=name)
    for name in timed.values:
        np.testing.assert_array_equal(found.values[name], timed.values[name], err_msg=name)
        assert found.values[name].dtype == timed.values[name].dtype
    np.testing.assert_array_equal(found.moments["first_movement"], timed.moments["first_movement"])
    assert found.starts.keys() == {"wheel_speed"}
    np.testing.assert_array_equal(found.starts["wheel_speed"], timed.starts["wheel_speed"])
    assert found.events is not None
    assert timed.events is not None
    np.testing.assert_array_equal(found.events[0], timed.events[0])
    assert (found.specs, found.units.sha256, found.bin_ns) == (timed.specs, timed.units.sha256, timed.bin_ns)
    assert (found.name, found.licence, found.citation) == (timed.name, timed.licence, timed.citation)
    assert [p.name for p in path.parent.iterdir()] == ["session.nwb"]


def test_depths_that_nobody_knows_are_left_out(timed: Session, tmp_path: Path) -> None:
    unknown = replace(timed, units=replace(timed.units, depth_um=np.full(len(timed.units), np.nan)))
    nwb.save(unknown, tmp_path / "session.nwb", START)
    assert recording.load(tmp_path / "session.nwb").units.sha256 == unknown.units.sha256


def test_other_tools_find_everything_where_nwb_has_it(timed: Session, path: Path) -> None:
    """Read with pynwb alone."""
    import pynwb

    assert timed.events is not None
    with pynwb.NWBHDF5IO(str(path), "r") as opened:
        file: Any = opened.read()
        for u in range(len(timed.units)):
            times = timed.events[0][timed.events[1] == u]
            np.testing.assert_allclose(file.units["spike_times"][u], times * 1e-9, atol=1e-12, rtol=0)  # ns as seconds
        assert file.units["region"][:].tolist() == timed.units.region.tolist()
        np.testing.assert_array_equal(file.units["depth_um"][:], timed.units.depth_um)
        np.testing.assert_allclose(file.trials["start_time"][:], timed.segments[:, 0] * 0.02, atol=1e-12)
        labels = [("left", "right", "")[v] for v in timed.values["choice"][timed.segments[:, 0]]]
        assert file.trials["label_choice"][:].tolist() == labels
        trace = file.processing["behavior"]["wheel_speed"]
        assert (trace.unit, trace.rate, trace.starting_time) == ("rad/s", 50.0, 0.02)  # at each bin's right edge
        assert len(file.invalid_times) == (~timed.valid).sum()
        assert file.session_start_time.isoformat() == "2026-09-21T14:13:20.123456+00:00"
        assert file.was_generated_by[:].tolist() == [["neds-rt", "1"], ["torch", "2"]]


@pytest.mark.parametrize("subject", [Subject(), Subject("m7", "Mus musculus", "F", "P90D")])
def test_the_inspector_has_no_critical_finding(timed: Session, tmp_path: Path, subject: Subject) -> None:
    """Nor any other violation where the animal is named."""
    import nwbinspector

    nwb.save(timed, tmp_path / "session.nwb", replace_subject(subject))
    found = list(nwbinspector.inspect_nwbfile(nwbfile_path=str(tmp_path / "session.nwb")))
    worst = {m.check_function_name for m in found if m.importance.name not in ("BEST_PRACTICE_SUGGESTION",)}
    assert worst == (set() if subject.id else {"check_subject_species_exists"})
    assert all(m.importance.name not in ("CRITICAL", "ERROR", "PYNWB_VALIDATION") for m in found)


def replace_subject(subject: Subject) -> Origin:
    return Origin(START.start_utc_ns, subject, START.versions)


def test_it_is_trained_on(timed: Session, prepared: Callable[..., Path], tmp_path: Path) -> None:
    """`neds-rt train` reads either file."""
    config = prepared(timed, steps=2)
    nwb.save(timed, tmp_path / "session.nwb", START)
    config.write_text(config.read_text().replace("session.npz", "session.nwb"))
    session_file.load(tmp_path / "session.npz")
    (tmp_path / "session.npz").unlink()
    command.run(config, tmp_path / "made.safetensors", [], Silent())
    assert (tmp_path / "made.safetensors").is_file()


def test_what_nwb_cannot_hold_is_refused(timed: Session, tmp_path: Path) -> None:
    place = tmp_path / "session.nwb"
    with pytest.raises(DataError, match="has counts and no spike times, which NWB is about"):
        nwb.save(replace(timed, events=None), place, START)
    choice = timed.values["choice"].copy()
    choice[3] = 1 - choice[4]
    with pytest.raises(DataError, match="choice changes within segment 0, and NWB has one label a trial"):
        nwb.save(replace(timed, values={**timed.values, "choice": choice}), place, START)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_is_refused(path: Path, tmp_path: Path) -> None:
    """A torn file, a text, and the NWB file of another program."""
    from datetime import UTC, datetime

    import pynwb

    torn, text, other = (tmp_path / f"{name}.nwb" for name in ("torn", "text", "other"))
    torn.write_bytes(path.read_bytes()[:20_000])
    text.write_text("no NWB")
    with pynwb.NWBHDF5IO(str(other), "w") as file:
        file.write(pynwb.NWBFile("a", "b", datetime(2026, 1, 1, tzinfo=UTC)))
    for each in (torn, text):
        with pytest.raises(DataError, match="is not a readable NWB file"):
            recording.load(each)
    with pytest.raises(DataError, match="was not written by neds-rt; make a Session"):
        recording.load(other)
    with pytest.raises(DataError, match="does not exist"):
        recording.load(tmp_path / "absent.nwb")


@pytest.mark.parametrize(
    ("subject", "why"),
    [(Subject(sex="male"), "--sex 'male': NWB knows M, F, O, U"), (Subject(age="90"), "--age '90': give a time as")],
)
def test_an_animal_that_nwb_does_not_know_is_refused(subject: Subject, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        subject.refuse()
