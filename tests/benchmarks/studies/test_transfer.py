"""The transfer study on made-up mice: what is permuted, what is chosen by whom, what a test trial may reach."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.accuracy.mice import steinmetz, trunks
from benchmarks.accuracy.mice.steinmetz import Bundle
from benchmarks.studies import made_up, transfer, transfer_judge, transfer_table
from benchmarks.studies.made_up import MadeUp
from benchmarks.studies.transfer import CEILING, CONDITIONS, PLAIN, Job, Study
from benchmarks.studies.transfer_judge import Asked
from neds_core.data import ceiling, session as sessions, synthetic
from neds_core.errors import ConfigError, DataError
from neds_core.model import directions
from neds_core.scores import bootstrap, r2 as scores
from neds_core.train import many as pretrain, sources
from neds_core.train.windows import Windows
from runtime.cli import commands as cli
from tests.benchmarks.studies.tiny import TINY, TRIALS


def run(mice: list[Bundle], out: Path) -> list[transfer.Row]:
    """The tiny study, silent."""
    return transfer.run(mice, TINY, out, lambda _: None)


@pytest.fixture(scope="module")
def rows(mice: list[Bundle], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[transfer.Row], Path]:
    """All rows and their file."""
    out = tmp_path_factory.mktemp("transfer") / "rows.jsonl"
    return run(mice, out), out


def test_every_row_is_made_once_and_a_stopped_run_goes_on(
    rows: tuple[list[transfer.Row], Path], mice: list[Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a last line cut short, that row alone is computed again, on the trunks that lie there, to the same end."""
    found, out = rows
    assert len(found) == 3 * (2 * (len(CONDITIONS) + 1) + len(CONDITIONS))  # the second seed at the headline alone
    lines = out.read_text().splitlines(keepends=True)
    for path in out.parent.glob("*.safetensors"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "rows.jsonl").write_text("".join(lines[:-1]) + lines[-1][:40])
    asked: list[Job] = []
    whole = transfer.row

    def counted(study: Study, all_of: list[Bundle], job: Job, folder: Path) -> transfer.Row:
        asked.append(job)
        return whole(study, all_of, job, folder)

    monkeypatch.setattr(transfer, "row", counted)
    monkeypatch.setattr(trunks, "make", None)  # no trunk is trained again

    again = run(mice, tmp_path / "rows.jsonl")

    assert [job.key for job in asked] == [("synthetic-seed0-animal2-session0", 6, PLAIN, 0)]
    assert [one["snapshots"] for one in again] == [one["snapshots"] for one in found]


def spoiled(one: Bundle) -> Bundle:
    """Other spikes and labels in the last 20 %."""
    start = int(sessions.split(one.session).test.segments[0, 0])
    counts = one.session.counts.copy()
    counts[start:] = 7
    values = {name: value.copy() for name, value in one.session.values.items()}
    for value in values.values():
        value[start:] = np.where(value[start:] >= 0, 1 - value[start:], -1)
    return replace(one, session=replace(one.session, counts=counts, values=values))


def test_no_test_trial_reaches_a_training_or_a_choice(mice: list[Bundle], tmp_path: Path) -> None:
    """Spoil the last 20 % of every session: trunks and validation scores stay to the bit, test rows do not."""
    others = [spoiled(one) for one in mice]
    for condition in ("pretrained", "scratch", PLAIN):
        made = []
        for name, world in (("true", mice), ("spoiled", others)):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            made.append(transfer.row(TINY, world, Job(world[2], 10, condition, 0), folder))
        (true, false) = ([s["validation"] for s in one["snapshots"]] for one in made)
        assert true == false
        assert [s["test"] for s in made[0]["snapshots"]] != [s["test"] for s in made[1]["snapshots"]]
    ours, theirs = (pretrain.load(next((tmp_path / name).glob("*.safetensors"))) for name in ("true", "spoiled"))
    for key, value in ours.model.state_dict().items():
        assert (value == theirs.model.state_dict()[key]).all()


def test_a_mouse_does_not_choose_for_itself() -> None:
    """The snapshot of mouse a is the one that b and c like."""

    def row(mouse: str, first: float, second: float) -> transfer.Row:
        taken = [{"step": s, "validation": {"go": v}} for s, v in ((5, first), (9, second))]
        return {"mouse": mouse, "snapshots": taken}

    rows = [row("a", 1.0, 0.0), row("b", 0.4, 0.6), row("c", 0.4, 0.6)]

    assert transfer_table.chosen_step(rows, "a", "go") == 9
    assert transfer_table.chosen_step(rows, "b", "go") == 5


@pytest.fixture(scope="module")
def result(rows: tuple[list[transfer.Row], Path]) -> dict[str, Any]:
    """The tables of all rows, as they come out of JSON; few resamples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "RULES", bootstrap.Resampling(times=100))
        return json.loads(msgspec.json.encode(transfer_table.table(rows[0], TINY)))


def test_the_tables_hold_every_condition(result: dict[str, Any], mice: list[Bundle]) -> None:
    """Scores, differences from all controls, a verdict for every target, and as many sessions as there are."""
    assert len(result["scores"]) == 2 * 3 * (len(CONDITIONS) + 1)
    assert len(result["pretrained_minus"]) == 2 * 3 * 4
    assert result["sessions_gained"]["of"] == len(mice)
    by_hand = {
        one["session"]: one["pretrained"] - one["scratch"]
        for one in result["sessions"]
        if (one["trials"], one["target"]) == (10, "go")
    }
    assert result["sessions_gained"]["go"] == sum(gain >= 0.05 for gain in by_hand.values())
    gap = next(
        g for g in result["pretrained_minus"] if (g["trials"], g["target"], g["control"]) == (10, "go", "scratch")
    )
    assert gap["value"] == pytest.approx(np.mean(list(by_hand.values())))
    assert gap["low"] <= gap["value"] <= gap["high"]
    assert len(transfer_table.lines(result)) > 20


def test_help_needs_all_three_controls(result: dict[str, Any]) -> None:
    """The verdict is of intervals above 0 against scratch, the random and the shuffled trunk."""
    for verdict in result["verdicts"]:
        lows = [
            gap["low"]
            for gap in result["pretrained_minus"]
            if (gap["trials"], gap["target"]) == (verdict["trials"], verdict["target"])
            and gap["control"] in transfer.CONTROLS
        ]
        assert len(lows) == 3
        assert verdict["pretraining_helps"] == all(low > 0 for low in lows)


def test_rates_of_a_kind_of_trial_are_those_of_each_trial(mice: list[Bundle]) -> None:
    """Computed once for each kind of trial, they equal the rates trial by trial."""
    found = transfer_judge.case(mice[0].session, Asked(), 10, 0.5)
    config = transfer.recipe(TINY, "scratch", 10)
    model = sources.build(config, (found.source,), 0)
    part = found.test.part
    each = directions.encode(
        model, Windows(part, model.specs, found.source.scale), directions.spans_of(part), steinmetz.OUTPUTS
    )

    np.testing.assert_allclose(found.test._rates(model), each, rtol=1e-5)  # sums of another batch shape


@pytest.fixture(scope="module")
def animals() -> list[Bundle]:
    """Three made-up animals with traces and a choice."""
    world = synthetic.World(
        animals=3, sessions=1, trials=TRIALS, trial_bins=12, regions=("ca1", "vis"), units_per_region=8, rate_hz=30.0,
        tuning=0.8, drift=0.0,
    )  # fmt: skip
    return made_up.bundles(world, transfer.study(False, True).asked.outputs)


def test_the_ceiling_is_above_all_that_has_to_learn(animals: list[Bundle], tmp_path: Path) -> None:
    """On the same test trials as the others: traces, choice and rates, by whoever knows how they were made."""
    study = msgspec.structs.replace(TINY, **transfer.MADE_UP)
    found = {
        name: [
            transfer.row(study, animals, Job(one, 10, name, 0), tmp_path)["snapshots"][-1]["test"] for one in animals
        ]
        for name in (CEILING, PLAIN, "pretrained")
    }

    for target, statistic in study.asked.statistics.items():
        sums = {name: np.concatenate([rows[target] for rows in of]) for name, of in found.items()}
        score = {name: float(statistic(rows.sum(0))) for name, rows in sums.items()}
        assert score[CEILING] > max(score[PLAIN], score["pretrained"]), target
        assert len({len(rows) for rows in sums.values()}) == 1
    assert isinstance(animals[0], MadeUp)
    by_hand = ceiling.decode(animals[0].recording).traces["wheel_velocity"].reshape(TRIALS, -1)[-8:]
    measured = animals[0].session.values["wheel_velocity"].reshape(TRIALS, -1)[-8:]
    r2 = scores.r2(measured.ravel().astype(float), by_hand.ravel())
    assert float(scores.r2_of_sums(np.array(found[CEILING][0]["wheel_velocity"]).sum(0))) == pytest.approx(r2, abs=1e-3)


def test_true_rates_are_those_that_counts_were_drawn_from(animals: list[Bundle]) -> None:
    """Over all bins and units, counts scatter about them as Poisson does."""
    assert isinstance(animals[1], MadeUp)
    rates, counts = ceiling.true_rates(animals[1].recording), animals[1].session.counts.astype(float)

    pearson = (counts - rates) / np.sqrt(rates)

    assert abs(pearson.mean()) < 5 / np.sqrt(pearson.size)
    assert abs((pearson**2).mean() - 1) < 0.1
    assert rates.std(0).min() > 0.05


def test_measured_animals_have_no_ceiling(mice: list[Bundle], tmp_path: Path) -> None:
    """And a folder beside made-up animals is one too many."""
    study = msgspec.structs.replace(TINY, references=(CEILING,))

    with pytest.raises(DataError, match="its ceiling is not known"):
        transfer.row(study, mice, Job(mice[0], 10, CEILING, 0), tmp_path)
    with pytest.raises(ConfigError, match="leave one of them out"):
        cli.app(["bench", "transfer", str(tmp_path), "--made-up"], standalone_mode=False)


def test_what_is_no_study_is_refused(mice: list[Bundle], tmp_path: Path) -> None:
    """A study without its headline, one mouse alone: one sentence."""
    with pytest.raises(ConfigError, match="30 is not among them"):
        transfer.sized(transfer.QUICK, [10], None)
    with pytest.raises(DataError, match="needs sessions of another"):
        transfer.trunk_of(TINY, mice[:1], Job(mice[0], 10, "pretrained", 0), tmp_path)
