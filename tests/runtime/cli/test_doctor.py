"""`neds-rt doctor`: a line for each thing, a remedy where one is lacking, exit code 3 where no run would work."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kernels.cpu import jit
from runtime.cli import doctor
from runtime.io import lsl_loopback, system

NAMES = {
    "python", "packages", "owner", "compiled code", "LSL", "ports", "open files", "cores", "scheduling", "limits",
    "large pages", "clock", "disk", "GPU",
}  # fmt: skip


@pytest.fixture
def said(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, dict[str, Any]]]:
    """The exit code and what is found, on this machine."""

    def run() -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = call("doctor", "--json")
        return code, msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])

    return run


def test_this_machine_runs_what_is_tested_on_it(said: Callable[[], tuple[int, dict[str, Any]]]) -> None:
    """Every line that is not ok has a remedy, and no other."""
    code, found = said()

    assert (code, found["verdict"], found["missing"]) == (0, "READY", [])
    assert {line["name"] for line in found["lines"]} == NAMES
    assert [line for line in found["lines"] if bool(line["remedy"]) != (line["verdict"] != "ok")] == []
    by_name = {line["name"]: line["found"] for line in found["lines"]}
    assert "pylsl 1." in by_name["packages"]
    assert by_name["scheduling"] == system.granted()


def test_what_a_run_needs_and_has_not_is_exit_code_3(
    said: Callable[[], tuple[int, dict[str, Any]]], call: Callable[..., int], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(doctor, "NEEDED", ("numpy", "no-such-package"))
    code, found = said()
    assert (code, found["verdict"], found["missing"]) == (3, "NOT READY", ["packages"])

    assert call("doctor") == 3
    words = capsys.readouterr().out.splitlines()
    assert words[-1] == "NOT READY"
    (line,) = [line for line in words if line.startswith("missing ")]
    assert "not installed: no-such-package; numpy " in line
    assert line.endswith("-m pip install no-such-package")


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen(1)
        port = one.getsockname()[1]
        found = doctor.ports((port,))
    assert (found.verdict, found.found) == ("less", f"taken on 127.0.0.1: {port}")
    assert "output.decode_port" in found.remedy
    assert doctor.ports((port,)).verdict == "ok"


@pytest.mark.parametrize(
    ("look", "says", "verdict"),
    [
        (doctor.large_pages, "always madvise [never]", "less"),
        (doctor.large_pages, "always [madvise] never", "ok"),
        (doctor.clock, "hpet", "less"),
        (doctor.clock, "tsc", "ok"),
    ],
)
def test_what_the_system_says(look: Callable[[Path], doctor.Line], says: str, verdict: str, tmp_path: Path) -> None:
    """And a system without such a file has nothing to be put right."""
    (tmp_path / "said").write_text(f"{says}\n")
    assert look(tmp_path / "said").verdict == verdict
    assert look(tmp_path / "nowhere") == doctor.Line(look(tmp_path / "nowhere").name, "ok", "not said by this system")


def test_a_full_disk_has_a_remedy(tmp_path: Path) -> None:
    assert doctor.disk(tmp_path, 1e9).verdict == "less"
    assert doctor.disk(tmp_path, 0.0).verdict == "ok"


def test_code_that_is_not_compiled_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is compiled at each start is only slow."""
    assert doctor.compiled().verdict == "ok"
    monkeypatch.setattr(jit, "CACHE", None)
    assert doctor.compiled().verdict == "less"
    monkeypatch.setattr(jit.settings, "DISABLE_JIT", 1)
    assert doctor.compiled().verdict == "missing"


def test_lsl_that_is_not_waited_for_is_not_found(lsl_session: str) -> None:
    """The look can fail."""
    assert lsl_loopback.fault(1e-9) == "a stream of this machine was not found in 1e-09 s"
    assert lsl_loopback.fault(5.0) == ""
