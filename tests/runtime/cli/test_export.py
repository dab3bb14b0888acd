"""`neds-rt export`: a run and a session to NWB and back, to the last spike and bit; and what is refused."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from neds_core.checkpoint import Checkpoint
from neds_core.data import session_file
from neds_core.data.session import Session
from runtime.core.run_log import STATES, RunLog
from runtime.core.timeline import spread
from runtime.core.values import SPIKES
from runtime.io import log_file
from runtime.io.lsl_description import unit_rows
from runtime.live import offline

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries warn of one another's versions
Call, Fails = Callable[..., int], Callable[..., str]
START = "2026-01-31T14:03:00.25+01:00"
UTC_NS = 1_790_000_000_123_456_000


@pytest.fixture(scope="module")
def run(short: Session, judged_checkpoint: Checkpoint) -> RunLog:
    """Three decoded trials; the wheel is measured within each bin, but not in some of them."""
    log = offline.stream(judged_checkpoint, short, "blend")
    rng = np.random.default_rng(0)
    for k, end_ns in enumerate(log.t_end_ns[: log.n].tolist()):
        if k % 7:
            log.measured("wheel_speed", end_ns - 3_000_000, float(rng.normal()))
    return log


@pytest.fixture
def saved(run: RunLog, tmp_path: Path) -> Path:
    """Its file."""
    log_file.save(run, tmp_path / "run1.npz")
    return tmp_path / "run1.npz"


def told(log: RunLog, session: Session, kept: np.ndarray | None = None) -> RunLog:
    """The log as a run over LSL saves it: with units and clock; kept: spikes, too."""
    one = copy.copy(log)
    one.header = msgspec.structs.replace(log.header, units=unit_rows(session.units), utc_ns=UTC_NS)
    one.kept = [] if kept is None else [kept]
    return one


def test_a_run_comes_back_to_the_last_spike_and_bit(
    call: Call, run: RunLog, saved: Path, rig_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts, behaviour, trials and labels, through the file that other tools read."""
    out, again = tmp_path / "run1.nwb", tmp_path / "again" / "session.npz"
    assert call("export", saved, "--out", out, "--checkpoint", rig_home / "tiny.safetensors", "--start", START) == 0
    said = capsys.readouterr().err
    size = f"12 units, {run.n} bins of 20 ms ({run.n * 0.02:.1f} s), "
    assert f"{out} is written: {size}" in said
    assert " segments, counts without spike times; bin 0 began at " in said
    assert "bin 0 began at 2026-01-31T13:03:00.250000+00:00" in said
    assert call("import", out, "--out", again) == 0
    assert "neds-rt wrote this file: its session is taken as it is" in capsys.readouterr().out
    assert call("import", again.with_name("import.toml")) == 0

    found, edges, n = session_file.load(again), run.t_end_ns[: run.n], run.n
    np.testing.assert_array_equal(found.counts, run.counts[:n])
    wheel = run.behaviours["wheel_speed"].at(edges, run.header.bin_ns).astype(np.float32)
    np.testing.assert_array_equal(found.values["wheel_speed"], wheel)
    assert np.isnan(wheel).any()
    inside = np.zeros(n, bool)
    for start, stop in found.segments:
        inside[start:stop] = True
    np.testing.assert_array_equal(inside, ~run.idle[:n])
    labels = [mark.labels["choice"] for mark in run.marks if mark.labels]
    assert [found.spec("choice").classes[v] for v in found.values["choice"][found.segments[:, 0]]] == labels
    assert found.spec("wheel_speed") == run.header.specs[0]


def test_other_tools_find_what_was_decoded(
    call: Call, run: RunLog, short: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read with pynwb alone, and the inspector has no finding of weight. The log says when it was, and its units."""
    import nwbinspector
    import pynwb

    log_file.save(told(run, short), tmp_path / "run.npz")
    out, n = tmp_path / "run.nwb", run.n
    animal = ("--subject", "m7", "--species", "Mus musculus", "--sex", "F", "--age", "P90D")
    assert call("export", tmp_path / "run.npz", "--out", out, *animal) == 0
    with pynwb.NWBHDF5IO(str(out), "r") as opened:
        file: Any = opened.read()
        first_ns = UTC_NS + int(run.t_end_ns[0]) - run.header.bin_ns
        assert file.session_start_time.timestamp() == pytest.approx(first_ns * 1e-9, abs=1e-6)
        decoded = file.processing["decoded"]
        np.testing.assert_array_equal(decoded["wheel_speed"].data[:], run.values[:n, 0])
        np.testing.assert_array_equal(decoded["choice"].data[:], run.values[:n, 1:])
        np.testing.assert_array_equal(decoded["wheel_speed_sd"].data[:], run.sd[:n, 0])
        assert decoded["wheel_speed"].starting_time == pytest.approx(0.02)
        bins = file.intervals["bins"]
        assert bins["state"][:].tolist() == [str(STATES[k]) for k in run.state[:n]]
        for name in ("flags", "valid", "idle", "segment", "clock"):
            np.testing.assert_array_equal(bins[name][:], getattr(run, name)[:n])
        sent = run.sent_ns[:n] > 0
        latency = np.where(sent, (run.sent_ns - run.t_end_ns)[:n] * 1e-6, np.nan)
        np.testing.assert_array_equal(bins["latency_ms"][:], latency)
        markers = file.processing["run"]["markers"]
        assert markers["event"][:].tolist() == [mark.event for mark in sorted(run.marks)]
        assert file.acquisition["wheel_speed_received"].data[:].tolist() == list(run.behaviours["wheel_speed"].values)
        assert f'"model_sha":"{run.header.model_sha}"' in file.notes
    worst = {m.check_function_name for m in nwbinspector.inspect_nwbfile(nwbfile_path=str(out))
             if m.importance.name != "BEST_PRACTICE_SUGGESTION"}  # fmt: skip
    assert worst == set()


def test_spikes_that_a_log_keeps_are_spike_times(call: Call, run: RunLog, short: Session, tmp_path: Path) -> None:
    grid_ns = int(run.t_end_ns[0]) - run.header.bin_ns
    t_ns, unit = spread(run.counts[: run.n], run.header.bin_ns, 1)
    kept = np.zeros(len(t_ns), SPIKES)
    kept["t_ns"], kept["unit"] = t_ns + grid_ns, unit
    log_file.save(told(run, short, kept), tmp_path / "run.npz")
    assert call("export", tmp_path / "run.npz", "--out", tmp_path / "run.nwb") == 0
    assert call("import", tmp_path / "run.nwb", "--out", tmp_path / "session.npz") == 0
    found = session_file.load(tmp_path / "session.npz")
    assert found.events is not None
    np.testing.assert_array_equal(found.events[0], t_ns)
    np.testing.assert_array_equal(found.events[1], unit)
    np.testing.assert_array_equal(found.counts, run.counts[: run.n])


def test_a_session_needs_its_start(call: Call, fails: Fails, unbroken: Session, tmp_path: Path) -> None:
    """Which nobody can guess, and `unknown` says so in the file."""
    source, out = tmp_path / "session.npz", tmp_path / "out.nwb"
    session_file.save(unbroken, source)
    assert "does not say when it was recorded, and NWB has to; give --start 2026-" in fails(
        "export", source, "--out", out
    )
    assert "does not say its time zone" in fails("export", source, "--out", out, "--start", "2026-01-31T14:03:00")
    assert "is in the future" in fails("export", source, "--out", out, "--start", "2999-01-31T14:03:00Z")
    assert "is no time as ISO 8601 writes it" in fails("export", source, "--out", out, "--start", "yesterday")
    assert call("export", source, "--out", out, "--start", "unknown") == 0
    import pynwb

    with pynwb.NWBHDF5IO(str(out), "r") as opened:
        file: Any = opened.read()
        assert "when it began is not known" in file.session_description
    assert call("import", out, "--out", tmp_path / "b" / "session.npz") == 0
    assert session_file.load(tmp_path / "b" / "session.npz").units.sha256 == unbroken.units.sha256


def test_an_output_that_is_called_as_the_sd_of_another_keeps_its_name(
    call: Call, run: RunLog, short: Session, tmp_path: Path
) -> None:
    import pynwb

    log, out = told(run, short), tmp_path / "run.nwb"
    wheel, choice = log.header.specs
    log.header = msgspec.structs.replace(
        log.header, specs=(wheel, msgspec.structs.replace(choice, name="wheel_speed_sd"))
    )
    log_file.save(log, tmp_path / "run.npz")

    assert call("export", tmp_path / "run.npz", "--out", out) == 0

    with pynwb.NWBHDF5IO(str(out), "r") as opened:
        file: Any = opened.read()
        decoded = file.processing["decoded"]
        np.testing.assert_array_equal(decoded["wheel_speed_sd"].data[:], run.values[: run.n, 1:])
        np.testing.assert_array_equal(decoded["wheel_speed_sd_"].data[:], run.sd[: run.n, 0])


def test_what_is_wrong_is_refused(
    call: Call, fails: Fails, saved: Path, unbroken: Session, rig_home: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source, out, start = tmp_path / "session.npz", tmp_path / "out.nwb", ("--start", START)
    session_file.save(unbroken, source)
    assert "does not end in .nwb; give FILE.nwb, or a folder with --to pynapple" in fails(
        "export", source, "--out", tmp_path / "out.txt", *start
    )
    assert "does not exist" in fails("export", tmp_path / "none.npz", "--out", out, *start)
    assert "run1.npz does not name its units, and" in fails("export", saved, "--out", out, *start)
    cut = tmp_path / "cut.npz"
    cut.write_bytes(saved.read_bytes()[:5000])
    assert "is cut short, or no session and no log of a run" in fails("export", cut, "--out", out, *start)
    assert "is no log of a run; --checkpoint" in fails("export", source, "--out", out, *start, "--no-markers")
    assert "NWB knows M, F, O, U" in fails("export", source, "--out", out, *start, "--sex", "male")
    assert "writes several files; name a folder" in fails("export", source, "--out", out, "--to", "pynapple")
    assert "--start is for NWB" in fails("export", source, "--out", tmp_path / "nap", "--to", "pynapple", *start)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pynwb", None)
        assert "need pynwb, which is not installed; pip install" in fails("export", source, "--out", out, *start)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pynapple", None)
        said = fails("export", source, "--out", tmp_path / "nap", "--to", "pynapple")
        assert "needs pynapple, which is not installed; pip install 'neds-rt[pynapple]'" in said
    assert call("export", source, "--out", out, *start) == 0
    assert "is there already; name another file, or give --force" in fails("export", source, "--out", out, *start)
    assert "is NWB already; --to pynapple" in fails("export", out, "--out", tmp_path / "b.nwb", *start)
    assert call("export", source, "--out", out, *start, "--force") == 0


def test_what_another_export_left_is_no_part_of_this_one(
    call: Call, fails: Fails, unbroken: Session, tmp_path: Path
) -> None:
    """A folder of a run, say: its decoded values would lie beside another session's spikes. --force does not help."""
    source, out = tmp_path / "session.npz", tmp_path / "nap"
    session_file.save(unbroken, source)
    assert call("export", source, "--out", out, "--to", "pynapple") == 0
    (out / "decoded.npz").write_bytes((out / "trials.npz").read_bytes())

    said = fails("export", source, "--out", out, "--to", "pynapple", "--force")

    assert (
        said
        == f"{out / 'decoded.npz'} is of another export, and this one writes none; delete it, or name another folder"
    )
    (out / "decoded.npz").unlink()
    assert call("export", source, "--out", out, "--to", "pynapple", "--force") == 0


def test_a_run_without_a_whole_trial_says_what_to_do(
    call: Call, fails: Fails, run: RunLog, short: Session, tmp_path: Path
) -> None:
    log = told(run, short)
    log.marks = [mark for mark in run.marks if mark.event == "segment_start"][:1]
    log_file.save(log, tmp_path / "run.npz")
    given = ("export", tmp_path / "run.npz", "--out", tmp_path / "run.nwb")
    assert "no complete trial was collected" in (said := fails(*given))
    assert said.endswith("--no-markers exports it without trials")
    assert call(*given, "--no-markers") == 0


@pytest.mark.parametrize("kept", [None, np.zeros(0, SPIKES)])
def test_a_run_without_a_spike_is_exported(
    call: Call, fails: Fails, run: RunLog, short: Session, tmp_path: Path, kept: np.ndarray | None
) -> None:
    """States and events are what one wants of it then; nothing can be trained on it."""
    log, out = told(run, short, kept), tmp_path / "run.nwb"
    log.counts = np.zeros_like(run.counts)
    log_file.save(log, tmp_path / "run.npz")
    assert call("export", tmp_path / "run.npz", "--out", out) == 0
    import pynwb

    with pynwb.NWBHDF5IO(str(out), "r") as opened:
        file: Any = opened.read()
        assert file.intervals["bins"]["state"][:].tolist() == [str(STATES[k]) for k in run.state[: run.n]]
    assert "the recording is empty" in fails("import", out, "--out", tmp_path / "session.npz")


# --- pynapple ---


def test_pynapple_reads_its_files(call: Call, run: RunLog, short: Session, timed: Session, tmp_path: Path) -> None:
    nap: Any = pytest.importorskip("pynapple", reason="pynapple is not installed")
    log_file.save(told(run, short), tmp_path / "run.npz")
    assert call("export", tmp_path / "run.npz", "--out", tmp_path / "run", "--to", "pynapple") == 0
    found = {path.stem: nap.load_file(str(path)) for path in (tmp_path / "run").iterdir()}
    assert set(found) == {"counts", "behaviours", "valid", "trials", "decoded"}
    np.testing.assert_array_equal(found["counts"].values, run.counts[: run.n])
    np.testing.assert_allclose(found["counts"].t, (np.arange(run.n) + 0.5) * 0.02, atol=1e-9)
    np.testing.assert_array_equal(found["decoded"]["wheel_speed"].values, run.values[: run.n, 0])
    np.testing.assert_array_equal(found["decoded"]["choice_left"].values, run.values[: run.n, 1])
    assert found["trials"]["segment_id"].tolist() == [mark.segment for mark in run.marks if mark.labels]

    from neds_core.io import to_pynapple

    session_file.save(timed, tmp_path / "session.npz")
    objects = to_pynapple(tmp_path / "session.npz")
    assert set(objects) == {"units", "behaviours", "valid", "trials"}
    assert timed.events is not None
    for u, uid in enumerate(timed.units.ids.tolist()):
        np.testing.assert_allclose(objects["units"][uid].t, timed.events[0][timed.events[1] == u] * 1e-9, atol=1e-9)
    assert objects["units"]["region"].tolist() == timed.units.region.tolist()
    np.testing.assert_array_equal(objects["behaviours"]["wheel_speed"].values, timed.values["wheel_speed"])
    assert len(objects["trials"]) == len(timed.segments)
    assert objects["trials"]["choice"].tolist()[:3] == [
        ("left", "right", "")[v] for v in timed.values["choice"][timed.segments[:3, 0]]
    ]


@pytest.fixture
def timed(session: Session) -> Session:
    """The planted session with spike times; its segments touch."""
    return replace(session, events=spread(session.counts, session.bin_ns, 1), counts=session.counts.astype(np.uint16))


@pytest.mark.parametrize("apart", [0, 3])
def test_a_trial_restricts_to_its_own_bins(session: Session, apart: int) -> None:
    """Of counts, behaviours and decoded values, where trials touch and where bins lie between them."""
    pytest.importorskip("pynapple", reason="pynapple is not installed")
    from neds_core.io import pynapple_objects
    from neds_core.io.of_run import OfRun, Series, Table

    for bin_ns in (1_000_000, session.bin_ns):
        one = replace(session, bin_ns=bin_ns, events=None, segments=session.segments - np.array([0, apart]))
        speed = np.arange(one.n_bins, dtype=np.float64)
        decoded = OfRun((Series("speed", speed, "", ""),), (), Table("bins", "", ()), ())
        found = pynapple_objects.of(one, decoded)
        for k, (start, stop) in enumerate(one.segments.tolist()):
            trial = found["trials"][k : k + 1]
            np.testing.assert_array_equal(found["counts"].restrict(trial).values, one.counts[start:stop])
            np.testing.assert_array_equal(found["decoded"].restrict(trial)["speed"].values, speed[start:stop])
            traces = found["behaviours"].restrict(trial)
            np.testing.assert_array_equal(traces["wheel_speed"].values, one.values["wheel_speed"][start:stop])
        np.testing.assert_array_equal(found["decoded"].restrict(found["trials"])["speed"].values, one.bins())
