"""The folder of a collection: what it holds, and what may not be added to it."""

from __future__ import annotations

import copy
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from calibration.collecting import collect as collecting, folder as folders
from calibration.collecting.progress import Goal
from calibration.collecting.wanted import Asked
from neds_core.data.session import Session
from neds_core.errors import ConfigError, DataError
from runtime.config import InputConfig, RigConfig
from runtime.core.run_log import Header, RunLog
from runtime.io.block_file import MAGIC, packed
from tests.calibration.rigs import collected, first


@pytest.fixture(scope="module")
def log(session: Session) -> RunLog:
    return collected(first(session, 2))


def test_runs_are_read_in_order(log: RunLog, tmp_path: Path) -> None:
    for number in (1, 2, 10):
        (tmp_path / f"run-{number:03d}.blocks").write_bytes(MAGIC + packed(log))
    (tmp_path / "session.npz").touch()
    (tmp_path / "session.nwb.partial").touch()
    kept = folders.read(tmp_path)
    assert (len(kept.logs), kept.torn, kept.next().name) == (3, (), "run-011.blocks")


def test_a_torn_block_is_said_and_its_file_left_alone(log: RunLog, tmp_path: Path) -> None:
    path, whole = tmp_path / "run-001.blocks", MAGIC + packed(log)
    path.write_bytes(whole + whole[:50])
    kept = folders.read(tmp_path)
    assert kept.torn == ("run-001.blocks: its last block was torn by a crash and is left out (50 bytes)",)
    assert [found.n for found in kept.logs] == [log.n]
    path.write_bytes(b"")
    assert (folders.read(tmp_path).logs, folders.read(tmp_path).next().name) == ((), "run-002.blocks")


def test_a_new_folder_is_taken_and_another_one_refused(tmp_path: Path) -> None:
    assert folders.read(tmp_path / "a" / "b").next() == tmp_path / "a" / "b" / "run-001.blocks"
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "thesis.docx").touch()
    with pytest.raises(ConfigError, match=r"holds .b., which is of no collection; name another"):
        folders.read(tmp_path / "a")
    with pytest.raises(ConfigError, match="is no folder; name another"):
        folders.read(tmp_path / "a" / "thesis.docx")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"bin_ns": 10_000_000}, "bins of 20 ms, this run has 10 ms"),
        ({"unit_map_sha": "f" * 64}, "the stream now has ffffffffffff"),
        ({"specs": ()}, r"other outputs than this run's \(wheel_speed differs\)"),
    ],
)
def test_another_rig_does_not_go_on_with_it(
    log: RunLog, tmp_path: Path, change: dict[str, object], what: str
) -> None:  # fmt: skip
    (tmp_path / "run-001.blocks").write_bytes(MAGIC + packed(log))
    kept, header = folders.read(tmp_path), log.header
    folders.refuse_other(kept, header)
    other: Header = replace(header, **change)
    with pytest.raises(DataError, match=f"{what}; name another with --out"):
        folders.refuse_other(kept, other)


RIG = RigConfig("r", "", InputConfig("x", markers="y", behaviours={"wheel_speed": "z"}))


@pytest.mark.parametrize(
    ("now", "base", "what"),
    [
        ({"rig": "left"}, {}, "rig 'r', this one is 'left'"),
        ({"input": replace(RIG.input, spikes="probe2")}, {}, "input.spikes 'x', this rig has 'probe2'"),
        ({"input": replace(RIG.input, markers="")}, {}, "input.markers 'y', this rig has ''"),
        ({"input": replace(RIG.input, behaviours={"wheel_speed": "w"})}, {}, "input.behaviours {.*'z'}, this rig has"),
        ({}, {"bin_ns": 10_000_000}, "bins of 20 ms, this one would have 10 ms"),
        ({}, {"specs": ()}, "outputs wheel_speed, choice, and the base now asks for others"),
    ],
)
def test_a_finished_collection_is_of_its_own_rig_and_base(
    session: Session, tmp_path: Path, now: dict[str, object], base: dict[str, object], what: str
) -> None:
    """As far as that shows without streams: one that holds enough already is not connected."""
    log = collected(first(session, 2), config=msgspec.to_builtins(RIG))
    (tmp_path / "run-001.blocks").write_bytes(MAGIC + packed(log))
    asked = Asked(session.specs, session.bin_ns)
    assert collecting.begin(RIG, asked, tmp_path, Goal(trials=1)).progress.enough
    with pytest.raises(DataError, match=f"holds a collection of {what}.*; name another with --out"):
        folders.refuse_rig(
            folders.read(tmp_path), replace(RIG, **now), **{"specs": asked.specs, "bin_ns": asked.bin_ns} | base
        )  # fmt: skip
    with pytest.raises(DataError, match="rig 'r', this one is 'left'"):
        collecting.begin(replace(RIG, rig="left"), asked, tmp_path, Goal(trials=1))


def test_old_data_are_said_and_refused(log: RunLog, tmp_path: Path) -> None:
    """The newest of a collection, the oldest of an update."""
    hour, end_ns = 3600 * 10**9, int(log.t_end_ns[log.n - 1])
    assert folders.refuse_old(folders.read(tmp_path / "new"), 0, update=True, resume=False) == ""
    for number, utc_ns in ((1, 100 * hour), (2, 110 * hour)):
        run = copy.copy(log)
        run.header = replace(log.header, utc_ns=utc_ns)
        (tmp_path / f"run-{number:03d}.blocks").write_bytes(MAGIC + packed(run))
    kept = folders.read(tmp_path)
    at = 110 * hour + end_ns

    said = folders.refuse_old(kept, at + hour // 2, update=True, resume=False)
    assert said == f"{tmp_path} holds data already: the oldest are 10.5 h old, the newest 30 min"
    assert folders.refuse_old(kept, at + 11 * hour, update=False, resume=False).endswith("the newest 11.0 h")
    with pytest.raises(DataError, match=r"holds data that are 21.0 h old, and an update takes none older than 12 h"):
        folders.refuse_old(kept, at + 11 * hour, update=True, resume=False)
    with pytest.raises(DataError, match=r"newest data are 12.5 h old; name another with --out, or .* by --resume"):
        folders.refuse_old(kept, at + hour * 25 // 2, update=False, resume=False)
    assert folders.refuse_old(kept, at + 13 * hour, update=False, resume=True).endswith("the newest 13.0 h")
