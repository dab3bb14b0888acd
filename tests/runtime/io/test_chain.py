"""The chain of decoders outlives whatever ends the run that wrote it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from neds_core.errors import ConfigError, DataError
from runtime.io.chain import Chain, Link, read

ROOT = Path(__file__).parents[3]


def link(k: int) -> Link:
    return Link("2026-01-01T00:00:00Z", "rig", "swap", "taken", f"from {k}", f"to {k}", "m", "said", k, parents=("p",))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chain") / "swaps.jsonl"
    with Chain(path) as chain:
        for k in range(3):
            chain.add(link(k))
    return path


def test_it_is_added_to_by_the_next_run(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "swaps.jsonl"
    path.write_bytes(whole.read_bytes())
    with Chain(path) as chain:
        chain.add(link(3))
    assert read(path) == [link(k) for k in range(4)]


@given(cut=st.integers(1, 200))
def test_a_last_line_that_was_torn_is_left_out_and_the_next_run_goes_on(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "swaps.jsonl"
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) - min(cut, len(data) // 3)])
    assert read(path) == [link(0), link(1)]
    with Chain(path) as chain:
        chain.add(link(7))
    assert read(path) == [link(0), link(1), link(7)]


def test_a_line_that_the_disk_takes_in_part_is_not_there(whole: Path, tmp_path: Path) -> None:
    """A real limit of the size of files; once there is room the chain goes on."""
    path = tmp_path / "swaps.jsonl"
    path.write_bytes(whole.read_bytes())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Chain(path) as chain:
        resource.setrlimit(resource.RLIMIT_FSIZE, (whole.stat().st_size + 20, hard))
        try:
            with pytest.raises(OSError, match="No space left on device"):
                chain.add(link(3))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes() == whole.read_bytes()
        chain.add(link(4))
    assert read(path) == [*(link(k) for k in range(3)), link(4)]


def test_what_was_added_is_there_after_a_kill(tmp_path: Path) -> None:
    """kill -9 of the writer, in the middle of writing: whole lines in order, from the first on."""
    path = tmp_path / "swaps.jsonl"
    code = (
        "import itertools; from pathlib import Path; from runtime.io.chain import Chain, Link\n"
        f"with Chain(Path({str(path)!r})) as chain:\n"
        "    for k in itertools.count():\n"
        "        chain.add(Link('', 'rig', 'swap', 'taken', '', '', 'm', 'x' * 5000, k))\n"
        "        print(k, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = [int(child.stdout.readline()) for _ in range(5)]
        os.kill(child.pid, signal.SIGKILL)
    tokens = [each.token for each in read(path)]
    assert tokens[:5] == told == list(range(5))
    assert tokens == list(range(len(tokens)))


def test_a_place_that_cannot_be_written_and_a_file_that_is_none_are_said(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"control\.log: .*No such file"):
        Chain(tmp_path / "no" / "swaps.jsonl").__enter__()
    other = tmp_path / "other"
    other.write_bytes(b"not json\n" + whole.read_bytes())
    with pytest.raises(DataError, match="is no chain"):
        read(other)
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path / "gone")
