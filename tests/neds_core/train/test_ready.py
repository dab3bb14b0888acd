"""What cannot be judged, written or overwritten is refused before anything is trained; what is chosen is said."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from neds_core import checkpoint as checkpoints
from neds_core.config import MaskConfig, TrainConfig
from neds_core.data import scalers, session as sessions, session_file
from neds_core.data.session import Session
from neds_core.errors import ConfigError, DataError, NedsError
from neds_core.scores import judging
from neds_core.train import command, loop, ready, single
from neds_core.train.distributed import StopError, stop_on_signal
from neds_core.train.log import Silent
from neds_core.train.single import Job
from neds_core.train.sources import Source
from neds_core.train.state import Resume

Prepared = Callable[..., Path]
TRAINING, VALIDATION = slice(0, 42), slice(42, 48)  # of the planted session's trials


def edited(session: Session, name: str, edit: Callable[[np.ndarray, np.ndarray], object]) -> Session:
    """The session after `edit` of an output's values, trials x bins, and of these trials' labels alike."""
    values = session.values[name].copy()
    edit(values.reshape(60, 25), session.segments)
    return replace(session, values=session.values | {name: values})


def still(part: slice) -> Callable[[np.ndarray, np.ndarray], object]:
    """The animal does not move in a part."""
    return lambda wheel, _: wheel.__setitem__(part, 0.087)


def one_class(part: slice) -> Callable[[np.ndarray, np.ndarray], object]:
    """All trials of a part are alike."""
    return lambda choice, _: choice.__setitem__(part, 1)


def unknown_at_the_end(part: slice) -> Callable[[np.ndarray, np.ndarray], object]:
    """Known until the answer."""
    return lambda choice, _: choice[part].__setitem__((slice(None), slice(-5, None)), -1)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (
            "wheel_speed",
            still(TRAINING),
            r"wheel_speed does not vary in the training part \(0\.087 throughout\); leave",
        ),
        ("wheel_speed", still(VALIDATION), "wheel_speed does not vary in the validation part"),
        (
            "choice",
            one_class(TRAINING),
            "choice is 'right' in each of the 42 labelled trials of the training part; leave",
        ),
        ("choice", one_class(VALIDATION), "choice is 'right' in each of the 6 labelled trials of the validation part"),
        ("choice", unknown_at_the_end(slice(None)), "choice is not known at the last bin of any trial of the training"),
        ("choice", unknown_at_the_end(VALIDATION), "not known at the last bin of any trial of the validation part, wh"),
    ],
)
def test_an_output_that_cannot_be_judged_is_refused_at_once(
    prepared: Prepared,
    listener: Any,
    session: Session,
    tmp_path: Path,
    name: str,
    edit: Callable[[np.ndarray, np.ndarray], object],
    message: str,
) -> None:
    """In one sentence, before the linear decoders, whatever the other outputs are."""
    path, heard = prepared(edited(session, name, edit)), listener()

    with pytest.raises(DataError, match=message) as error:
        command.run(path, None, [], heard)

    assert "\n" not in str(error.value)
    assert heard.stages == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["session.npz", "train.toml"]


def test_units_that_are_all_too_slow_are_refused(prepared: Prepared, listener: Any) -> None:
    """By the key that leaves them out."""
    path = prepared(more="min_rate_hz = 1000.0")
    with pytest.raises(DataError, match="no unit reaches min_rate_hz = 1000 in the training part; lower it"):
        command.run(path, None, [], listener())


def test_segments_longer_than_full_attention_are_refused_at_once(prepared: Prepared, listener: Any) -> None:
    path, heard = prepared(), listener()
    path.write_text(path.read_text().replace("band = 5", 'attention = "full"\nwindow_bins = 10'))
    with pytest.raises(ConfigError, match="a segment of 25 bins, longer than the window of full attention"):
        command.run(path, None, [], heard)
    assert heard.stages == []


def test_traces_that_are_never_known_together_are_refused(prepared: Prepared, listener: Any, session: Session) -> None:
    """The linear search takes their common bins."""
    wheel = session.values["wheel_speed"]
    even = np.arange(session.n_bins) % 2 == 0
    both = replace(
        session,
        specs=(session.specs[0], msgspec.structs.replace(session.specs[0], name="pupil_diameter")),
        values={"wheel_speed": np.where(even, wheel, np.nan), "pupil_diameter": np.where(even, np.nan, wheel)},
    )
    path = prepared(both, ("wheel_speed", "pupil_diameter"))
    with pytest.raises(DataError, match="no bin of the training part has wheel_speed, pupil_diameter known together"):
        command.run(path, None, [], listener())


@pytest.mark.parametrize("name", ["keys", "type", "forward", "training", "5", "cursor-vel x", "größe"])
def test_any_other_name_of_a_behaviour_can_be_trained(prepared: Prepared, session: Session, name: str) -> None:
    """Also one that torch has a method of; the checkpoint is read again."""
    spec = msgspec.structs.replace(session.specs[0], name=name)
    one = replace(session, specs=(spec,), values={name: session.values["wheel_speed"]})
    path = prepared(one, (name,))

    command.run(path, None, [], Silent())

    assert checkpoints.load(path.with_suffix(".safetensors")).specs == (spec,)


def test_what_is_chosen_and_what_came_of_it_is_said(
    prepared: Prepared, listener: Any, session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Units, bins, segments, spikes, ranges at the start; both decoders with intervals and what is next at the end."""
    t_ns = np.sort(np.random.default_rng(0).integers(0, 1500 * 20_000_000, 9000))
    unit = np.random.default_rng(1).integers(0, 11, 9002)
    one = replace(session, events=(np.r_[-1, t_ns, 1500 * 20_000_000], unit))
    path, heard = prepared(one), listener()

    command.run(path, None, [], heard)

    before = [
        "units: 11 of 12 kept, those of at least min_rate_hz = 0.05 in the training part",
        "bins: 1500 of 20 ms, 1496 of them valid and inside segments",
        "segments: training 42 (1050 bins), validation 6 (150 bins), test 12 (300 bins)",
        f"spikes: {(t_ns < 1200 * 20_000_000).sum()} in the training and validation parts; left out: 1 before its "
        "start, 1 after its end (30 s)",
    ]
    assert heard.lines[: len(before)] == before
    assert heard.lines[4].startswith("wheel_speed: ")
    assert heard.lines[4].endswith(" rad/s in the training part")
    assert heard.lines[5].startswith("choice: left ")
    after = heard.lines[-2:]
    for line, measure, ridge in zip(after, ("R2", "balanced accuracy"), ("ridge", "logistic"), strict=True):
        number, limits = r"-?\d\.\d{3}", r"\[-?\d\.\d{3}, -?\d\.\d{3}\]"
        each = ", ".join(f"{name} {number} {limits}" for name in ("NEDS", ridge, "blend"))
        assert re.fullmatch(rf"\w+: {measure} on validation {each}; recommended (NEDS|{ridge}|blend): .+", line)
    (done,) = capsys.readouterr().out.splitlines()
    assert "train.safetensors: done; " in done
    total = heard.ticks[-1][1]
    assert heard.ticks == [(n, total) for n in range(1, total + 1)]


def test_an_ensemble_is_judged_as_a_whole(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    """By what each of its networks said of the validation part, before they were trained on it too."""
    path = prepared(more="[ensemble]\nseeds = [0, 1]")

    command.run(path, None, [], Silent())
    made = checkpoints.load(path.with_suffix(".safetensors"))
    assert made.judged is not None
    assert made.judged.segment.tolist() == np.repeat(np.arange(6), 25).tolist()
    assert made.judged.neds["wheel_speed"].shape == (2, 150)
    assert made.judged.neds["choice"].shape == (2, 6, 2)
    assert set(made.header.verdicts) == {"wheel_speed", "choice"}
    printed = capsys.readouterr().out
    assert printed.splitlines()[-2:] == list(judging.lines(made.header.verdicts))
    assert "next:" not in printed  # nobody is sent to score one of its networks
    for m, seed in enumerate((0, 1)):
        alone = checkpoints.load(path.with_name(f"train-seed{seed}.safetensors"))
        assert alone.judged is not None
        for name, said in alone.judged.neds.items():
            np.testing.assert_array_equal(made.judged.neds[name][m : m + 1], said)
            np.testing.assert_array_equal(made.judged.linear[name], alone.judged.linear[name])


def test_pauses_need_two_segments(unbroken: Session, tiny: TrainConfig) -> None:
    """Of one unbroken segment no other can come before; many recordings ask the same."""
    config = msgspec.structs.replace(tiny, outputs=("wheel_speed",), masks=MaskConfig(pause=0.25))
    with pytest.raises(ConfigError, match=r"masks\.pause = 0\.25 needs two segments or more, .* 'unbroken' is one"):
        ready.check(config, sessions.split(unbroken))
    part = sessions.split(unbroken).train
    with pytest.raises(ConfigError, match=r"masks\.pause = 0\.25 needs two segments"):
        loop.checked_specs(config, (Source(part, None, scalers.fit(part, part.specs, 0.5)),))


def test_counts_that_may_be_clipped_are_said(
    prepared: Prepared, listener: Any, session: Session, tmp_path: Path
) -> None:
    """A rig counts on where uint8 ends; uint16 counts are not clipped, and are trained on as they are."""
    counts = session.counts.copy()
    counts[::100, 3] = 255
    heard = listener()
    command.run(prepared(replace(session, counts=counts)), None, [], heard)
    said = "counts: 12 before the test part are 255, the most that uint8 holds, and may be clipped"
    assert any(line.startswith(said) for line in heard.lines)

    heard, wide = listener(), counts.astype(np.uint16)
    wide[::100, 3] = 300
    path = prepared(replace(session, counts=wide))
    command.run(path, None, [], heard)
    assert not any(line.startswith("counts:") for line in heard.lines)
    assert session_file.load(tmp_path / "session.npz").counts.max() == 300


def test_a_stop_in_the_linear_search_writes_nothing(
    prepared: Prepared, listener: Any, session: Session, tmp_path: Path
) -> None:
    """It is asked between two fits, wherever they are."""
    path = prepared()
    config = msgspec.toml.decode(path.read_bytes(), type=TrainConfig)
    counted = listener()
    single.release(Job(config, tmp_path / "session.npz", 0, "a"), counted)

    for n in (1, len(counted.ticks) // 2, len(counted.ticks) - 1):
        heard = listener()
        resume = Resume(tmp_path / "a.state", lambda n=n, heard=heard: len(heard.ticks) >= n)
        with pytest.raises(StopError, match="stopped in the linear decoders; nothing is written"):
            single.release(Job(config, tmp_path / "session.npz", 0, "a", resume=resume), heard)
        assert len(heard.ticks) == n
    assert sorted(p.name for p in tmp_path.iterdir()) == ["session.npz", "train.toml"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_each_signal_stops_a_training(number: signal.Signals) -> None:
    """And what heard it before hears the next."""
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
    assert signal.getsignal(number) is before


def test_a_signal_ends_the_linear_search(prepared: Prepared, session: Session, tmp_path: Path) -> None:
    """The search is long; it ends by itself only after many minutes."""
    path = prepared()
    penalties = ", ".join(f"{n}.0" for n in range(1, 20_000))
    path.write_text(path.read_text().replace("penalties = [100.0]", f"penalties = [{penalties}]"))
    argv = [sys.executable, "-m", "neds_core.train", path]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith("linear decoders"):
            assert line
        process.send_signal(signal.SIGTERM)
        said = process.stdout.read()

    assert process.returncode == 0
    assert said.endswith("stopped in the linear decoders; nothing is written, and the same command begins again\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["session.npz", "train.toml"]


def test_a_training_that_diverges_is_refused(prepared: Prepared) -> None:
    """Instead of a checkpoint that nothing can load."""
    path = prepared()
    path.write_text(path.read_text().replace("[fit]", "[fit]\nlearning_rate = 1e30"))
    with pytest.raises(NedsError, match=r"never had a finite skill|lower fit\.learning_rate"):
        command.run(path, None, [], Silent())
    assert not path.with_suffix(".safetensors").exists()
