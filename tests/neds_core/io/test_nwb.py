"""A session written as NWB is read back as it was, and passes the inspector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from neds_core.data import session_file
from neds_core.data.session import BehaviourSpec, Session, UnitTable
from neds_core.errors import ConfigError, DataError
from neds_core.io import load, nwb, recording
from neds_core.io.nwb import Origin, Subject
from neds_core.io.nwb_notes import written
from neds_core.train import command
from neds_core.train.log import Silent
from runtime.core.timeline import spread

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries warn of one another's versions
START = Origin(1_790_000_000_123_456_789, versions={"neds-rt": "1", "torch": "2"}, more={"rig": "r"})


@pytest.fixture(scope="module")
def timed(session: Session) -> Session:
    """The planted session with spike times, a fault, a moment, and where the wheel stood when a trial began."""
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


@st.composite
def recordings(draw: st.DrawFn) -> Session:
    """1 to 5 units and 1 to 4 segments, touching or apart; spike times or counts; a trace with NaN, an angle, a class
    of each trial and one that changes within it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bin_ns, n_units = draw(st.sampled_from([1_000_000, 20_000_000, 45_000_000])), draw(st.integers(1, 5))
    lengths = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=4))
    edges = 4 + np.cumsum(np.array(lengths).ravel()).reshape(-1, 2)
    n_bins = int(edges[-1, 1]) + draw(st.integers(0, 3))
    choice = np.full(n_bins, -1)
    for start, stop in edges:
        choice[start:stop] = rng.integers(-1, 2)
    trace, angle = rng.normal(size=n_bins).astype(np.float32), rng.uniform(0, 2 * np.pi, n_bins)
    trace[rng.random(n_bins) < 0.2] = np.nan
    trace[:2] = 0.0, 1.0
    counts = rng.poisson(0.7, (n_bins, n_units)).astype(draw(st.sampled_from([np.uint8, np.uint16])))
    counts[0, 0] = 1
    events = spread(counts, bin_ns, 1) if draw(st.booleans()) else None
    kinds = {
        "speed": (BehaviourSpec("speed", "continuous", "m/s", "unsigned", "raw", 5.0), trace),
        "head_cos": (BehaviourSpec("head_cos", "continuous", group="head", angle="cos"), np.cos(angle)),
        "head_sin": (BehaviourSpec("head_sin", "continuous", group="head", angle="sin"), np.sin(angle)),
        "choice": (BehaviourSpec("choice", "class", classes=("left", "right")), choice),
        "state": (BehaviourSpec("state", "class", classes=("a", "b", "c")), rng.integers(-1, 3, n_bins)),
    }
    names = draw(st.sets(st.sampled_from(["speed", "choice", "state", "head"])))
    taken = [name for name in kinds if name.partition("_")[0] in names]
    return Session(
        name="drawn", bin_ns=bin_ns, counts=counts if events is None else counts.astype(np.uint16), events=events,
        units=UnitTable(rng.permutation(40)[:n_units], np.array(["ca1", "?"])[np.arange(n_units) % 2],
                        np.where(np.arange(n_units) < draw(st.integers(0, 5)), np.nan, 12.25)),
        valid=(rng.random(n_bins) < 0.8) | (np.arange(n_bins) < 2), specs=tuple(kinds[name][0] for name in taken),
        values={n: kinds[n][1].astype(np.float32 if kinds[n][0].kind == "continuous" else np.int64) for n in taken},
        segments=edges.astype(np.int64), segment_ids=rng.permutation(99)[: len(edges)].astype(np.int64),
        licence="CC0-1.0", citation="made up",
        moments={"cue": np.where(np.arange(len(edges)) % 2 == 0, np.nan, 7.5)} if draw(st.booleans()) else {},
    )  # fmt: skip


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=recordings())
def test_any_recording_survives(tmp_path: Path, one: Session) -> None:
    """Read by neds-rt itself, and imported as any other file is: every array with its type, spikes without their times
    too."""
    path = tmp_path / "session.nwb"
    nwb.save(one, path, START)
    for found in (recording.load(path), load(path)):
        for name in ("name", "bin_ns", "specs", "licence", "citation"):
            assert getattr(found, name) == getattr(one, name)
        assert found.units.sha256 == one.units.sha256
        assert (found.events is None) == (one.events is None)
        assert (found.values.keys(), found.moments.keys()) == (one.values.keys(), one.moments.keys())
        pairs = [(getattr(found, n), getattr(one, n)) for n in ("counts", "valid", "segments", "segment_ids")]
        pairs += [(found.values[n], one.values[n]) for n in one.values]
        pairs += [(found.moments[n], one.moments[n]) for n in one.moments]
        for ours, theirs in [*pairs, *zip(found.events or (), one.events or (), strict=True)]:
            np.testing.assert_array_equal(ours, theirs, strict=True)


def test_names_that_are_no_path_come_back(timed: Session, tmp_path: Path) -> None:
    """With a colon, which NWB refuses, and alike once they have none."""
    specs = tuple(BehaviourSpec(name, "continuous") for name in ("x:y", "x_y", "speed"))
    labels = BehaviourSpec("go: side", "class", classes=("left", "right"))
    trace, when = timed.values["wheel_speed"], timed.moments["first_movement"]
    values = {"x:y": trace, "x_y": 2 * trace, "speed": 3 * trace, "go: side": timed.values["choice"]}
    one = replace(
        timed, specs=(*specs, labels), values=values, moments={"go: cue": when, "x:y": when + 1.0},
        starts={"x:y": timed.starts["wheel_speed"]},
    )  # fmt: skip
    nwb.save(one, tmp_path / "session.nwb", START)
    found = load(tmp_path / "session.nwb")
    assert found.specs == one.specs
    for kind in ("values", "moments", "starts"):
        ours, theirs = getattr(found, kind), getattr(one, kind)
        assert ours.keys() == theirs.keys()
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=f"{kind} {name}")


@given(st.lists(st.text("a_/:", min_size=1, max_size=4)))
def test_no_two_names_are_written_alike(names: list[str]) -> None:
    called = written(names)
    plain = {called.get(name, name) for name in names}
    assert len(plain) == len(set(names))
    assert not any(set(name) & set("/:") for name in plain)


def test_counts_without_times_become_no_spike_times(timed: Session, tmp_path: Path) -> None:
    """There are no units then, which other tools would take for spike times, and no options make other bins."""
    import nwbinspector
    import pynwb

    path = tmp_path / "session.nwb"
    nwb.save(replace(timed, events=None), path, replace_subject(Subject("m7", "Mus musculus", "F", "P90D")))
    with pynwb.NWBHDF5IO(str(path), "r") as opened:
        file: Any = opened.read()
        module = file.processing["ecephys"]
        assert file.units is None
        np.testing.assert_array_equal(module["spike_counts"].data[:], timed.counts)
        assert module["unit_table"].id[:].tolist() == timed.units.ids.tolist()
        assert module["unit_table"]["region"][:].tolist() == timed.units.region.tolist()
    found = list(nwbinspector.inspect_nwbfile(nwbfile_path=str(path)))
    assert {m.check_function_name for m in found if m.importance.name != "BEST_PRACTICE_SUGGESTION"} == set()
    with pytest.raises(DataError, match="has counts in bins of 20 ms and no spike times; import it without options"):
        load(path, bin_ms=10)


def test_options_read_our_file_as_any_labs(path: Path, timed: Session) -> None:
    """Bins of another width come from the spikes."""
    found = load(path, bin_ms=10, outputs=["wheel_speed"])
    assert timed.events is not None
    later = timed.events[0] >= 10_000_000  # the first bin is the one at whose right edge the wheel is known
    assert (found.bin_ns, found.counts.sum()) == (10_000_000, later.sum())
    assert load(path, bin_ms=20).specs == timed.specs
    for name in ("hold_s", "derivative_ms"):  # which do nothing to a session that is taken as it is
        with pytest.raises(
            ConfigError, match=rf"--{name.replace('_', '-')} 2: neds-rt wrote .*; leave it out, or name"
        ):
            load(path, **{name: 2.0})
        assert load(path, outputs=["wheel_speed"], **{name: 2.0}).specs[0].name == "wheel_speed"


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
