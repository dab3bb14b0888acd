"""What the README promises of the shipped decoders, checked on the shipped recording."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from runtime.cli.main import main

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
IBL = EXAMPLES / "ibl-dy016"

DEMO = "the demo"
OTHERS = ("rat-linear-track", "steinmetz2019", "bci-monkey-20131218", "mouse-head-direction")
START_S = 100.0
END_S = 400.0  # far beyond the longest recording's 200 s


@dataclass(frozen=True)
class Started:
    """A command in a process of its own, its output in files."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def begins(self) -> None:
        """Wait until it has loaded its packages and opened its ports, or has ended."""
        deadline = time.monotonic() + START_S
        while "decode and status on" not in self.err.read_text() and self.process.poll() is None:
            assert time.monotonic() < deadline, self.err.read_text()
            time.sleep(0.1)

    def result(self) -> dict:
        """The object on the last line, once the command has ended well."""
        assert self.process.wait(END_S) == 0, self.err.read_text()
        return json.loads(self.out.read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def neds_rt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Started]]:
    """Starter of commands with --json; what still runs at the end is ended."""
    home, started = tmp_path_factory.mktemp("gates"), []

    def start(*arguments: str) -> Started:
        out, err = (home / f"{len(started)}.{name}" for name in ("out", "err"))
        command = [sys.executable, "-m", "runtime.cli", *arguments, "--json"]
        with out.open("wb") as stdout, err.open("wb") as stderr:
            started.append(Started(subprocess.Popen(command, stdout=stdout, stderr=stderr), out, err))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


@pytest.fixture(scope="module")
def runs(neds_rt: Callable[..., Started]) -> dict[str, Started]:
    """The shipped recordings, played at the same time: together they take as long as the longest.

    Each starts when the one before has loaded its packages: eight processes that load torch at once take a minute.
    """
    found = {}
    for name in (*OTHERS, DEMO):
        rig = [] if name == DEMO else [str(EXAMPLES / name / "rig.toml"), "--play"]
        found[name] = neds_rt("run", *rig, "--headless")
        found[name].begins()
    return found


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict]:
    """What `neds-rt evaluate` says of shipped decoders, in this process."""

    def evaluate(*names: str) -> dict:
        files = [str(IBL / "session.npz"), *(str(IBL / f"{name}.safetensors") for name in names)]
        monkeypatch.setattr(sys, "argv", ["neds-rt", "evaluate", *files, "--no-report", "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return evaluate


def test_neds_beats_the_ridge_of_its_kind_on_held_out_trials(evaluated: Callable[..., dict]) -> None:
    """Mean of wheel and whisker R2 over three phase-free seeds: at least 0.02 above the phase-free ridge's."""
    result = evaluated("neds", "neds-seed1", "neds-seed2")
    rows = result["traces"].values()
    ours = np.mean([np.mean(row["neds"]) for row in rows])
    ridge = np.mean([row["ridge"] for row in rows])

    assert ours - ridge >= 0.02
    # 1e-4 in z-scores: float32 sums in another order
    assert result["streamed_vs_offline_max_abs"] <= 1e-4


def test_what_the_demo_publishes_beats_the_ridge_on_both_outputs(evaluated: Callable[..., dict]) -> None:
    """Intervals above 0, and a mean gain of at least 0.045 R2; and it is what its own validation part recommends."""
    result = evaluated("ensemble")
    gains = [row["blend_minus_ridge"] for row in result["traces"].values()]
    assert all(gain["low"] > 0.0 for gain in gains)
    assert np.mean([gain["value"] for gain in gains]) >= 0.045
    assert [row["recommended"] for row in result["traces"].values()] == [["blend"], ["blend"]]


@pytest.mark.serial
@pytest.mark.slow
def test_full_live_run_is_exact_and_accounts_for_everything(runs: dict[str, Started]) -> None:
    """All 60 held-out trials over LSL and ZeroMQ, to the end of the recording."""
    summary = runs[DEMO].result()
    spikes, tokens = summary["spikes"], summary["tokens"]

    assert summary["stopped_by"] == "recording_end"
    assert summary["streamed_vs_offline_max_abs"] <= 1e-4
    assert spikes["received"] == sum(n for name, n in spikes.items() if name != "received")
    assert tokens["closed"] == sum(tokens[k] for k in ("published", "superseded", "invalid", "idle"))
    # every bin of the 60 trials is scored; only where the machine stood still for longer than
    # markers are sent ahead does a trial begin late, and then the run says so
    assert tokens["scored"] == 60 * 47 or (summary["late_markers"] and tokens["scored"] < 60 * 47)
    assert summary["outputs"]["choice"]["balanced_accuracy"] is None  # inferred labels are never scored


@pytest.mark.serial
@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_recordings_run_to_their_end(runs: dict[str, Started], name: str) -> None:
    """Held-out parts, live."""
    summary = runs[name].result()

    assert summary["stopped_by"] == "recording_end"
    assert summary["streamed_vs_offline_max_abs"] <= 1e-4
