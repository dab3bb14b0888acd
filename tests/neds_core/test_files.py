"""A file is whole or as it was, whoever writes it; why it could not be written is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import figures, rows
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import session_file, store
from neds_core.data.session import Session
from neds_core.errors import ConfigError
from neds_core.files import make_folder, whole
from neds_core.train import state
from neds_core.train.log import Log, Progress, Silent

SmallDisk = Callable[[int], AbstractContextManager[None]]
LIMIT = 300  # bytes; every file below is larger


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"

    with whole(path) as partial:
        partial.write_bytes(b"new")
        assert not path.exists()

    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    """And nothing beside it."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail() -> None:
        with whole(path) as partial:
            partial.write_bytes(b"ne")
            raise OSError("broken")

    with pytest.raises(ConfigError, match=r"a\.bin cannot be written \(broken\); look at its folder and disk"):
        fail()

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def steps(path: Path, *numbers: int) -> None:
    """Log these steps of a training."""
    with Log(path, Silent()) as log:
        log.stage("NEDS")
        for n in numbers:
            log.step(Progress(n, 9, 0.5, {"spikes": 0.25}, None))


def picture(path: Path) -> None:
    """Draw something."""
    with figures.canvas(path) as (_, axes):
        axes.plot([0, 1], [1, 0])


@pytest.fixture(params=["recording", "checkpoint", "state", "log", "picture"])
def write(request: pytest.FixtureRequest, session: Session, checkpoint: Checkpoint) -> Callable[[Path], None]:
    """What writes a file of ours."""
    return {
        "recording": lambda path: session_file.save(session, path),
        "checkpoint": lambda path: checkpoints.save(checkpoint, path),
        "state": lambda path: state.save({"weight": torch.zeros(500)}, "id", path),
        "log": lambda path: steps(path, *range(1, 9)),
        "picture": picture,
    }[request.param]


@pytest.mark.parametrize("there", [True, False])
def test_a_kill_within_a_write_leaves_the_old_file_and_the_next_one_is_whole(
    write: Callable[[Path], None], killed_within: Callable[[Callable[[], object], int], None], tmp_path: Path,
    there: bool,
) -> None:  # fmt: skip
    """What was cut short lies beside it, and is written over."""
    path = tmp_path / "file.png"
    if there:
        write(path)
    before = path.read_bytes() if there else b""
    grows = before.startswith(b'{"stage')  # a log, line by line

    killed_within(lambda: steps(path, 9) if grows else write(path), len(before) + 20 if grows else LIMIT)

    if there:
        assert path.read_bytes()[: len(before)] == before
        assert grows or len(path.read_bytes()) == len(before)
    write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["file.png"]


@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(
    write: Callable[[Path], None], small_disk: SmallDisk, tmp_path: Path, there: bool
) -> None:
    """A real limit, not an error made up; nothing half-written is left."""
    path = tmp_path / "file.png"
    if there:
        write(path)
        assert path.stat().st_size > LIMIT
    before = path.read_bytes() if there else b""

    with small_disk(LIMIT), pytest.raises(ConfigError) as error:
        steps(path, 9) if before.startswith(b'{"stage') else write(path)

    assert str(error.value) == f"{path} cannot be written (File too large); make room or name another folder"
    if there:
        assert path.read_bytes() == before
    assert [p for p in tmp_path.iterdir() if p.suffix == ".partial"] == []


def test_a_stored_recording_is_whole_or_not_there(session: Session, small_disk: SmallDisk, tmp_path: Path) -> None:
    with small_disk(LIMIT), pytest.raises(ConfigError, match=r"stored cannot be written \("):
        store.write(session, tmp_path / "stored")
    assert list(tmp_path.iterdir()) == []


def test_rows_of_a_long_measurement_go_on_after_a_full_disk(small_disk: SmallDisk, tmp_path: Path) -> None:
    """The row that was cut short is computed again."""
    path = tmp_path / "rows.jsonl"
    rows.append(path, {"row": "a" * 200})
    with small_disk(LIMIT), pytest.raises(ConfigError, match=r"rows\.jsonl cannot be written \(File too large\)"):
        rows.append(path, {"row": "b" * 200})

    rows.ready(path)
    rows.append(path, {"row": "c"})

    assert [row["row"][0] for row in rows.read(path)] == ["a", "c"]


def test_a_folder_that_cannot_be_is_one_sentence(session: Session, tmp_path: Path) -> None:
    """Below a file; a recording into a folder that is not there."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"file/figures cannot be written \(Not a directory\); look at its folder"):
        make_folder(tmp_path / "file" / "figures")
    with pytest.raises(ConfigError, match=r"a\.npz cannot be written \(No such file or directory\)"):
        session_file.save(replace(session, name="a"), tmp_path / "none" / "a.npz")
