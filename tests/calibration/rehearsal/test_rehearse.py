"""`neds-rt rehearse` as an operator gives it: player, run, collection, fit, gate, swap; and what it refuses."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from calibration.rehearsal import rehearse as rehearsing
from calibration.rehearsal.found import BOUND, Found
from calibration.rehearsal.rehearse import Asked
from neds_core import checkpoint
from neds_core.errors import ConfigError
from runtime.io import chain
from runtime.start import command

DEMO = Path(__file__).parents[3] / "examples" / "ibl-dy016"
FEW = """min_rate_hz = 0.5
[readouts]
steps = 20
[everything]
steps = 0
[linear]
lags = [3]
filter_taus_ms = [[40.0, 200.0]]
penalties = [1e3, 1e4]
folds = 3
"""


@pytest.mark.slow
def test_a_new_decoder_is_collected_judged_and_swapped_in_without_a_wrong_message(tmp_path: Path) -> None:
    """Whatever its gate says: at the swap no message is stale or of the wrong model, and it decodes as offline."""
    (tmp_path / "calibrate.toml").write_text(FEW)
    folder = tmp_path / "rehearsal"
    options = ("--trials", rehearsing.LEAST_TRIALS, "--config", tmp_path / "calibrate.toml", "--out", folder, "--json")

    done = subprocess.run(command("runtime.cli", "rehearse", *options), capture_output=True, text=True, timeout=540)

    assert done.returncode == 0, done.stdout + done.stderr
    found = msgspec.json.decode(done.stdout.splitlines()[-1], type=Found)
    assert found == msgspec.json.decode((folder / "rehearsal.json").read_bytes(), type=Found)
    said, exact = found.messages, found.exact
    assert (said.wrong_model, said.stale_at_swap) == (0, 0)
    assert said.heard > 1000
    assert exact.first is not None
    assert exact.all is not None
    assert max(exact.first, exact.all) <= BOUND
    assert set(found.words) == {"wheel_speed", "whisker_motion_energy"}
    assert set(found.words.values()) <= {"PASS", "RIDGE", "NEED", "REFUSE"}
    assert found.gate_passed == (set(found.words.values()) <= {"PASS", "RIDGE"})
    assert found.forced is not found.gate_passed
    assert list(found.stages) == ["collect", "fit", "judge", "swap"]
    assert all(each.bins for each in found.phases)
    gate = checkpoint.load(folder / "today.safetensors").header.gate
    assert gate is not None
    links = chain.read(folder / "swaps.jsonl")
    assert [link.outcome for link in links] == found.chain == ["accepted", "taken", "kept"]
    assert all(link.forced == found.forced for link in links)
    said = (folder / "today.html").read_text(encoding="utf-8")
    assert all(f"swap, {outcome}" in said for outcome in found.chain)
    assert (folder / "today-session" / "session.nwb").is_file()


def test_the_base_has_never_seen_what_is_played() -> None:
    """Its units are others, those of the stand-in are the stream's."""
    from calibration.rehearsal import halves
    from neds_core.data import session_file

    played = halves.today(session_file.load(DEMO / "session.npz"))
    base, first = (checkpoint.load(DEMO / f"{name}.safetensors") for name in ("half-a", "half-b-before"))
    assert set(base.units.ids) & set(played.units.ids) == set()
    assert first.units.sha256 == played.units.sha256
    assert [spec.name for spec in base.specs] == [spec.name for spec in first.specs] == list(played.values)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"trials": 28}, "--trials 28: a calibration needs 29"),
        ({"folder": Path()}, "exists; name a new folder"),
        ({"demo": Path("nowhere")}, "session.npz is not there; run it from a checkout"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused_first(tmp_path: Path, given: dict[str, object], why: str) -> None:
    asked = {"demo": DEMO, "folder": tmp_path / "new", "trials": 29} | given
    with pytest.raises(ConfigError, match=why):
        rehearsing.rehearse(Asked(**asked), 0.0, lambda line: None)  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "new").exists()


def test_a_configuration_that_does_not_fit_is_refused_first(tmp_path: Path) -> None:
    """So the same folder can be named again."""
    asked = Asked(DEMO, tmp_path / "new", 29, tmp_path / "calibrate.toml")
    for text, why in (("[readouts]\nstep = 3\n", "did you mean 'steps'"), ("[model]\nwidth = 32\n", "model is set")):
        (tmp_path / "calibrate.toml").write_text(text)
        with pytest.raises(ConfigError, match=why):
            rehearsing.rehearse(asked, 0.0, lambda line: None)
        assert not asked.folder.exists()
