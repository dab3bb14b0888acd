"""Many processes, and interrupts: the same training as one process that runs through."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from neds_core import toml
from neds_core.config import PretrainConfig
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import CheckpointError
from neds_core.model.model import NEDS
from neds_core.train import loop, many
from neds_core.train.distributed import World
from neds_core.train.log import Lines, Progress
from neds_core.train.loop import Fit, Plan
from neds_core.train.sources import Source
from neds_core.train.state import Resume

SESSIONS = 3


class StoppedError(Exception):
    """The machine went away."""


def same_bits(a: NEDS, b: NEDS) -> bool:
    """Whether two models hold the same tensors."""
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.fixture(scope="module")
def folder(
    recordings: tuple[Session, ...], recipe: PretrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Writes a configuration with other values of [fit] and [model] into a folder with the three recordings."""
    root = tmp_path_factory.mktemp("many")
    for n, one in enumerate(recordings):
        session_file.save(one, root / f"{n}.npz")

    def write(name: str, fit: dict[str, float], model: dict[str, float] | None = None) -> Path:
        tree = {**msgspec.to_builtins(recipe)}
        tree["fit"] = {**tree["fit"], **fit}
        tree["model"] = {**tree["model"], **(model or {})}
        lines = [f"{k} = {json.dumps(v)}" for k, v in tree.items() if not isinstance(v, dict)]
        for table in ("model", "fit"):
            lines += [f"[{table}]", *(f"{k} = {json.dumps(v)}" for k, v in tree[table].items() if v != {})]
        path = root / f"{name}.toml"
        path.write_text("\n".join(lines))
        return path

    return write


def losses_of(path: Path) -> list[float]:
    """Losses in a `.jsonl` log."""
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(folder: Callable[..., Path]) -> None:
    """`torchrun` with gloo, without dropout; the second process's slice holds other sessions than the first's."""
    config = folder("two", {"steps": 50, "batch": 14}, {"dropout": 0.0, "embed_dropout": 0.0})
    one, two = config.with_name("one.safetensors"), config.with_name("two.safetensors")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    done = subprocess.run(
        [*torchrun, "-m", "neds_core.train", config, "--out", two], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    pretrain(config, one)

    ours, theirs = losses_of(one.with_suffix(".jsonl")), losses_of(two.with_suffix(".jsonl"))
    # 1e-4: float32 sums in another order, fed back through 50 steps; 1e-6 is usual
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)
    assert len(ours) == 50
    assert np.ptp(ours) > 0.1


@pytest.mark.slow
def test_a_terminated_training_goes_on_as_if_it_had_run_through(folder: Callable[..., Path]) -> None:
    """kill -TERM in the middle saves and exits with 0; the same command then gives the same bits, with dropout."""
    config = folder("killed", {"steps": 30, "check_every": 3})
    killed, whole = config.with_name("killed.safetensors"), config.with_name("whole.safetensors")
    command = [sys.executable, "-m", "neds_core.train", config, "--out", killed]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "NEDS, stopped on validation\n"
        assert process.stdout.readline().startswith("step 3/30")
        process.send_signal(signal.SIGTERM)
        said = process.stdout.read()
    assert process.returncode == 0
    assert "the same command goes on" in said
    assert killed.with_suffix(".state").exists()
    assert not killed.exists()
    resumed, through = pretrain(config, killed), pretrain(config, whole)

    assert 0 < len(resumed.history) < 30
    assert resumed.history == through.history[-len(resumed.history) :]
    assert losses_of(killed.with_suffix(".jsonl")) == losses_of(whole.with_suffix(".jsonl"))
    assert same_bits(many.load(killed).model, many.load(whole).model)
    assert not killed.with_suffix(".state").exists()


HARD_STOP = """
import os, sys
from pathlib import Path
from neds_core import toml
from neds_core.config import PretrainConfig
from neds_core.train import many, state
from neds_core.train.loop import Plan
from neds_core.train.log import Lines

save = state.save

def save_for_the_last_time(*given):
    save(*given)
    os._exit(9)

state.save = save_for_the_last_time
config = Path(sys.argv[1])
many.run(toml.load(config, PretrainConfig), config.parent, Path(sys.argv[2]), Lines())
"""


def pretrain(config: Path, out: Path) -> Fit:
    """Train what a file says of many recordings."""
    return many.run(toml.load(config, PretrainConfig), config.parent, out, Lines())


def test_a_hard_stop_loses_no_line_of_the_log(folder: Callable[..., Path]) -> None:
    """Gone right after a state was saved, between two checks: the log of the rest joins on, also after a cut line."""
    config = folder("hard", {"steps": 10, "save_every": 4, "check_every": 100})
    out = config.with_name("hard.safetensors")

    done = subprocess.run([sys.executable, "-c", HARD_STOP, config, out], timeout=120)
    assert done.returncode == 9
    with out.with_suffix(".jsonl").open("a") as log:
        log.write('{"step": 5, "lo')
    pretrain(config, out)

    steps = [json.loads(line)["step"] for line in out.with_suffix(".jsonl").read_text().splitlines()]
    assert steps == list(range(1, 11))


def test_a_crash_loses_no_more_than_the_steps_since_the_last_state(
    recipe: PretrainConfig, sources: tuple[Source, ...], tmp_path: Path
) -> None:
    """Stopped without warning at step 13, it goes on at 9; the best weights and the patience so far come back too."""

    def stop(progress: Progress) -> None:
        if progress.step == 13:
            raise StoppedError

    resume = Resume(tmp_path / "a.state")
    with pytest.raises(StoppedError):
        loop.fit(Plan(recipe, sources, 1, resume=resume), stop)
    resumed = loop.fit(Plan(recipe, sources, 1, resume=resume))
    through = loop.fit(Plan(recipe, sources, 1))

    assert [p.step for p in resumed.history] == list(range(9, 21))
    assert resumed.history == through.history[8:]
    assert (resumed.best_step, resumed.best_skill) == (through.best_step, through.best_skill)
    assert same_bits(resumed.model, through.model)


def recounted(source: Source) -> Source:
    """The same units with one spike more."""
    counts = source.train.counts.copy()
    counts[3, 2] += 1
    return replace(source, train=replace(source.train, counts=counts))


def relabelled(source: Source) -> Source:
    """One bin of the wheel is other."""
    wheel = source.train.values["wheel_speed"].copy()
    wheel[3] += 1
    return replace(source, train=replace(source.train, values=source.train.values | {"wheel_speed": wheel}))


def shortened(source: Source) -> Source:
    """One trial of validation less."""
    assert source.validation is not None
    return replace(source, validation=replace(source.validation, segments=source.validation.segments[1:]))


def test_a_state_of_another_training_is_refused(
    recipe: PretrainConfig, sources: tuple[Source, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another seed, learning rate, recording or version, a damaged file, and a file that would run code."""
    resume = Resume(tmp_path / "a.state", lambda: True)
    assert loop.fit(Plan(recipe, sources, 1, resume=resume)).interrupted
    other = msgspec.structs.replace(recipe, fit=msgspec.structs.replace(recipe.fit, learning_rate=2e-2))

    with pytest.raises(CheckpointError, match="another training"):
        loop.fit(Plan(recipe, sources, 2, resume=resume))
    with pytest.raises(CheckpointError, match="another training"):
        loop.fit(Plan(other, sources, 1, resume=resume))
    with monkeypatch.context() as later:
        later.setattr("neds_core.checkpoint.checkpoint.version", lambda _: "9.0")
        with pytest.raises(CheckpointError, match="another training"):
            loop.fit(Plan(recipe, sources, 1, resume=resume))
    for redone in (recounted(sources[0]), relabelled(sources[0]), shortened(sources[0])):
        with pytest.raises(CheckpointError, match="another training"):
            loop.fit(Plan(recipe, (redone, *sources[1:]), 1, resume=resume))
    torch.save({"format": 1, "identity": "", "learner": StoppedError()}, resume.path)
    with pytest.raises(CheckpointError, match="not a training state"):
        loop.fit(Plan(recipe, sources, 1, resume=resume))
    resume.path.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="not a training state"):
        loop.fit(Plan(recipe, sources, 1, resume=resume))


ON_TWO_MACHINES = """
import sys
from pathlib import Path
from torch import distributed as dist
from neds_core import config, toml
from neds_core.train import distributed, many, loop, state
from neds_core.errors import CheckpointError

path, seed = Path(sys.argv[1]), int(sys.argv[2])
with distributed.world("cpu") as world:
    settings = toml.load(path, config.PretrainConfig)
    sources = many.read_sources(settings, path.parent, world)
    resume = state.Resume(path.parent / f"of-rank-{world.rank}.state")
    try:
        found = loop.Training(loop.Plan(settings, sources, seed, world=world, resume=resume)).run(None)
    except CheckpointError as error:
        said = "refused" if "another training" in str(error) else str(error)
    else:
        weights = sum(float(p.double().sum()) for p in found.model.parameters())
        said = f"{[p.step for p in found.history]} {weights}"
    path.with_name(f"said-{seed}-{world.rank}").write_text(said)  # two processes on one stdout mix their lines
"""


@pytest.mark.slow
def test_processes_with_folders_of_their_own_go_on_together(folder: Callable[..., Path]) -> None:
    """Only the first has a state, of step 4: both go on at 5, or both are refused; the second used to begin at 1."""
    config = folder("apart", {"steps": 8, "save_every": 4, "check_every": 4, "batch": 14})
    settings = toml.load(config, PretrainConfig)
    found = many.read_sources(settings, config.parent, World())

    def stop(progress: Progress) -> None:
        if progress.step == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        loop.fit(Plan(settings, found, 5, resume=Resume(config.parent / "of-rank-0.state")), stop)
    script = config.with_name("on_two_machines.py")
    script.write_text(ON_TWO_MACHINES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    said = []
    for seed in ("5", "6"):
        done = subprocess.run([*torchrun, script, config, seed], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said.append([config.with_name(f"said-{seed}-{rank}").read_text() for rank in (0, 1)])

    (first, second), refused = said
    assert first == second
    assert first.startswith("[5, 6, 7, 8]")
    assert refused == ["refused"] * 2


def test_one_process_of_none_sums_to_itself() -> None:
    """Without `torchrun` nothing is sent."""
    assert World().sum([1.0, 2.5]) == [1.0, 2.5]
