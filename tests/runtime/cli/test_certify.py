"""A run demands its certificate, and `neds-rt certify` makes one: real processes, LSL and ZeroMQ."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pylsl
import pytest

from neds_core.data.session import Session
from runtime import config as rigs, start
from runtime.certificate import chain, document
from runtime.certificate.document import Certificate, Line
from runtime.cli.demo import demo
from runtime.io import log_file
from tests.runtime.cli.test_check import Sends, sending

MakeRig = Callable[..., Path]
Call = Callable[..., int]
NOBODY = "stream 'nowhere' was not found in 0.2 s"  # what a run says that was let in
LINK = 'resolve_scope = "link"'


@pytest.fixture
def certified(make_rig: MakeRig, rig_home: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writer of a rig with a checkpoint of its own and a certificate that holds."""

    def make(source: str = "live", **sections: str) -> Path:
        shutil.copy(rig_home / "tiny.safetensors", tmp_path / "own.safetensors")
        rig = make_rig(checkpoint=tmp_path / "own.safetensors", lsl=LINK, **sections)
        made = Certificate(
            created="2026-01-01T00:00:00+00:00", rig="test", source=source, seconds=60.0, misses=1e-3,
            chain=chain.of(rigs.load(rig), rig.parent), evidence=(Line("deadline", "PASS", "0 missed"),),
        )  # fmt: skip
        document.save(made, document.beside(rig))
        return rig

    return make


@pytest.fixture
def says(call: Call, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Run a rig whose streams nobody sends; returns what it says on stderr."""

    def run(rig: Path, *options: object) -> list[str]:
        capsys.readouterr()
        assert call("run", rig, *options) == 2
        return capsys.readouterr().err.splitlines()

    return run


def test_a_run_starts_with_a_certificate_that_holds(
    certified: Callable[..., Path], says: Callable[..., list[str]], tmp_path: Path
) -> None:
    """A comment in the rig's file is no change; nor is asking for the certificate in it."""
    rig = certified()
    asked = f'certificate = "{document.beside(rig).name}"\n# lateness\n'
    for options, text in ((["--require-certificate"], ""), ([], asked)):
        rig.write_text(text + rig.read_text())
        first, *_, last = says(rig, *options)
        held = "of 2026-01-01T00:00:00+00:00 holds: of 60 s, in which at most 0.001 of the deadlines were missed"
        assert (held in first, NOBODY in last) == (True, True)
    shutil.move(document.beside(rig), tmp_path / "elsewhere.json")
    assert "there is no certificate; make one" in says(rig)[-1]
    assert NOBODY in says(rig, "--certificate", tmp_path / "elsewhere.json")[-1]


@pytest.mark.parametrize("at", [0, 1000, -1])
def test_one_byte_of_the_checkpoint_is_refused(
    certified: Callable[..., Path], says: Callable[..., list[str]], tmp_path: Path, at: int
) -> None:
    rig, path = certified(), tmp_path / "own.safetensors"
    held = bytearray(path.read_bytes())
    held[at] ^= 1
    path.write_bytes(held)
    (said,) = says(rig, "--require-certificate")
    assert "no longer holds: the checkpoint was " in said


@pytest.mark.parametrize(
    ("was", "now", "options", "named"),
    [
        ("lateness_ms = 4", "lateness_ms = 4.5", [], "bins.lateness_ms was 4.0, is 4.5"),
        ("", "", ["--decoder", "ridge"], "engine.decoder was recommended, is ridge"),
        ("", "", ["--no-markers"], "bins.use_markers was true, is false"),
    ],
)
def test_one_value_of_the_configuration_is_refused(
    certified: Callable[..., Path], says: Callable[..., list[str]], was: str, now: str, options: list[str], named: str
) -> None:
    """In the file, or by an option of the run."""
    rig = certified(bins="lateness_ms = 4")
    rig.write_text(rig.read_text().replace(was, now))
    (said,) = says(rig, "--require-certificate", *options)
    assert f"no longer holds: {named}; certify the rig again" in said


def test_a_certificate_of_a_replay_is_for_replays(
    certified: Callable[..., Path], says: Callable[..., list[str]]
) -> None:
    rig = certified("replay")
    assert "is of a replay" in says(rig, "--require-certificate")[-1]
    assert NOBODY in says(rig, "--require-certificate", "--allow-replay")[-1]


@pytest.mark.parametrize("misses", ["0", "1", "nan", "-0.1"])
def test_a_share_that_says_nothing_is_refused(make_rig: MakeRig, fails: Callable[..., str], misses: str) -> None:
    said = fails("certify", make_rig(), "--misses", misses)
    assert f"--misses {float(misses):g} is not above 0 and at most 0.5" in said


def neds_rt(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A command of ours in a process of its own."""
    line = start.command("runtime.cli", *words)
    done = subprocess.run(line, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == code, done.stderr[-2000:] + done.stdout[-2000:]
    return done


def last(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return msgspec.json.decode(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_demo_is_certified_and_runs_with_it(tmp_path: Path) -> None:
    """Played: PASS, of a replay; the run's log names it; one byte later the run is refused."""
    for name in ("rig.toml", "ensemble.safetensors", "session.npz"):
        shutil.copy(demo() / name, tmp_path / name)
    rig = tmp_path / "rig.toml"
    found = last(neds_rt("certify", rig, "--play", "--seconds", 8, "--misses", 0.2, "--json"))
    verdicts = {line["name"]: line["verdict"] for line in found["evidence"]}
    assert (found["verdict"], found["source"], found["rig"]) == ("PASS", "replay", "demo")
    assert {"stream spikes", "stream markers", "deadline", "spikes", "tokens", "lost", "exact"} <= set(verdicts)
    assert (verdicts["skill wheel_speed"], verdicts["steal"]) == ("INFO", "INFO")
    assert document.load(document.beside(rig)).verdict == "PASS"
    log = tmp_path / "run.npz"
    run = ("run", rig, "--play", "--headless", "--json", "--seconds", 2, "--require-certificate", "--save-log", log)
    assert last(neds_rt(*run))["certificate"]["source"] == "replay"
    assert log_file.load(log).header.certificate["created"] == found["created"]
    with (tmp_path / "ensemble.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    assert "the checkpoint was " in neds_rt(*run, code=2).stderr


@pytest.mark.slow
@pytest.mark.serial  # its sender is in this process: beside other tests it is late itself
def test_a_rig_that_sends_is_certified_live_and_one_that_is_late_is_not(
    make_rig: MakeRig, make_outlet: Callable[..., pylsl.StreamOutlet], stream_name: str, session: Session,
    lsl_session: str,
) -> None:  # fmt: skip
    """On its own streams; spikes that come after their bin fail it, with the lateness to set."""
    outlet = make_outlet(stream_name, session.units)
    rig = make_rig(
        input=f'spikes = "{stream_name}"\nwait_s = 20', lsl=f'session_id = "{lsl_session}"',
        health="profile_min = 0.0", engine='decoder = "neds"',
    )  # fmt: skip
    words = "certify", rig, "--seconds", 4, "--misses", 0.5, "--json"
    with sending(outlet, stream_name, Sends()):
        found = last(neds_rt(*words))
    assert (found["verdict"], found["source"]) == ("PASS", "live")
    with sending(outlet, stream_name, Sends(shift_s=-0.2)):
        late = last(neds_rt(*words, code=3))
    remedies = {line["name"]: line["remedy"] for line in late["evidence"] if line["verdict"] == "FAIL"}
    assert "set bins.lateness_ms = 2" in remedies["stream spikes"]
    assert late["verdict"] == "FAIL"
