"""`neds-rt init`: a folder whose configurations load with every key, and whose sender a rig takes."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pylsl
import pytest
from hypothesis import given, strategies as st
from msgspec import inspect

from neds_core import checkpoint as checkpoints, toml
from neds_core.checkpoint import Checkpoint
from neds_core.config import TrainConfig
from neds_core.data import session_file
from neds_core.data.session import Session, UnitTable
from runtime import config as rigs
from runtime.cli.init import keys
from runtime.cli.init.main import files, first_day, of_session
from runtime.config import LslConfig, RigConfig
from runtime.io import unit_stream
from runtime.io.lsl_description import describe, unit_rows
from runtime.io.lsl_resolve import REPLAY_SESSION
from runtime.io.lsl_settings import PLACES, PORT_RANGE

ROOT = Path(__file__).parents[3]
WRITTEN = {"rig.toml", "train.toml", "units.tsv", "sender.py", "unit_stream.py", "README.md"}
KINDS = [("rig.toml", RigConfig, keys.RIG), ("train.toml", TrainConfig, keys.TRAIN)]
each_file = pytest.mark.parametrize(("name", "kind", "said"), KINDS, ids=["rig", "train"])


def below(struct: inspect.StructType, at: str = "") -> Iterator[str]:
    """Every key of a configuration, dotted."""
    for field in struct.fields:
        name, found = f"{at}{field.encode_name}", field.type
        if isinstance(found, inspect.StructType):
            yield from below(found, f"{name}.")
            continue
        yield name
        if isinstance(found, inspect.VarTupleType) and isinstance(found.item_type, inspect.StructType):
            yield from below(found.item_type, f"{name}.")


def set_in(tree: Any, at: str = "") -> Iterator[str]:
    """Every key that a TOML tree sets, dotted; tables too."""
    for key, value in tree.items():
        yield f"{at}{key}"
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield from set_in(one, f"{at}{key}.")


@pytest.fixture
def folder(call: Callable[..., int], session: Session, tmp_path: Path, stream_name: str) -> Path:
    """What the command makes of the planted session; its streams have names of their own."""
    session_file.save(session, tmp_path / "recorded.npz")
    assert call("init", tmp_path / stream_name, "--from", tmp_path / "recorded.npz") == 0
    assert {path.name for path in (tmp_path / stream_name).iterdir()} == WRITTEN
    return tmp_path / stream_name


@pytest.mark.parametrize("first_day", [False, True], ids=["recorded", "first day"])
def test_the_programs_of_the_readme_are_there(
    folder: Path, call: Callable[..., int], tmp_path: Path, first_day: bool
) -> None:
    """As they are written, from the folder itself."""
    if first_day:
        folder = tmp_path / "new"
        assert call("init", folder) == 0
    lines = (folder / "README.md").read_text().split("```")[1].strip().splitlines()
    assert len(lines) == 5
    for program in (shlex.split(line)[0] for line in lines):
        assert os.access(folder / program, os.X_OK) if os.sep in program else shutil.which(program)


@each_file
def test_every_key_is_there_with_what_it_is_for(
    name: str, kind: type[msgspec.Struct], said: dict[str, str], folder: Path
) -> None:
    """Those that are left unset too, once their # is gone; then the file loads as well."""
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    assert set(said) == set(below(described))

    text = (folder / name).read_text(encoding="utf-8")
    whole = re.sub(r"^# (?=\[\[|\w+ = )", "", text, flags=re.MULTILINE).replace("seeds = []", "seeds = [0, 1]")

    assert set(said) <= set(set_in(tomllib.loads(whole)))
    assert [each for each in said.values() if f"# {each}" not in text] == []
    toml.parse(whole, kind, name)


def test_the_files_are_filled_in_from_the_recording(folder: Path, session: Session) -> None:
    """Names, outputs, bins; and the recording is found from the folder."""
    rig, train = rigs.load(folder / "rig.toml"), toml.load(folder / "train.toml", TrainConfig)

    assert (rig.rig, rig.input.spikes, rig.input.markers) == (
        folder.name, f"{folder.name}-spikes", f"{folder.name}-markers"
    )  # fmt: skip
    assert Path(rig.score.recording).resolve() == folder.parent / "recorded.npz"
    assert train.outputs == ("wheel_speed", "choice")
    longest = int((session.segments[:, 1] - session.segments[:, 0]).max())
    assert (train.masks.decoding, train.fit.window_bins, train.model.band) == (3.0, longest, longest)
    assert train.model.filter_taus_ms == ()
    assert f'# wheel_speed = "{folder.name}-wheel_speed"' in (folder / "rig.toml").read_text()
    assert f"({session.name}, {len(session.units)} units, bins of 20 ms)" in (folder / "README.md").read_text()


def test_other_bins_have_other_limits(session: Session) -> None:
    """A budget of one bin, a validity of three, and an allowance below the budget."""
    slow, fast = (
        tomllib.loads(files(of_session("r", replace(session, bin_ns=ms * 10**6), Path("r.npz"), Path("r")))["rig.toml"])
        for ms in (45, 1)
    )
    assert (slow["bins"]["lateness_ms"], slow["output"]["budget_ms"], slow["output"]["valid_ms"]) == (5.0, 45.0, 135.0)
    assert (fast["bins"]["lateness_ms"], fast["output"]["budget_ms"], fast["output"]["valid_ms"]) == (0.5, 1.0, 3.0)


def test_an_output_that_cannot_be_judged_is_left_out_with_its_reason(session: Session) -> None:
    flat = session.values["wheel_speed"].copy()
    flat[session.segments[30, 0] :] = 1.0
    plan = of_session("r", replace(session, values=session.values | {"wheel_speed": flat}), Path("r.npz"), Path("r"))

    assert plan.outputs == ("choice",)
    assert "Left out of the outputs: " in files(plan)["README.md"]
    assert "wheel_speed does not vary in the validation part" in files(plan)["README.md"]


def test_a_recording_without_trials_has_no_markers(unbroken: Session) -> None:
    made = files(of_session("r", unbroken, Path("r.npz"), Path("r")))
    assert tomllib.loads(made["rig.toml"])["input"]["markers"] == ""
    assert 'SPIKES, MARKERS = "r-spikes", ""' in made["sender.py"]
    train = toml.parse(made["train.toml"], TrainConfig, "train.toml")
    assert train.model.filter_taus_ms == train.linear.filter_taus_ms[1]


def test_without_a_recording_there_are_examples(tmp_path: Path) -> None:
    """They load, and the README says what to replace."""
    for name, text in files(first_day("r")).items():
        (tmp_path / name).write_text(text)
    assert rigs.load(tmp_path / "rig.toml", rigs.FirstDay).rig == "r"
    assert toml.load(tmp_path / "train.toml", TrainConfig).recording == "day1/session.npz"
    assert len(unit_stream.read(tmp_path / "units.tsv")[0]) == 3
    assert "neds-rt collect rig.toml --out day1" in (tmp_path / "README.md").read_text()


def test_nothing_is_overwritten(fails: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "sender.py").write_text("mine\n")
    assert fails("init", tmp_path) == f"{tmp_path / 'sender.py'} is there already; name another folder"


@given(
    ids=st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=9, unique=True),
    region=st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=9),
    depth=st.floats(width=32, allow_infinity=False),
)
def test_the_helper_hashes_as_the_unit_table_does(ids: list[int], region: str, depth: float) -> None:
    n = len(ids)
    table = UnitTable(np.array(ids), np.full(n, region), np.full(n, depth, np.float32))
    assert unit_stream.unit_map_sha256(unit_rows(table)) == table.sha256


def test_the_helper_describes_as_the_player_does(session: Session, folder: Path) -> None:
    """The same XML, from the file that the command wrote."""
    units, rates_hz = unit_stream.read(folder / "units.tsv")
    ours, theirs = (pylsl.StreamInfo("s", "Spikes", 1, 0.0, pylsl.cf_int32, "s") for _ in range(2))
    describe(ours, session.units, "live", 100.0)
    unit_stream.describe(theirs, units, "live", 100.0)

    xml = [re.search(r"<desc>.*</desc>", each.as_xml(), re.DOTALL) for each in (ours, theirs)]
    assert xml[0] is not None
    assert xml[1] is not None
    assert xml[1][0] == xml[0][0]
    assert sum(rates_hz) == pytest.approx(session.counts[session.bins()].sum(1).mean() * 50.0, rel=1e-3)


def test_the_helper_knows_what_the_runtime_sets() -> None:
    """Where a lab's own settings lie, and how many ports liblsl is to look through."""
    assert unit_stream.LAB_FILES == PLACES
    assert f"[ports]\nPortRange = {PORT_RANGE}\n" == unit_stream.PORTS


def test_the_sender_needs_pylsl_alone(folder: Path) -> None:
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
        for name in ("sender.py", "unit_stream.py")
        for node in ast.walk(ast.parse((folder / name).read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert imported - set(sys.stdlib_module_names) == {"pylsl", "unit_stream"}
    assert f"SessionID = {REPLAY_SESSION}" in (folder / "sender.py").read_text()
    assert len((folder / "sender.py").read_text().splitlines()) < 50


LOOK = """
import sys
from runtime.io.lsl_resolve import configure, resolve
configure(sys.argv[1], "machine")
print(*(resolve(name, 20.0).name() for name in sys.argv[2:]))
"""


@contextmanager
def sending(folder: Path, **environment: str) -> Iterator[None]:
    """The folder's sender, in a process that has nothing of ours on its path."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | environment
    with subprocess.Popen([sys.executable, folder / "sender.py"], cwd=folder, env=env) as sender:
        try:
            yield
            assert sender.poll() is None, "the sender has ended by itself"
        finally:
            sender.kill()


@pytest.mark.parametrize(("source", "lsl"), [("synthetic", REPLAY_SESSION), ("live", LslConfig().session_id)])
def test_the_sender_is_found_beside_many_others(
    folder: Path, tmp_path: Path, make_outlet: Callable[..., pylsl.StreamOutlet], session: Session, source: str,
    lsl: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Both its streams, where 20 others hold liblsl's own range of ports; without a lab's lsl_api.cfg."""
    others = [make_outlet(f"{folder.name}-other-{k}", session.units) for k in range(20)]
    names = [f"{folder.name}-spikes", f"{folder.name}-markers"]
    script = (folder / "sender.py").read_text()
    (folder / "sender.py").write_text(script.replace('SOURCE = "synthetic"', f'SOURCE = "{source}"'))
    monkeypatch.delenv("LSLAPICFG", raising=False)
    with sending(folder, HOME=str(tmp_path)):
        words, env = [sys.executable, "-c", LOOK, lsl, *names], os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), len(others)) == (names, 20), done.stderr


@pytest.fixture
def trained(folder: Path, tiny_checkpoint: Checkpoint) -> Path:
    """The folder with a decoder; its ports are free ones, and a busy machine has time to find a sender."""
    checkpoints.save(tiny_checkpoint, folder / "neds.safetensors")
    text = (folder / "rig.toml").read_text()
    text = re.sub(r"_port = 557\d", "_port = 0", text).replace("wait_s = 10.0", "wait_s = 60.0")
    (folder / "rig.toml").write_text(text)
    return folder


def test_check_takes_the_sender(
    trained: Path, call: Callable[..., int], lsl_session: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a live one. Where 16 outlets of others hold liblsl's own range of ports, its streams could not be found."""
    (tmp_path / "lsl.cfg").write_text(f"[lab]\nSessionID = {lsl_session}\n[ports]\nPortRange = {PORT_RANGE}\n")
    script = (trained / "sender.py").read_text()
    (trained / "sender.py").write_text(script.replace('SOURCE = "synthetic"', 'SOURCE = "live"'))
    with sending(trained, LSLAPICFG=str(tmp_path / "lsl.cfg")):
        capsys.readouterr()
        code = call("check", trained / "rig.toml", "--seconds", "2", "--json")
    said = capsys.readouterr()
    assert said.out, said.err
    plan = msgspec.json.decode(said.out.splitlines()[-1])
    assert (code, plan["verdict"], plan["reasons"]) == (0, "GO", [])
    assert (plan["spikes"]["source"], plan["spikes"]["lost_upstream"]) == ("live", 0)
    assert plan["markers"]["bad"] == 0


@pytest.mark.slow
def test_the_commands_of_the_readme_decode_the_sender(trained: Path) -> None:
    """Check says GO and a run publishes values, from made-up spikes and their markers."""

    def ours(*words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "runtime.cli", *words, "--allow-replay", "--json"]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=trained, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return msgspec.json.decode(done.stdout.splitlines()[-1])

    with sending(trained):
        assert ours("check", "rig.toml")["verdict"] == "GO"
        found = ours("run", "rig.toml", "--seconds", "5")
    assert found["counters"]["tokens_published"] > 50
    assert found["counters"]["spikes_lost_upstream"] == 0
    assert ours("run", "rig.toml", "--play", "--seconds", "8")["outputs"]["wheel_speed"]["r2"] is not None
