"""Whatever a user gets wrong: one sentence on stderr, exit code 2, nothing half-written."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import msgspec
import pylsl
import pytest

from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import session_file
from neds_core.data.session import Session
from runtime import start
from runtime.scoring import verify as verifying

MakeRig = Callable[..., Path]
Fails = Callable[..., str]


# --- configurations ---


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("section", "lines", "says"),
    [
        ("bins", "latenes_ms = 3", "bins.latenes_ms: unknown key, did you mean 'lateness_ms'?"),
        ("output", 'budget_ms = "20 ms"', "output.budget_ms: expected `float`, got `str`; correct the value"),
        ("bins", "lateness_ms = 200", "bins.lateness_ms: not below output.budget_ms"),
        ("engine", 'decoder = "kalman"', "engine.decoder: invalid enum value 'kalman'"),
    ],
)
def test_a_wrong_configuration(
    fails: Fails, make_rig: MakeRig, command: str, section: str, lines: str, says: str
) -> None:
    assert says in fails(command, make_rig(**{section: lines}))


def test_a_missing_key(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "rig.toml").write_text('rig = "a"\n[input]\nspikes = "s"\n')
    assert "checkpoint: required key is missing; add it" in fails("run", tmp_path / "rig.toml")


def test_a_missing_file(fails: Fails, tmp_path: Path, rig_home: Path) -> None:
    gone = tmp_path / "gone"
    assert "cannot be read (No such file or directory); check the path" in fails("run", gone)
    assert "does not exist; check the path" in fails("play", gone)
    assert "does not exist; check the path" in fails("evaluate", gone, rig_home / "tiny.safetensors")
    assert "does not exist; check the path" in fails("evaluate", rig_home / "session.npz", gone)
    assert "cannot be read" in fails("train", gone)


def test_evaluate_wants_one_recording_and_checkpoints(fails: Fails, rig_home: Path) -> None:
    recording, checkpoint = rig_home / "session.npz", rig_home / "tiny.safetensors"
    assert "given 2 recordings (.npz, .nwb) and 1 checkpoints" in fails("evaluate", recording, checkpoint, recording)
    assert "given 0 recordings (.npz, .nwb) and 1 checkpoints" in fails("evaluate", checkpoint)
    assert "given 1 recordings (.npz, .nwb) and 0 checkpoints" in fails("evaluate", recording)


def test_an_unknown_decoder(fails: Fails, make_rig: MakeRig) -> None:
    said = fails("run", make_rig(), "--decoder", "lstm")
    assert said == "--decoder 'lstm' is not known; choose one of neds, ridge, blend, recommended"


def test_play_needs_a_recording(fails: Fails, make_rig: MakeRig) -> None:
    assert "--play needs a recording; set score.recording" in fails("run", make_rig(), "--play")
    told = make_rig(score='recording = "gone.npz"')
    assert "score.recording" in fails("run", told, "--play")


def test_a_log_that_could_not_be_written_is_refused_before_the_run(
    fails: Fails, make_rig: MakeRig, tmp_path: Path
) -> None:
    assert "its folder does not exist; make it first" in fails(
        "run", make_rig(), "--save-log", tmp_path / "no" / "x.npz"
    )


def test_a_log_never_overwrites_what_is_no_log(fails: Fails, make_rig: MakeRig, rig_home: Path) -> None:
    for path in (rig_home / "session.npz", rig_home / "tiny.safetensors", make_rig()):
        before = path.read_bytes()
        sentence = fails("run", make_rig(), "--save-log", path)
        assert sentence == f"--save-log {path}: exists and is no log of a run; name another file or remove it"
        assert path.read_bytes() == before


@pytest.mark.parametrize("arguments", [["run", "--speed", "2"], ["play", "x", "--split", "tset"], ["decode"]])
def test_an_unknown_option_or_word(call: Callable[..., int], arguments: list[str]) -> None:
    assert call(*arguments) == 2


def test_a_player_that_nobody_hears(fails: Fails, rig_home: Path, stream_name: str) -> None:
    sentence = fails("play", rig_home / "session.npz", "--prefix", stream_name, "--wait", "0.1")
    assert sentence == "nobody connected within 0.1 s; start `neds-rt run` first or raise --wait"


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1"])
def test_a_duration_that_is_none(fails: Fails, make_rig: MakeRig, rig_home: Path, seconds: str) -> None:
    for command in ("run", "check"):
        assert "is no duration; give a number of seconds above 0" in fails(command, make_rig(), "--seconds", seconds)
    assert "--wait" in fails("play", rig_home / "session.npz", "--wait", seconds)


# --- streams and ports ---

LINK = 'resolve_scope = "link"'  # a stream missing on the link is not looked for elsewhere


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_missing_stream(fails: Fails, make_rig: MakeRig, command: str) -> None:
    sentence = fails(command, make_rig(spikes="nowhere", lsl=LINK))
    assert sentence.startswith("stream 'nowhere' was not found in 0.2 s; start its sender or raise input.wait_s")


def test_a_player_that_ends_at_once_is_noticed_at_once(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after the 30 s that a slow one is given, and with its own last line."""
    program = "print('my random walk'); raise RuntimeError('no such recording')"
    monkeypatch.setattr(start, "command", lambda *_: [sys.executable, "-c", program])

    assert fails("run", "--headless").endswith("has ended (exit code 1): RuntimeError: no such recording")


def test_another_unit_map(
    fails: Fails, make_rig: MakeRig, make_outlet: Callable[..., pylsl.StreamOutlet], stream_name: str, unbroken: Session
) -> None:
    outlet = make_outlet(stream_name, unbroken.units)
    rig = make_rig(spikes=outlet.get_info().name(), lsl=LINK, input=f'spikes = "{stream_name}"\nwait_s = 2')
    sentence = fails("run", rig)
    assert "has another unit map" in sentence
    assert "5 units, the checkpoint has 12; 0 of its units are not the checkpoint's, 5 are" in sentence


@pytest.mark.parametrize("key", ["decode_port", "latest_port"])
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_port_in_use(fails: Fails, make_rig: MakeRig, command: str, key: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        ports = {"decode_port": 0, "latest_port": 0, key: holder.getsockname()[1]}
        rig = make_rig(output="\n".join(f"{name} = {port}" for name, port in ports.items()))
        sentence = fails(command, rig)
    assert sentence.startswith(f"port {ports[key]} on 127.0.0.1 cannot be bound (Address already in use)")
    assert f"set output.{key} (0 takes a free one)" in sentence


# --- training and evaluation ---


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('outputs = ["wheel_speed"]\n', "has to name either recording (one file) or recordings (many)"),
        ('recording = "gone.npz"\noutputs = ["wheel_speed"]\n', "gone.npz does not exist; check the path"),
        (
            'recording = "session.npz"\noutputs = ["wheel"]\n',
            "output 'wheel' does not name a quantity; say wheel_speed",
        ),
        ('recording = "session.npz"\noutputs = ["pupil_size"]\n', "has no behaviour 'pupil_size'; it has wheel_speed"),
        (
            'recording = "session.npz"\noutputs = ["choice"]\n[fit]\nstep = 3\n',
            "fit.step: unknown key, did you mean 'steps'?",
        ),
    ],
)
def test_a_training_that_is_refused_leaves_nothing(
    fails: Fails, session: Session, tmp_path: Path, text: str, says: str
) -> None:
    session_file.save(session, tmp_path / "session.npz")
    (tmp_path / "train.toml").write_text(text)
    assert says in fails("train", tmp_path / "train.toml")


def test_a_training_reads_its_configuration_once(fails: Fails, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It may come through a pipe, which gives what it holds but once."""
    pipe = tmp_path_factory.mktemp("pipe") / "train.toml"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as writer:
        written = writer.submit(pipe.write_text, 'recording = "gone.npz"\noutputs = ["wheel_speed"]\n')

        assert fails("train", pipe).startswith(f"recording {pipe.with_name('gone.npz')} does not exist")
        written.result()


def test_a_checkpoint_that_could_not_be_written_is_refused_before_training(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text('recording = "session.npz"\noutputs = ["choice"]\n')
    sentence = fails("train", tmp_path / "train.toml", "--out", tmp_path / "no" / "x.safetensors")
    assert "its folder does not exist; make it first" in sentence


def test_evaluate_prints_one_json_object_and_counts_its_look(
    call: Callable[..., int], rig_home: Path, tiny_checkpoint: Checkpoint, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "seed0.safetensors"
    checkpoints.save(tiny_checkpoint, path)

    assert call("evaluate", rig_home / "session.npz", path, "--json", "--record", "--no-report") == 0

    found = msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])
    assert set(found) >= {"recording", "checkpoints", "traces", "other", "streamed_vs_offline_max_abs"}
    assert found["streamed_vs_offline_max_abs"] <= 1e-4
    after = checkpoints.load(path).header.record
    assert after.test_looks == tiny_checkpoint.header.record.test_looks + 1
    assert after.test_scores["wheel_speed"]["neds_r2"] == pytest.approx(found["traces"]["wheel_speed"]["neds"][0])


def test_evaluate_says_the_same_in_words(
    call: Callable[..., int], rig_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("evaluate", rig_home / "tiny.safetensors", rig_home / "session.npz", "--no-report") == 0  # in any order
    out = capsys.readouterr().out
    assert out.startswith("planted, held-out part, 1 checkpoint(s)")
    assert "neds minus ridge" in out


# --- the installed command ---


def test_verify_holds_every_engine_to_the_offline_forward(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped checkpoint on ten of its held-out trials: both directions, beside behaviour, and in fewer bits."""
    demo = Path(__file__).parents[3] / "examples" / "ibl-dy016"
    one = session_file.load(demo / "session.npz")
    few = replace(one, segments=one.segments[-10:], segment_ids=one.segment_ids[-10:])
    session_file.save(few, tmp_path / "few.npz")

    assert call("verify", demo / "neds.safetensors", tmp_path / "few.npz", "--json") == 0

    found = msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])
    engines = found["engines"]
    assert found["failed"] == []
    assert set(engines) == {
        *(f"{name}-numba-cpu{bits}" for name in ("stream", "rates") for bits in ("", "-bfloat16", "-int8")),
        "stream-numba-cpu, half observed", "stream-torch-cpu", "linear-numba-cpu",
        "stream-numba-cpu + linear-numba-cpu", "stream-numba-cpu + linear-numba-cpu, recommended",
    }  # fmt: skip
    for row in engines.values():
        assert 0.0 <= row["max_abs"] <= row["bound"]
        assert 0.0 < row["p50_ms"] <= row["p99_ms"]
    for name in ("stream", "rates"):
        assert engines[f"{name}-numba-cpu-int8"]["max_abs"] > engines[f"{name}-numba-cpu"]["max_abs"]
    for bits in ("bfloat16", "int8"):
        changes = engines[f"stream-numba-cpu-{bits}"]["r2_minus_float32"]
        assert set(changes) == {"wheel_speed", "whisker_motion_energy"}
        assert all(0.0 < abs(change) <= 0.002 for change in changes.values())


def test_verify_fails_where_fewer_bits_cost_skill(
    call: Callable[..., int], fails: Fails, rig_home: Path, session: Session, unbroken: Session, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Random weights decode nothing, so rounding them changes R2 by more than it may, near or far as values stay."""
    few = replace(session, segments=session.segments[:15], segment_ids=session.segment_ids[:15])
    session_file.save(few, tmp_path / "few.npz")
    for precision in ("bfloat16", "int8"):
        monkeypatch.setitem(verifying.BOUNDS, precision, 1.0)

    assert call("verify", rig_home / "tiny.safetensors", tmp_path / "few.npz", "--json") == 3

    found = msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])
    assert found["failed"] == ["stream-numba-cpu-bfloat16", "stream-numba-cpu-int8"]
    assert all(row["max_abs"] <= row["bound"] for row in found["engines"].values())

    session_file.save(unbroken, tmp_path / "other.npz")
    assert "was trained on other units" in fails("verify", rig_home / "tiny.safetensors", tmp_path / "other.npz")


def test_the_version(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"neds-rt {metadata.version('neds-rt')}\n"


def test_numba_switched_off_is_one_sentence(rig_home: Path) -> None:
    """In a process of its own: it is read when Numba is imported."""
    command = [
        Path(sys.executable).with_name("neds-rt"),
        "verify",
        rig_home / "tiny.safetensors",
        rig_home / "session.npz",
    ]
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("neds-rt: Numba is switched off (NUMBA_DISABLE_JIT")
    assert len(done.stderr.splitlines()) == 1


def test_the_installed_command_ends_with_2_and_one_sentence(tmp_path: Path) -> None:
    """As a user sees it: no stack, no text on stdout."""
    command = [Path(sys.executable).with_name("neds-rt"), "run", tmp_path / "gone.toml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == f"neds-rt: {tmp_path / 'gone.toml'}: cannot be read (No such file or directory); check the path\n"
    )
