"""`neds-rt evaluate`: its tasks, curves and figures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from matplotlib import image
from typer.testing import CliRunner

from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import session as sessions, session_file
from neds_core.data.session import Session
from neds_core.errors import ConfigError
from neds_core.files import sha256
from neds_core.io import nwb
from runtime.cli import commands, evaluate as cmd_evaluate, main as cli
from runtime.core import timeline
from runtime.scoring import curves, report, seeds

Evaluate = Callable[..., tuple[int, str, str]]
HEAD = Path(__file__).parents[3] / "examples" / "mouse-head-direction"


@pytest.fixture
def evaluate(rig_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Run `neds-rt evaluate` on the planted recording; returns its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        given = ["evaluate", rig_home / "session.npz", rig_home / "tiny.safetensors", "--no-report", *arguments]
        monkeypatch.setattr(sys, "argv", ["neds-rt", *map(str, given)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture(scope="module")
def drawn(rig_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], Path]]:
    """What each task prints and draws: task -> JSON object and folder."""
    found = {}
    for task in ("decode", "encode", "within", "cross"):
        folder = tmp_path_factory.mktemp("figures") / "new" / task
        files = [str(rig_home / name) for name in ("session.npz", "tiny.safetensors")]
        done = CliRunner().invoke(
            commands.app, ["evaluate", *files, "--task", task, "--json", "--no-report", "--figures", str(folder)]
        )
        assert done.exit_code == 0, done.output
        found[task] = msgspec.json.decode(done.stdout.splitlines()[-1]), folder
    return found


@pytest.mark.parametrize("task", ["within", "cross"])
def test_a_task_prints_one_json_object(drawn: dict[str, tuple[dict[str, Any], Path]], task: str) -> None:
    """As the last line, finite throughout."""
    found = drawn[task][0]

    assert (found["task"], found["recording"], found["checkpoints"]) == (task, "planted", ["tiny.safetensors"])
    assert all(np.isfinite(row.get("bits_per_spike", 0.0)) for rows in found["scores"].values() for row in rows)
    assert found["gains"]


@pytest.mark.parametrize(("task", "line"), [("encode", "all minus trial average"), ("cross", "wheel_speed")])
def test_a_task_says_the_same_in_words(evaluate: Evaluate, task: str, line: str) -> None:
    """A table of bits/spike, gains with their intervals."""
    code, out, _ = evaluate("--task", task)

    assert code == 0
    assert out.startswith(f"planted, held-out part, {task}, 1 checkpoint(s)")
    assert line in out


def test_what_is_recommended_is_said(judged_checkpoint: Checkpoint, short: Session) -> None:
    """Beside the scores of each decoder on the part."""
    pooled = seeds.pool(cmd_evaluate._decoded([judged_checkpoint], short, cmd_evaluate.Split.ALL))

    assert pooled["traces"]["wheel_speed"]["recommended"] == ["blend"]
    told = pooled | {"split": "all", "recording": "x", "checkpoints": ["y"], "note": ""}
    assert "wheel_speed   recommended: blend" in report.pooled_lines(told)


def test_the_mouses_head_is_scored_in_degrees() -> None:
    """The shipped decoder, streamed over the last minute: NEDS, ridge and blend, paired by blocks of 10 s."""
    whole = session_file.load(HEAD / "session.npz")
    last = replace(whole, segments=np.array([[whole.n_bins - 3000, whole.n_bins]]))
    made = checkpoints.load(HEAD / "ensemble.safetensors")

    pooled = seeds.pool(cmd_evaluate._decoded([made], last, cmd_evaluate.Split.ALL))

    (row,) = pooled["other"]["head_direction"]
    assert (row["unit"], row["n_all"]) == ("deg", 3000)
    for name in ("published", "neds", "ridge", "blend"):
        low, high = row[f"{name}_ci95_all"]
        assert 2.0 < low < row[f"{name}_median_error_all"] < high < 30.0  # chance is 90
        assert row[f"{name}_median_error_moving"] < 30.0
    gain = row["blend_minus_ridge_all"]
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert gain["value"] == pytest.approx(row["blend_median_error_all"] - row["ridge_median_error_all"])
    # 1e-5 in z-scores: float32 sums in another order
    assert pooled["streamed_vs_offline_max_abs"] <= 1e-5
    told = pooled | {"split": "all", "recording": "x", "checkpoints": ["y"], "note": ""}
    assert any(line.startswith("head_direction") and " deg, neds " in line for line in report.pooled_lines(told))


def test_a_lead_is_said_and_its_behaviour_is_not_shown(ahead_checkpoint: Checkpoint, short: Session) -> None:
    """Scores say how far ahead they are; rates from the behaviour would be rates from its future."""
    pooled = seeds.pool(cmd_evaluate._decoded([ahead_checkpoint], short, cmd_evaluate.Split.ALL))

    assert pooled["traces"]["wheel_speed"]["lead_ms"] == 60.0
    told = pooled | {"split": "all", "recording": "x", "checkpoints": ["y"], "note": ""}
    assert "wheel_speed: 60 ms ahead; its own filter holds up to 50 ms of the future" in report.pooled_lines(told)
    for task in ("encode", "cross"):
        with pytest.raises(ConfigError, match=f"60 ms ahead, so --task {task} would show its future"):
            cmd_evaluate._predicted(task, [ahead_checkpoint], short, None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--task", "encoding"), "--task 'encoding' is not known; choose decode, encode, within or cross"),
        (("--task", "encode", "--record"), "--record: only scores of decoding are written into a checkpoint"),
        (("--task", "encode", "--split", "all"), "--split all is for --task decode"),
        (("--split", "train", "--record"), "--split train is for --task decode without --record"),
    ],
)
def test_what_a_task_cannot_do_is_refused(evaluate: Evaluate, arguments: tuple[str, ...], says: str) -> None:
    """In one sentence, before anything is read."""
    code, out, err = evaluate(*arguments)

    assert (code, out) == (2, "")
    assert says in err


def test_each_part_can_be_scored(evaluate: Evaluate, session: Session) -> None:
    """With as many bins as it has; of a recording that was not trained on, the whole is what says most."""
    parts = sessions.split(session)
    wanted = {"all": session, "train": parts.train, "validation": parts.validation, "test": parts.test}

    for name, part in wanted.items():
        code, out, _ = evaluate("--split", name, "--json")
        found = msgspec.json.decode(out.splitlines()[-1])
        assert (code, found["split"]) == (0, name)
        assert found["other"]["choice"][0]["n"] == (part.values["choice"][part.segments[:, 1] - 1] >= 0).sum()
        assert ("--split all scores the whole of it" in found["note"]) == (name == "test")


def test_a_part_that_was_trained_on_is_no_evidence(rig_home: Path, tmp_path: Path) -> None:
    """Known by the recording's SHA-256 in the checkpoint."""
    made = checkpoints.load(rig_home / "tiny.safetensors")
    record = msgspec.structs.replace(made.header.record, recording_sha=sha256(rig_home / "session.npz"))
    own = tmp_path / "own.safetensors"
    checkpoints.save(replace(made, header=msgspec.structs.replace(made.header, record=record)), own)

    done = CliRunner().invoke(
        commands.app, ["evaluate", str(rig_home / "session.npz"), str(own), "--split", "all", "--no-report"]
    )

    assert "trained on or chosen by bins of this part (all): these scores are no evidence of skill" in done.stdout


@pytest.mark.filterwarnings("ignore")  # of pynwb's libraries
def test_an_nwb_file_is_scored_and_verified_as_its_session(session: Session, rig_home: Path, tmp_path: Path) -> None:
    """All but its file's name."""
    few = sessions.select(session, slice(0, 20))
    few = replace(few, runs=None, events=timeline.spread(session.counts, session.bin_ns, 0))
    recordings = (tmp_path / "session.npz", tmp_path / "session.nwb")
    session_file.save(few, recordings[0])
    nwb.save(few, recordings[1], nwb.Origin(0, nwb.Subject(), {}, {}))
    checkpoint, scores = rig_home / "tiny.safetensors", []
    for recording in recordings:
        done = CliRunner().invoke(commands.app, ["evaluate", str(recording), str(checkpoint), "--json", "--no-report"])
        assert done.exit_code == 0, done.output
        scores.append(msgspec.json.decode(done.stdout.splitlines()[-1]))
    left_out = ("note", "recording")
    assert [{k: v for k, v in one.items() if k not in left_out} for one in scores] == [
        {k: v for k, v in scores[0].items() if k not in left_out}
    ] * 2
    done = CliRunner().invoke(commands.app, ["verify", str(checkpoint), str(recordings[1]), "--json"])
    assert "largest difference" in done.stdout, done.output


def test_decoding_has_its_curves(drawn: dict[str, tuple[dict[str, Any], Path]]) -> None:
    """Against delay, place in the trial, and time from the start and from movement."""
    found = drawn["decode"][0]
    wheel, choice = found["curves"]["wheel_speed"], found["curves"]["choice"]

    assert wheel["delay_ms"][:6] == [-100.0, -80.0, -60.0, -40.0, -20.0, 0.0]
    assert len(wheel["ridge_r2"]) == len(wheel["delay_ms"])
    best = wheel["delay_ms"][int(np.argmax(wheel["ridge_r2"]))]
    assert 0 <= best <= 40  # the planted spikes follow the wheel at once, and a filter waits for more of them
    assert wheel["delay_chosen_on_validation_ms"] in wheel["delay_ms"]
    assert len(wheel["ridge_r2_by_bin"]) == 25
    events = choice["against_time"]["left_against_right"]
    assert set(events) == {"from_segment_start", "from_first_movement"}
    assert events["from_segment_start"]["offset_ms"] == [20.0 * k for k in range(25)]
    assert max(events["from_segment_start"]["n"]) == 11  # one of twelve trials has no label
    assert choice["calibration"] is None  # a quarter of eleven trials is too few for a temperature


def test_a_measured_moment_is_taken_at_its_word(rig_home: Path, tmp_path: Path) -> None:
    """Trial by trial, in bins rounded down; before one that lies after the trial, and nowhere without one."""
    made = checkpoints.load(rig_home / "tiny.safetensors")
    whole = session_file.load(rig_home / "session.npz")
    test = sessions.split(whole).test
    ms = np.r_[np.full(6, 59.9), np.full(3, 600.0), np.full(3, np.nan)]
    moved = replace(whole, moments={"first_movement": np.r_[np.zeros(48), ms]})

    curve = cmd_evaluate._pooled(cmd_evaluate._decoded([made], moved), moved)["curves"]["choice"]
    found = curve["against_time"]["left_against_right"]["from_first_movement"]

    label = test.values["choice"][test.segments[:, 0]] >= 0
    n = dict(zip(found["offset_ms"], found["n"], strict=True))
    assert found["offset_ms"][0] == -500.0  # the trials of 500 ms that moved at 600 ms have no other
    assert n[-40.0] == n[0.0] == label[:6].sum()
    assert n[-60.0] == 0
    assert n[-120.0] == n[-500.0] == label[6:9].sum()


def test_calibration_is_fitted_and_judged_on_different_trials() -> None:
    """The first quarter of the labelled trials gives the temperature; changing the rest does not move it."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet([1.0, 1.0], 400)
    label = (rng.random(400) < probs[:, 1] ** 3 / (probs[:, 1] ** 3 + probs[:, 0] ** 3)).astype(int)
    label[::10] = -1

    found = curves.calibration(probs, label)
    other = curves.calibration(np.r_[probs[:120], probs[120:, ::-1]], label)

    assert found is not None
    assert other is not None
    assert (found["n_fit"], found["n_scored"]) == (90, 270)
    assert found["temperature"] == other["temperature"] != 1.0
    assert found["ece_with_temperature"] < found["ece"] < other["ece"]


def test_places_in_a_trial_start_anew_with_it() -> None:
    """Segments of unlike length, the second shorter than the first."""
    assert curves.bins_in_trial(np.array([4, 4, 4, 9, 9, 4])).tolist() == [0, 1, 2, 0, 1, 0]


DECODED = ("wheel_speed-traces", "wheel_speed-delay", "wheel_speed-position", "choice-confusion")
DECIDED = ("left_against_right-from_segment_start", "left_against_right-from_first_movement")
ENCODED = ("encoding-by-behaviour", "raster-and-rates", "tuning-wheel_speed", "tuning-choice")
DRAWN = {
    "decode": DECODED + DECIDED,
    "encode": ENCODED,
    "within": ("within-bits-per-spike",),
    "cross": ("cross-bits-per-spike", "cross-r2"),
}


@pytest.mark.parametrize(("task", "names"), list(DRAWN.items()))
def test_figures_are_drawn(drawn: dict[str, tuple[dict[str, Any], Path]], task: str, names: tuple[str, ...]) -> None:
    """Every one of them, none blank, in a folder that need not exist before."""
    found = {p.stem: image.imread(p) for p in drawn[task][1].iterdir()}

    assert set(found) == set(names)
    assert all(pixels[..., :3].std() > 0.05 for pixels in found.values())
