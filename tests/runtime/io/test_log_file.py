"""What is written of a run is read again, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neds_core.checkpoint import Checkpoint
from neds_core.data.session import Session
from neds_core.errors import ConfigError, DataError
from runtime.core.run_log import COLUMNS, RunLog
from runtime.core.values import NO_TIME
from runtime.io import log_file
from runtime.live import offline


@pytest.fixture(scope="module")
def log(short: Session, judged_checkpoint: Checkpoint) -> RunLog:
    """A whole run, with measured behaviour."""
    made = offline.stream(judged_checkpoint, short, "ridge")
    for k in range(5):
        made.measured("wheel_speed", k * 1000, k / 3)
    made.source_delay_ms = np.array([1.5, 2.5], np.float32)
    made.happened(7, "state", "READY to IDLE")
    return made


def test_a_log_is_read_as_it_was_written(log: RunLog, tmp_path: Path) -> None:
    log_file.save(log, tmp_path / "run.npz")
    found = log_file.load(tmp_path / "run.npz")
    assert found.n == log.n
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(found, name), getattr(log, name)[: log.n])
    assert (found.header, found.outcome, found.marks, found.events) == (log.header, log.outcome, log.marks, log.events)
    assert [(m.labels, m.first_bin) for m in found.marks] == [(m.labels, m.first_bin) for m in log.marks]
    assert {n: v.summary_ms() for n, v in found.latency.items()} == {n: v.summary_ms() for n, v in log.latency.items()}
    trace = found.behaviours["wheel_speed"]
    assert (trace.t_ns, trace.values) == (log.behaviours["wheel_speed"].t_ns, log.behaviours["wheel_speed"].values)
    np.testing.assert_array_equal(found.source_delay_ms, log.source_delay_ms)


def test_a_log_of_before_sd_was_kept_is_read(log: RunLog, tmp_path: Path) -> None:
    """Nothing is known of it."""
    log_file.save(log, tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as file:
        np.savez(tmp_path / "old.npz", **{name: file[name] for name in file.files if name != "sd"})

    found = log_file.load(tmp_path / "old.npz")

    assert np.isnan(found.sd).all()
    np.testing.assert_array_equal(found.values, log.values[: log.n])


def test_a_log_of_before_passes_were_timed_is_read(log: RunLog, tmp_path: Path) -> None:
    """Nothing is known of them: 0, and no stamp."""
    log_file.save(log, tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as file:
        np.savez(tmp_path / "old.npz", **{name: file[name] for name in file.files if name not in log_file.LATER})

    found = log_file.load(tmp_path / "old.npz")

    of_pass = ("began_ns", "busy_ns", "warm_ns", "before_ns", "after_ns", "miss")
    assert not any(getattr(found, name).any() for name in of_pass)
    assert (found.newest_ns == NO_TIME).all()
    np.testing.assert_array_equal(found.sent_ns, log.sent_ns[: log.n])


def test_a_log_that_cannot_be_written_leaves_nothing_behind(log: RunLog, tmp_path: Path) -> None:
    (tmp_path / "run.npz").mkdir()
    with pytest.raises(OSError, match="directory"):
        log_file.save(log, tmp_path / "run.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]


def test_a_log_of_another_version_says_so(log: RunLog, tmp_path: Path) -> None:
    log_file.save(log, tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays[log_file.JSON] = np.frombuffer(b'{"header": {"format": 99, "new": 1}}', np.uint8)
    np.savez(tmp_path / "new.npz", **arrays)
    with pytest.raises(DataError, match=r"is of log format 99, this version reads 1; use the version that wrote it"):
        log_file.load(tmp_path / "new.npz")


def test_what_is_no_log_is_refused_in_one_sentence(log: RunLog, tmp_path: Path) -> None:
    log_file.save(log, tmp_path / "run.npz")
    whole = (tmp_path / "run.npz").read_bytes()
    cut, text, other = tmp_path / "cut.npz", tmp_path / "text.npz", tmp_path / "other.npz"
    cut.write_bytes(whole[: len(whole) // 2])
    text.write_text("no log")
    np.savez(other, counts=np.zeros(3))
    for path in (cut, text, other):
        with pytest.raises(DataError, match="is no log of a run"):
            log_file.load(path)
    for column in ("flags", "counts"):
        with np.load(tmp_path / "run.npz") as file:
            np.savez(other, **{name: file[name] for name in file.files if name != column})
        with pytest.raises(DataError, match="is no log of a run"):
            log_file.load(other)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(DataError, match="is no log of a run"):
        log_file.load(tmp_path / "array.npy")
    with pytest.raises(DataError, match="does not exist"):
        log_file.load(tmp_path / "absent.npz")


def test_a_place_that_cannot_hold_a_log_is_refused_before_the_run(log: RunLog, tmp_path: Path) -> None:
    """A run is not repeated for its file, and a recording not overwritten by it."""
    recording, ours, empty = tmp_path / "session.npz", tmp_path / "run.npz", tmp_path / "empty"
    np.savez(recording, counts=np.zeros(3))
    (tmp_path / "rig.toml").write_text('rig = "a"')
    log_file.save(log, ours)
    empty.touch()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path in (recording, tmp_path / "rig.toml", tmp_path, Path("/dev/null")):
        with pytest.raises(ConfigError, match="exists and is no log of a run; name another file or remove it"):
            log_file.prepare(path)
    with pytest.raises(ConfigError, match="its folder does not exist; make it first"):
        log_file.prepare(tmp_path / "no" / "run.npz")
    with pytest.raises(ConfigError, match="cannot be written there"):
        log_file.prepare(Path("/proc/log.npz"))
    for path in (ours, empty, tmp_path / "new.npz"):
        log_file.prepare(path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    log_file.refuse_full(ours, 1000, 100)
    with pytest.raises(ConfigError, match=r"may take \d+ MB and \d+ MB are free there; make room or lower score.log_s"):
        log_file.refuse_full(ours, 10**15, 100)
