"""Blocks on disk: whatever a crash leaves of the file, what is read is the beginning of what was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from calibration.collecting import folder
from neds_core.data.session import Session
from neds_core.errors import DataError
from runtime.core.log_blocks import BlockLog, joined
from runtime.core.run_log import COLUMNS, RunLog
from runtime.core.values import SPIKES
from runtime.io import block_file
from runtime.io.block_file import MAGIC, Keeper
from tests.calibration.rigs import collected, first, header_of

PATH = Path("run-001.blocks")


def blocks_of(session: Session, bins: int) -> list[RunLog]:
    """What a run over a recording hands on, its last block too."""
    found: list[RunLog] = []
    log = BlockLog(header_of(session), bins, len(session.units), 0, found.append)
    collected(session, log=log)
    log.hand_over()
    return found


@pytest.fixture(scope="module")
def written(session: Session) -> tuple[list[RunLog], bytes]:
    """The blocks of three trials, and the file of them."""
    blocks = blocks_of(first(session, 3), 30)
    return blocks, MAGIC + b"".join(map(block_file.packed, blocks))


def alike(one: RunLog, other: RunLog) -> None:
    """Both hold the same."""
    assert (one.n, one.header, one.outcome) == (other.n, other.header, other.outcome)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name)[: one.n], getattr(other, name)[: other.n], err_msg=name)
    assert (one.marks, one.events) == (other.marks, other.events)
    assert [m.labels for m in one.marks] == [m.labels for m in other.marks]
    for name, trace in one.behaviours.items():
        assert trace.t_ns == other.behaviours[name].t_ns
        np.testing.assert_array_equal(np.array(trace.values), np.array(other.behaviours[name].values))
    none = [np.zeros(0, SPIKES)]
    np.testing.assert_array_equal(np.concatenate(none + one.kept), np.concatenate(none + other.kept))


@settings(max_examples=8)
@given(bins=st.integers(1, 200))
def test_a_run_in_blocks_is_the_run(session: Session, bins: int) -> None:
    """However long its blocks are; one ends with each segment."""
    three = first(session, 3)
    blocks, whole = blocks_of(three, bins), collected(three)

    assert all(block.n <= bins for block in blocks)
    ends = np.cumsum([block.n for block in blocks])
    inside = np.flatnonzero(~whole.idle[:-1] & whole.idle[1:]) + 1
    assert set(inside.tolist()) <= set(ends.tolist())
    alike(joined(blocks), whole)


def test_what_was_written_is_read(written: tuple[list[RunLog], bytes]) -> None:
    found, torn = block_file.unpack(written[1], PATH)
    assert torn == 0
    for one, other in zip(found, written[0], strict=True):
        alike(one, other)


@given(data=st.data())
def test_any_cut_leaves_the_beginning(written: tuple[list[RunLog], bytes], data: st.DataObject) -> None:
    blocks, whole = written
    cut = data.draw(st.integers(0, len(whole)))
    found, torn = block_file.unpack(whole[:cut], PATH)

    kept = MAGIC + b"".join(block_file.packed(block) for block in blocks[: len(found)])
    assert whole[:cut].startswith(kept) or not found
    assert torn == cut - (len(kept) if cut >= len(MAGIC) else 0)
    assert len(found) == len(blocks) or cut < len(kept + block_file.packed(blocks[len(found)]))


@given(data=st.data())
def test_any_damage_costs_what_follows_it_alone(written: tuple[list[RunLog], bytes], data: st.DataObject) -> None:
    blocks, whole = written
    at = data.draw(st.integers(len(MAGIC), len(whole) - 1))
    damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    found, torn = block_file.unpack(damaged, PATH)

    ends = np.cumsum([len(MAGIC), *(len(block_file.packed(block)) for block in blocks)])
    assert len(found) == np.searchsorted(ends, at, side="right") - 1
    assert torn == len(whole) - ends[len(found)]


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run-001.blocks"
    path.write_bytes(b"PK\3\4 something else")
    with pytest.raises(DataError, match="is no file of collected blocks; remove it"):
        block_file.load(path)
    with pytest.raises(DataError, match="cannot be read"):
        block_file.load(tmp_path / "absent")


def test_a_block_counts_once_it_is_on_the_disk(written: tuple[list[RunLog], bytes], tmp_path: Path) -> None:
    path, told = tmp_path / "run-001.blocks", []
    with Keeper(path, lambda block: told.append(len(block_file.load(path)[0]))) as keeper:
        for block in written[0]:
            keeper.put(block)
    assert told == list(range(1, len(written[0]) + 1))
    assert (path.read_bytes(), keeper.error) == (written[1], None)
    with pytest.raises(FileExistsError), Keeper(path):
        pass


def test_a_kill_within_a_block_leaves_those_before_and_the_next_run_goes_on(
    written: tuple[list[RunLog], bytes], killed_within: Callable[[Callable[[], object], int], None], tmp_path: Path
) -> None:
    """The file is left as it is; the next run has one of its own."""
    path, blocks = tmp_path / "run-001.blocks", written[0]

    def write() -> None:
        with Keeper(path) as keeper:
            for block in blocks:
                keeper.put(block)

    end = len(MAGIC) + len(block_file.packed(blocks[0]))
    killed_within(write, end + 100)

    assert path.read_bytes() == written[1][: end + 100]
    found = folder.read(tmp_path)
    assert found.torn == ("run-001.blocks: its last block was torn by a crash and is left out (100 bytes)",)
    alike(found.logs[0], blocks[0])
    with Keeper(found.next()) as keeper:
        keeper.put(blocks[1])
    assert [log.n for log in folder.read(tmp_path).logs] == [blocks[0].n, blocks[1].n]


def test_a_full_disk_ends_what_is_kept_and_not_the_loop(
    written: tuple[list[RunLog], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was whole before stays whole."""
    path, blocks = tmp_path / "run-001.blocks", written[0]

    append, calls = Keeper._append, []

    def fails(keeper: Keeper, data: bytes) -> None:
        calls.append(len(data))
        append(keeper, data if len(calls) < 3 else data[:10])
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Keeper, "_append", fails)
    with Keeper(path) as keeper:
        for block in blocks:
            keeper.put(block)
    assert isinstance(keeper.error, OSError)
    found, torn = block_file.load(path)
    assert (len(found), torn) == (1, 10)
    alike(found[0], blocks[0])
