"""One command for one recording or many: stopped at any moment it goes on as if it had run through."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neds_core import checkpoint as checkpoints, toml
from neds_core.checkpoint import Checkpoint
from neds_core.config import TrainConfig
from neds_core.data.session import Session
from neds_core.errors import CheckpointError, ConfigError
from neds_core.train import command, single
from neds_core.train.log import Lines, Silent
from neds_core.train.single import Job
from neds_core.train.state import Resume


@pytest.fixture
def config(prepared: Callable[..., Path]) -> Path:
    """A short training of one recording, with dropout."""
    return prepared(steps=24)


def same(a: Checkpoint, b: Checkpoint) -> bool:
    """Whether two checkpoints decode alike to the bit, linear decoders and all."""
    ours, theirs = a.model.state_dict(), b.model.state_dict()
    linear = all(np.array_equal(one.weight, b.linear[name].weight) for name, one in a.linear.items())
    return linear and a.header.blend == b.header.blend and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_terminated_training_of_one_recording_goes_on(config: Path) -> None:
    """kill -TERM in the middle says how to go on; two seeds by the same command then have the bits of a whole run."""
    killed, whole = config.with_name("killed.safetensors"), config.with_name("whole.safetensors")
    seeds = ["--seed", "0", "--seed", "1"]
    argv = [sys.executable, "-m", "neds_core.train", config, "--out", killed, *seeds]

    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith("step 6/24"):
            assert line
        process.send_signal(signal.SIGTERM)
        said = process.stdout.read()
    assert process.returncode == 0
    assert "the same command goes on from" in said
    assert config.with_name("killed-seed0.state").exists()

    command.run(config, killed, [0, 1], Lines())
    command.run(config, whole, [0, 1], Lines())

    for seed in ("seed0", "seed1"):
        ours, theirs = (
            checkpoints.load(config.with_name(f"{name}-{seed}.safetensors")) for name in ("killed", "whole")
        )
        assert same(ours, theirs)
        assert not ours.header.record.interrupted
    assert list(config.parent.glob("*.state")) == []


def test_one_stopped_in_its_refit_goes_on_there(config: Path, heard: Any) -> None:
    """The first training is not repeated: its state says that it is over."""
    settings, recording = toml.load(config, TrainConfig), config.with_name("session.npz")
    resume = Resume(config.with_name("a.state"), lambda: heard.stages[-1].startswith("NEDS again"))

    _, fit, _ = single.release(Job(settings, recording, 3, "a", resume=resume), heard)
    assert fit.interrupted

    made, fit, _ = single.release(Job(settings, recording, 3, "a", resume=Resume(resume.path)))
    through, _, _ = single.release(Job(settings, recording, 3, "a"))

    assert fit.history == []
    assert not fit.interrupted
    assert same(made, through)


def test_a_checkpoint_says_how_long_its_units_were_silent(prepared: Callable[..., Path], session: Session) -> None:
    """In its training part: a silence of the validation part is longer, and does not count."""
    counts = session.counts.copy()
    counts[104:111, :11] = 0
    counts[43 * 25 : 43 * 25 + 20] = 0
    config = prepared(replace(session, counts=counts))

    command.run(config, None, [], Silent())

    assert checkpoints.load(config.with_suffix(".safetensors")).header.longest_silence_bins == 7


def test_states_of_other_trainings_are_refused_before_anything_is_trained(config: Path, listener: Any) -> None:
    """That of the second seed, and that of a refit, before the linear decoders of the first; the states stay."""
    settings, recording = toml.load(config, TrainConfig), config.with_name("session.npz")
    out = config.with_name("a.safetensors")
    state, asked, heard = config.with_name("a-seed1.state"), listener(), listener()
    _, fit, _ = single.release(
        Job(settings, recording, 1, "a", resume=Resume(state, lambda: asked.stages[-1].startswith("NEDS again"))), asked
    )
    refit = state.with_name("a-seed1.refit.state")
    assert fit.interrupted
    assert refit.exists()
    good = state.read_bytes()

    for of, other in ((refit, good), (state, refit.read_bytes()), (state, b"PK")):
        kept = of.read_bytes()
        of.write_bytes(other)
        with pytest.raises(CheckpointError, match=rf"{of.name} is (the state of another|not a training state)"):
            command.run(config, out, [0, 1], heard)
        assert of.read_bytes() == other
        of.write_bytes(kept)
    assert heard.stages == []
    assert not out.with_name("a-seed0.jsonl").exists()

    command.run(config, out.with_name("a-seed1.safetensors"), [1], heard)
    assert "NEDS again on training + validation, for as many steps" in heard.stages


def test_what_is_done_is_not_done_again(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command leaves the file as it is; another configuration trains anew."""
    out = config.with_suffix(".safetensors")
    command.run(config, None, [], Lines())
    before = out.stat().st_mtime_ns

    command.run(config, None, [], Lines())

    assert "done before from the same" in capsys.readouterr().out
    assert out.stat().st_mtime_ns == before
    config.write_text(config.read_text().replace("steps = 24", "steps = 6"))
    command.run(config, None, [], Lines())
    assert out.stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("text", "seeds", "why"),
    [
        ('recording = "a.npz"\nrecordings = ["b.npz"]\n', [], "either recording"),
        ('outputs = ["wheel_speed"]\n', [], "either recording"),
        ('recordings = ["b.npz"]\noutputs = ["wheel_speed"]\n', [1], "--seed is for one recording"),
        ('recordings = ["b.npz"]\n', [1], "outputs: required key is missing"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path: Path, text: str, seeds: list[int], why: str) -> None:
    """In one sentence."""
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=why):
        command.run(path, None, seeds, Lines())
