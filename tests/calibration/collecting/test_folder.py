"""The folder of a collection: what it holds, and what may not be added to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from calibration.collecting import folder as folders
from neds_core.data.session import Session
from neds_core.errors import ConfigError, DataError
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
