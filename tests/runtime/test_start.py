"""A process of ours begins with our own code, wherever its user stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.start import called

ROOT = Path(__file__).parents[2]
START = ROOT / "runtime" / "start.py"
THEIRS = ("random", "queue", "signal", "subprocess", "typing", "logging", "numpy", "typer", "kernels", "benchmarks")
STARTS = {"a child": ("-P", str(START), "runtime.cli"), "python -m": ("-m", "runtime.cli")}
PLACES = "import kernels, neds_core, runtime; print(*{m.__path__[0] for m in (kernels, neds_core, runtime)}, sep='\\n')"


def python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with scripts called like modules, each of which ends who imports it."""
    for name in THEIRS:
        (tmp_path / f"{name}.py").write_text("print('mine'); raise SystemExit(7)\n")
    return tmp_path


def test_a_program_is_named_as_it_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bare on the search path, relative beside its environment, by its whole path from elsewhere, else by our file."""
    programs, rig = tmp_path / "my lab" / ".venv" / "bin", tmp_path / "my lab" / "rig"
    for folder in (programs, rig):
        folder.mkdir(parents=True)
    for name in ("python", "neds-rt"):
        (programs / name).touch(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(sys, "prefix", str(programs.parent))
    monkeypatch.setenv("PATH", "")
    assert called("neds-rt", str(rig)) == "../.venv/bin/neds-rt"
    assert called("python", str(rig.parent)) == ".venv/bin/python"
    assert called("neds-rt", str(tmp_path)) == f"'{programs / 'neds-rt'}'"
    monkeypatch.setenv("PATH", str(programs))
    assert called("neds-rt", str(rig)) == "neds-rt"
    (programs / "neds-rt").unlink()
    assert called("neds-rt").endswith(f" -P {START} runtime.cli")


@pytest.mark.parametrize("how", STARTS)
def test_scripts_called_like_modules_are_not_imported(how: str, lab: Path) -> None:
    done = python(*STARTS[how], "--version", cwd=lab)
    assert (done.returncode, done.stdout.split()[0]) == (0, "neds-rt"), done.stdout + done.stderr


def test_a_child_needs_no_install(lab: Path) -> None:
    """It takes our packages from where its own file lies, with other scripts of the same names before them."""
    (lab / "probe.py").write_text(PLACES)
    done = python("-P", str(START), "probe", cwd=ROOT, PYTHONPATH=str(lab))
    assert done.returncode == 0, done.stderr
    assert {Path(line).parent for line in done.stdout.split()} == {ROOT}


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be deleted")
@pytest.mark.parametrize("how", STARTS)
def test_a_current_folder_that_was_deleted(how: str, tmp_path: Path) -> None:
    code = (
        f"import os, sys; os.rmdir({str(tmp_path / 'gone')!r}); "
        f"os.execv(sys.executable, [sys.executable, *{STARTS[how]!r}, '--version'])"
    )
    (tmp_path / "gone").mkdir()
    done = python("-c", code, cwd=tmp_path / "gone")
    assert (done.returncode, done.stdout.split()[:1]) == (0, ["neds-rt"]), done.stderr
    assert "the current folder is gone" in done.stderr
