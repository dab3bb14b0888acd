"""Where compiled code is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels.cpu import jit


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
