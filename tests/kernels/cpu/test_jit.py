"""Where compiled code is kept."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kernels import KernelError
from kernels.cpu import jit

ROOT = Path(__file__).parents[3]


def test_compiled_code_lies_where_it_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a folder of this state of the sources, never where Numba would look by itself; or nowhere."""
    (tmp_path / "file").touch()
    kept = jit._cache_folder([tmp_path / "file", tmp_path / "second"])
    assert kept is not None
    assert Path(kept).parent == tmp_path / "second"
    assert not caplog.records

    monkeypatch.setattr(jit, "CACHE", jit._cache_folder([tmp_path / "file"]))
    assert jit.CACHE is None
    assert "set NUMBA_CACHE_DIR" in caplog.text
    assert jit.jit(lambda x: x + 1)(1) == 2


@pytest.mark.parametrize(
    ("home", "given"),
    [(None, ""), ("~", ""), (None, "~/compiled"), (None, "~nobody-of-this-name/compiled")],
)
def test_a_user_without_a_home_gets_no_folder_of_that_name(
    home: str | None, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No home in the environment, none in the list of users: the install's own folder is left, or nothing."""

    def nobody(_: object) -> None:
        raise KeyError("no such user")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(jit.settings, "CACHE_DIR", given)
    monkeypatch.chdir(tmp_path)

    assert jit._bases() == [jit.HERE / "__pycache__"]
    assert jit._cache_folder([base for base in jit._bases() if base.parent != jit.HERE]) is None
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_ends_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(jit, "_full", False)
    cache = SimpleNamespace(save_overload=full)
    jit._keep_going(cache)

    cache.save_overload("signature", "data")
    cache.save_overload("signature", "data")

    (record,) = caplog.records
    assert "takes no more compiled code (No space left on device), so each start compiles anew" in record.message


def test_numba_switched_off_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is made of vector instructions, which the interpreter does not have."""
    monkeypatch.setattr(jit.settings, "DISABLE_JIT", 1)
    with pytest.raises(KernelError, match=r"NUMBA_DISABLE_JIT.*switch it on"):
        jit.jit(lambda x: x)


READ_ONLY = """
mount -t tmpfs tmpfs /mnt && cp -r {root}/runtime {root}/kernels {root}/neds_core /mnt/ && cd /mnt || exit 77
find . -name __pycache__ -prune -exec rm -r {{}} + ; mount -o remount,ro /mnt || exit 77
exec env -i PATH=/usr/bin:/bin HOME=/proc/nobody PYTHONPATH=/mnt {python} -c "{code}"
"""
COUNTS = """
import numpy as np
from runtime.core.binning import Binner, SPIKES
import runtime, os
assert runtime.__path__[0].startswith('/mnt/'), runtime.__path__
binner = Binner(3, 20_000_000, max_age_ns=10**9, future_ns=10**9)
binner.start(0)
binner.feed(np.array([(1, 2), (30_000_000, 1)], SPIKES), 0)
out = np.zeros(3, np.uint16)
binner.close(out)
print(out.tolist(), binner.counters()['binned'])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounts a read-only folder")
def test_what_is_compiled_runs_where_nothing_can_be_written() -> None:
    """A read-only install, a read-only current folder, no home: compiled anew, and said."""
    script = READ_ONLY.format(root=ROOT, python=sys.executable, code=COUNTS)
    try:
        done = subprocess.run(["unshare", "-m", "bash", "-c", script], capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"this system does not let a test mount: {done.stderr}")

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[0, 0, 1] 2"
    assert "no folder for compiled code can be written, so each start compiles anew" in done.stderr
