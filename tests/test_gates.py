"""What the README promises of the shipped decoders, checked on the shipped recording."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
IBL = EXAMPLES / "ibl-dy016"


def neds_rt(*arguments: str, timeout: float) -> dict:
    """Run a command with --json and return the object on its last line."""
    done = subprocess.run(
        [sys.executable, "-m", "runtime.cli", *arguments, "--json"], capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_neds_beats_the_ridge_of_its_kind_on_held_out_trials() -> None:
    """Mean of wheel and whisker R2 over three phase-free seeds: at least 0.02 above the phase-free ridge's."""
    names = ("neds", "neds-seed1", "neds-seed2")
    result = neds_rt("evaluate", str(IBL / "session.npz"), *(str(IBL / f"{n}.safetensors") for n in names), timeout=300)
    rows = result["traces"].values()
    ours = np.mean([np.mean(row["neds"]) for row in rows])
    ridge = np.mean([row["ridge"] for row in rows])

    assert ours - ridge >= 0.02
    # 1e-4 in z-scores: float32 sums in another order
    assert result["streamed_vs_offline_max_abs"] <= 1e-4


@pytest.mark.slow
def test_full_live_run_is_exact_and_accounts_for_everything() -> None:
    """All 60 held-out trials over LSL and ZeroMQ, to the end of the recording."""
    summary = neds_rt("run", "--headless", timeout=300)
    spikes, tokens = summary["spikes"], summary["tokens"]

    assert summary["stopped_by"] == "recording_end"
    assert summary["streamed_vs_offline_max_abs"] <= 1e-4
    assert spikes["received"] == sum(n for name, n in spikes.items() if name != "received")
    assert tokens["closed"] == sum(tokens[k] for k in ("published", "superseded", "invalid", "idle"))
    # every bin of the 60 trials is scored; only where the machine stood still for longer than
    # markers are sent ahead does a trial begin late, and then the run says so
    assert tokens["scored"] == 60 * 47 or (summary["late_markers"] and tokens["scored"] < 60 * 47)
    assert summary["outputs"]["choice"]["balanced_accuracy"] is None  # inferred labels are never scored


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rat-linear-track", "steinmetz2019", "bci-monkey-20131218"])
def test_other_recordings_run_to_their_end(name: str) -> None:
    """The rat track, the Steinmetz session and the monkey's 45 ms bins, held-out parts, live."""
    summary = neds_rt("run", str(EXAMPLES / name / "rig.toml"), "--play", timeout=400)

    assert summary["stopped_by"] == "recording_end"
    assert summary["streamed_vs_offline_max_abs"] <= 1e-4
