"""The gate's word on each output, and the file that carries it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, strategies as st

from calibration import command, judge as judges
from calibration.fitting import fit as fits
from calibration.fitting.fit import Fitted, Task
from calibration.judge import CONSTANT, MOST, Case, offer
from neds_core import checkpoint
from neds_core.checkpoint.judged import Gate
from neds_core.data import parts as cutting
from neds_core.data.parts import Parts
from neds_core.data.session import Session
from neds_core.scores import bootstrap, r2 as scores
from runtime.engines import create


def case(neds: float, ridge: float, trials: int = 40, seed: int = 0, noise: float = 0.02) -> Case:
    """A trace by two decoders of a true R2, whose errors are their own."""
    rng = np.random.default_rng(seed)
    y, group = rng.normal(size=trials * 20), np.repeat(np.arange(trials), 20)
    said = {CONSTANT: np.zeros_like(y)}
    for name, skill in (("neds", neds), ("ridge", ridge)):
        said[name] = skill * y + np.sqrt(skill * (1 - skill) + noise) * rng.normal(size=len(y))
    said["blend"] = said["neds"]
    return Case("R2", {k: scores.r2_sums(y, v, group) for k, v in said.items()}, scores.r2_of_sums)


@pytest.mark.parametrize(
    ("neds", "ridge", "word", "decoder"),
    [
        (0.6, 0.4, "PASS", "neds"),
        (0.4, 0.6, "RIDGE", "ridge"),
        (0.0, 0.4, "RIDGE", "ridge"),
        (0.4, 0.0, "PASS", "neds"),
        (0.0, 0.0, "REFUSE", "ridge"),
    ],
)
def test_the_better_decoder_is_offered(neds: float, ridge: float, word: str, decoder: str) -> None:
    found = offer(case(neds, ridge), "neds", "ridge")

    assert (found.word, found.decoder, found.n) == (word, decoder, 40)
    assert set(found.scores) == {"neds", "ridge", "blend", CONSTANT}
    assert found.gain is not None
    assert found.gain.value == pytest.approx(found.scores["neds"].value - found.scores["ridge"].value)


@given(seed=st.integers(0, 500), neds=st.sampled_from([0.0, 0.03, 0.1]), trials=st.integers(5, 12))
def test_the_word_follows_from_the_intervals(seed: int, neds: float, trials: int) -> None:
    """The rule, restated; `n_more` by its formula: the interval shrinks with the square root of the segments."""
    made = case(neds, neds, trials, seed, noise=0.05)
    found = offer(made, "blend", "ridge")

    sums, of = made.sums, made.statistic
    over = {k: bootstrap.paired([sums[k]], sums[CONSTANT], of) for k in ("blend", "ridge")}
    gain = bootstrap.paired([sums["blend"]], sums["ridge"], of, level=90.0)
    wide = bootstrap.paired([sums["blend"]], sums["ridge"], of)
    assert gain.low >= wide.low
    passes = over["blend"].low > 0 and gain.low > -0.02
    assert (found.word == "PASS") == passes
    assert (found.word == "RIDGE") == (not passes and over["ridge"].low > 0)
    if found.word in ("NEED", "REFUSE"):

        def needed(value: float, low: float) -> float:
            return trials * max(1.0, ((value - low) / value) ** 2) if value > 0 else np.inf

        ridge = needed(over["ridge"].value, over["ridge"].low)
        neds_needs = max(needed(over["blend"].value, over["blend"].low), needed(gain.value + 0.02, gain.low + 0.02))
        n = min(ridge, neds_needs)
        assert (found.word == "NEED") == (n <= MOST * trials)
        assert found.n_more == (max(1, int(np.ceil((n - trials) / 0.2))) if found.word == "NEED" else 0)


def test_the_coordinates_of_a_point_are_offered_together(first_day: Fitted, cut: Parts) -> None:
    """One decoder for both, by the mean of their scores; each keeps its own scores."""
    one, two = case(0.6, 0.3), case(0.3, 0.4)

    found = offer(judges.together([one, two]), "neds", "ridge")

    assert found.scores["neds"].value == pytest.approx(
        np.mean([float(c.statistic(c.sums["neds"].sum(0))) for c in (one, two)])
    )
    assert found.word == "PASS"
    assert offer(two, "neds", "ridge").word == "RIDGE"


@pytest.fixture(scope="module")
def judged(first_day: Fitted) -> judges.Judgement:
    """The planted session, which has a real relation."""
    return command.judge(first_day)


def test_a_session_with_signal_passes(judged: judges.Judgement) -> None:
    assert set(judged.offers) == {"wheel_speed", "choice"}
    assert {found.word for found in judged.offers.values()} <= {"PASS", "RIDGE"}
    assert judged.offers["choice"].measure == "balanced accuracy"
    assert judged.offers["choice"].n == int((judged.said.target["choice"] >= 0).sum())
    assert 0.0 <= judged.reliability["choice"].error <= 1.0


def test_what_is_offered_is_what_a_run_publishes(judged: judges.Judgement) -> None:
    """Each output by its offer's decoder, through the engine contract."""
    for name, found in judged.offers.items():
        assert judged.made.header.verdicts[name].recommended == found.decoder
    assert len(judged.made.header.verdicts["wheel_speed"].spread) == 3
    share = create.shares(judged.made, "recommended")
    assert share.shape[0] == 1
    assert create.create(judged.made, "recommended").layout.n_values == 3


@pytest.mark.parametrize("seed", range(2))
def test_shuffled_labels_are_not_offered(session: Session, make_task: Callable[..., Task], seed: int) -> None:
    """Labels of other trials: no decoder is above the constant, whatever was fitted."""
    order = np.random.default_rng(seed).permutation(60)
    values = {name: v.reshape(60, 25)[order].ravel() for name, v in session.values.items()}
    task = make_task(cutting.cut(replace(session, values=values)))

    found = command.judge(fits.fit(task))

    assert not {"PASS", "RIDGE"} & {one.word for one in found.offers.values()}
    assert not command.gated(found, task).header.gate.passed  # pyright: ignore[reportOptionalMemberAccess]


def test_inferred_labels_are_not_judged_and_refuse_nothing(judged: judges.Judgement, cut: Parts) -> None:
    header = judged.made.header
    specs = (header.specs[0], msgspec.structs.replace(header.specs[1], labels="inferred"))
    made = replace(judged.made, header=msgspec.structs.replace(header, specs=specs))
    made.model.specs = specs

    found = judges.judge(made, cut.judge, {})

    assert set(found.offers) == {"wheel_speed"}
    assert found.made.header.verdicts["choice"] == header.verdicts["choice"]


def data(path: Path) -> bytes:
    """All tensors of a safetensors file, byte by byte, and their names and places."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = msgspec.json.decode(raw[8 : 8 + size])
    header.pop("__metadata__")
    return msgspec.json.encode(header) + raw[8 + size :]


def test_the_file_that_was_judged_is_the_one_that_is_written(
    first_day: Fitted, judged: judges.Judgement, make_task: Callable[..., Task], tmp_path: Path
) -> None:
    """Byte by byte, but for the gate and what it recommends; so is all else of the header."""
    candidate, final = tmp_path / "candidate.safetensors", tmp_path / "final.safetensors"
    checkpoint.save(first_day.made, candidate)
    checkpoint.save(command.gated(judged, make_task()), final)

    assert data(candidate) == data(final)
    before, after = (checkpoint.load(p).header for p in (candidate, final))
    assert before.gate is None
    assert msgspec.structs.replace(after, gate=None, verdicts=before.verdicts) == before


def test_the_gate_says_where_it_comes_from(judged: judges.Judgement, make_task: Callable[..., Task]) -> None:
    """The session, the units and the chain of parents."""
    task = make_task()
    parent = replace(task, base=replace(task.base, parents=("b" * 64, "a" * 64)))

    gate = command.gated(judged, parent).header.gate

    assert isinstance(gate, Gate)
    assert (gate.session, gate.session_sha) == ("planted", "5" * 64)
    assert gate.unit_map_sha == judged.made.header.unit_map_sha
    assert gate.parents == ("b" * 64, "a" * 64)
    assert gate.passed
    assert not gate.forced
