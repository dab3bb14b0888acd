"""A session is fitted in stages on a base, and the part that judges is read by none of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from calibration import command
from calibration.fitting import base as bases, fit as fits, quality, start
from calibration.fitting.base import Base
from calibration.fitting.config import CalibrateConfig, Everything, Scratch, Stage
from calibration.fitting.fit import Fitted, Task, cooled
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.config import ModelConfig
from neds_core.data import parts as cutting, scalers, session as sessions
from neds_core.data.parts import Parts
from neds_core.data.session import Session, UnitTable
from neds_core.errors import CheckpointError, ConfigError, DataError
from neds_core.linear import baseline
from neds_core.model import rows
from neds_core.model.embed import UnitTokenizer
from neds_core.model.model import NEDS
from neds_core.scores import reliability
from neds_core.train import loop, many
from neds_core.train.log import Silent
from neds_core.train.many import Pretrained
from neds_core.train.sources import Source
from runtime.live import offline
from runtime.scoring import summary


def tensors(made: Checkpoint) -> dict[str, np.ndarray]:
    """All that decodes."""
    weights = {k: v.numpy() for k, v in made.model.state_dict().items()}
    return weights | {f"{k}.{w}": getattr(v, w) for k, v in made.linear.items() for w in ("weight", "bias")}


def same(first: Fitted, second: Fitted) -> bool:
    """Whether two fits ended in the same bits."""
    one, two = tensors(first.made), tensors(second.made)
    return (
        all(np.array_equal(one[k], two[k]) for k in one.keys() | two.keys())
        and first.made.header.blend == second.made.header.blend
        and first.temperatures == second.temperatures
    )


def test_the_judging_part_is_not_read(session: Session, make_task: Callable[..., Task], fitted: Fitted) -> None:
    """Other labels and other spikes there: the weights are the same to the bit."""
    rows, rng = cutting.cut(session).judge.bins(), np.random.default_rng(0)
    counts, wheel, choice = session.counts.copy(), session.values["wheel_speed"].copy(), session.values["choice"].copy()
    counts[rows] = rng.poisson(1.0, (len(rows), counts.shape[1]))
    wheel[rows] = rng.normal(5.0, 2.0, len(rows))
    choice[rows] = rng.integers(0, 2, len(rows) // 25).repeat(25)
    other = replace(session, counts=counts, values={"wheel_speed": wheel, "choice": choice})

    assert same(fitted, fits.fit(make_task(cutting.cut(other))))


def test_the_selecting_part_is_read(session: Session, make_task: Callable[..., Task], fitted: Fitted) -> None:
    """What the test above compares can differ."""
    rows = cutting.cut(session).select.bins()
    wheel = session.values["wheel_speed"].copy()
    wheel[rows] = wheel[rows][::-1]
    other = replace(session, values=session.values | {"wheel_speed": wheel})

    assert not same(fitted, fits.fit(make_task(cutting.cut(other))))


def test_linear_decoders_that_the_caller_has_are_not_searched_again(
    make_task: Callable[..., Task], fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits come out, and no search is made."""
    task = make_task()
    config, train = fits.recipe(task), task.parts.fit
    specs = tuple(train.spec(name) for name in config.outputs)
    linear = fits.linears(task, config, specs, scalers.fit(train, specs, config.min_rate_hz))
    monkeypatch.setattr(fits, "linears", None)

    assert same(fitted, fits.fit(task, linear))


def test_every_stage_is_reported(fitted: Fitted, first_day: Fitted) -> None:
    """With its seconds and its skill on the selecting part; the best of the labelled ones never falls."""
    names = [step.name for step in fitted.steps]
    assert names == [
        "linear decoders", "start", "spikes alone", "read-outs from the ridge", "rows and read-outs", "everything",
    ]  # fmt: skip
    skills = [step.skill for step in fitted.steps[1:]]
    assert None not in skills
    assert skills[-3:] == sorted(skills[-3:], key=float)  # pyright: ignore[reportArgumentType]
    assert all(step.seconds > 0 for step in fitted.steps)
    assert [step.name for step in first_day.steps] == ["linear decoders", "from scratch"]
    record = fitted.made.header.record
    assert (record.train_segments, record.validation_segments) == (34, 11)
    assert [stage.steps for stage in fitted.made.header.config.finetune.stages] == [2, 6, 4]


def test_a_stage_trains_what_it_says(make_task: Callable[..., Task], base: Base) -> None:
    """Rows and read-outs: the trunk stays that of the base, to the bit."""
    found = fits.fit(make_task(everything=Everything(0, 1e-3))).made.model

    ours, theirs = found.state_dict(), base.trunk.model.state_dict()
    moved = {k for k in ours if not k.startswith(("units.", "rates.")) and not torch.equal(ours[k], theirs[k])}
    assert moved
    assert all(name.startswith(("session", "heads.")) for name in moved)


def grafted(base: Base, task: Task) -> tuple[NEDS, Source]:
    """The base's network with fresh rows for the session of a task."""
    config = fits.recipe(task)
    specs = tuple(task.parts.fit.spec(name) for name in config.outputs)
    source = Source(task.parts.fit, task.parts.select, scalers.fit(task.parts.fit, specs, 0.05))
    return many.graft(base.trunk, config, source, 0), source


def test_a_checkpoint_of_one_session_is_a_trunk(base: Base, make_task: Callable[..., Task]) -> None:
    """What is not a unit's own is the checkpoint's."""
    model, _ = grafted(base, make_task())

    ours, theirs = model.state_dict(), base.trunk.model.state_dict()
    own = {k for k in ours if k.startswith(("units.0.", "rates.0."))}
    assert all(torch.equal(ours[k], theirs[k]) for k in ours.keys() - own)
    assert torch.equal(ours["units.0.bias"], theirs["units.0.bias"])
    assert not torch.equal(ours["units.0.rows"], theirs["units.0.rows"])


def test_units_that_the_base_knows_keep_their_rows(
    base: Base, session: Session, make_task: Callable[..., Task]
) -> None:
    """By id and region, at another place of the table and at another rate; the others start fresh."""
    order = np.random.default_rng(0).permutation(len(session.units))
    units = session.units
    region = units.region[order].copy()
    region[0] = "elsewhere"
    table = UnitTable(units.ids[order], region, units.depth_um[order])
    today = replace(session, units=table, counts=(session.counts * np.uint8(2))[:, order])
    model, source = grafted(base, make_task(cutting.cut(today)))
    fresh = model.state_dict()["units.0.rows"].clone()

    n, lost = bases.keep_rows(model, source.train, base)

    tokenizer, old = model.tokenizer(), base.trunk.model.tokenizer()
    assert isinstance(tokenizer, UnitTokenizer)
    assert isinstance(old, UnitTokenizer)
    kept = base.trunk.header.sessions[0].kept
    assert n == sum(kept[u] for u in order[1:])
    torch.testing.assert_close(tokenizer.rows[0], fresh[0])
    for place, u in list(enumerate(order))[1:]:
        if kept[u]:  # a spike moves the token by as much
            a, b = tokenizer.rows[place] * tokenizer.gain[place], old.rows[u] * old.gain[u]
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(model.rate_head().weight[place], base.trunk.model.rate_head().weight[u])
    assert lost is not None
    assert lost.keys == [(int(units.ids[order[0]]), str(units.region[order[0]]))]


def test_a_unit_that_comes_back_has_the_row_of_the_day_on_which_it_was_last_there(
    base: Base, session: Session, make_task: Callable[..., Task], tmp_path: Path
) -> None:
    """Its row is kept in the file of a day without it."""

    def today(keep: list[int]) -> Session:
        units = UnitTable(*(getattr(session.units, k)[keep] for k in ("ids", "region", "depth_um")))
        return replace(session, units=units, counts=session.counts[:, keep], events=None)

    used = np.flatnonzero(base.trunk.header.sessions[0].kept).tolist()
    gone, rest = used[1], used[2:]
    task = make_task(cutting.cut(today(rest)))
    config = msgspec.structs.replace(task.config, keep_rows=True, everything=Everything(0, 1e-3))
    fitted = fits.fit(replace(task, config=config))
    assert fitted.units_kept == len(rest)
    checkpoints.save(fitted.made, tmp_path / "without.safetensors")
    again = bases.read(tmp_path / "without.safetensors")
    assert again.lost is not None
    assert len(again.lost.units) == 2
    broken = dict(again.lost.tensors(), **{"lost/ids": torch.arange(5)})
    with pytest.raises(ValueError, match="rows of lost units are incomplete"):
        rows.read(broken)

    back = today([gone, *rest])
    model, source = grafted(again, make_task(cutting.cut(back)))
    n, lost = bases.keep_rows(model, source.train, again)

    tokenizer, old = model.tokenizer(), base.trunk.model.tokenizer()
    assert isinstance(tokenizer, UnitTokenizer)
    assert isinstance(old, UnitTokenizer)
    assert n == 1 + len(rest)
    assert lost is not None
    assert lost.units.ids.tolist() == [session.units.ids[used[0]]]
    torch.testing.assert_close(tokenizer.rows[0] * tokenizer.gain[0], old.rows[gone] * old.gain[gone])
    newer = again.trunk.model.tokenizer()
    assert isinstance(newer, UnitTokenizer)
    torch.testing.assert_close(tokenizer.rows[1] * tokenizer.gain[1], newer.rows[0] * newer.gain[0])


def test_readouts_start_at_the_ridge(base: Base, make_task: Callable[..., Task]) -> None:
    """What the network says is then the ridge on its features: better than before on the fitting part."""
    model, source = grafted(base, make_task())
    before = loop.skill(model, source.train, source.scale, ("wheel_speed", "choice"))

    start.readouts(model, source.train, source.scale, make_task().config.linear)

    after = loop.skill(model, source.train, source.scale, ("wheel_speed", "choice"))
    assert after > max(before, 0.2)
    said = start.features(model, source.train)["wheel_speed"]
    head = model.head("wheel_speed").requires_grad_(False)
    np.testing.assert_allclose(
        said @ head.weight.numpy()[0] + head.bias.numpy(), loop.decode(model, source.train)["wheel_speed"], atol=1e-5
    )


@given(
    temperature=st.floats(0.3, 5.0),
    seed=st.integers(0, 99),
    n_classes=st.integers(2, 4),
)
def test_a_temperature_is_in_the_weights(temperature: float, seed: int, n_classes: int) -> None:
    """The cooled read-out says what `with_temperature` makes of the other's probabilities, and decides the same."""
    rng = np.random.default_rng(seed)
    x, weight, bias = rng.normal(size=(20, 5)), rng.normal(size=(5, n_classes)), rng.normal(size=n_classes)
    prior = rng.dirichlet(np.full(n_classes, 5.0)).clip(0.05)
    prior /= prior.sum()

    def probs(w: np.ndarray, b: np.ndarray) -> np.ndarray:
        power = np.exp(x @ w + b)
        return power / power.sum(1, keepdims=True)

    ours = probs(*cooled(weight, bias, temperature, prior))

    np.testing.assert_allclose(ours, reliability.with_temperature(probs(weight, bias), temperature, prior), atol=1e-4)
    np.testing.assert_array_equal((ours / prior).argmax(1), (probs(weight, bias) / prior).argmax(1))


def test_the_prior_is_what_no_evidence_says(session: Session) -> None:
    """Labels that the probabilities know nothing of: the temperature goes up, and what is left is the prior."""
    rng, prior = np.random.default_rng(0), np.array([0.8, 0.2])
    label = (rng.random(4000) < 0.2).astype(np.int64)
    evidence = rng.normal(size=4000)
    probs = 1.0 / (1.0 + np.exp(np.stack([evidence - np.log(4), np.log(4) - evidence], 1)))

    temperature = reliability.fit_temperature(probs, label, prior)

    assert temperature > 5.0
    np.testing.assert_allclose(reliability.with_temperature(probs, temperature, prior).mean(0), prior, atol=0.01)


def looking_ahead(base: Base, lead_ms: float) -> Base:
    """The base as if its wheel had been trained so far ahead."""
    trunk = base.trunk
    model = copy.deepcopy(trunk.model)
    model.specs = (msgspec.structs.replace(model.specs[0], lead_ms=lead_ms), *model.specs[1:])
    return replace(base, trunk=replace(trunk, model=model))


def test_the_lead_of_the_base_is_that_of_its_calibration(
    base: Base, make_task: Callable[..., Task], fitted: Fitted, tmp_path: Path
) -> None:
    """In targets, network, ridge, gate and header, no target of another part; and streamed as offline."""
    heard: list[str] = []
    show = Silent()
    show.say = heard.append  # pyright: ignore[reportAttributeAccessIssue]
    task = replace(make_task(of=looking_ahead(base, 60.0)), show=show)

    found = fits.fit(task)

    assert "wheel_speed: 60 ms ahead; filter of its target: none stated" in heard
    assert [spec.lead_ms for spec in found.made.specs] == [60.0, 0.0]
    assert found.made.header.config.lead_ms == {"wheel_speed": 60.0}
    for name in ("fit", "select", "judge"):
        ours, plain = getattr(found.parts, name), getattr(task.parts, name)
        for first, stop in plain.segments:
            later = np.where(plain.valid, plain.values["wheel_speed"], np.nan)[first + 3 : stop]
            np.testing.assert_array_equal(ours.values["wheel_speed"][first:stop], [*later, *[np.nan] * 3])
    scale, header = found.made.scalers, found.made.header
    bank, penalty = header.linear["wheel_speed"].bank, header.linear["wheel_speed"].penalty
    again = baseline.refit(found.parts.refit, found.made.specs[0], scale, bank, penalty)
    np.testing.assert_array_equal(again.weight, found.made.linear["wheel_speed"].weight)
    assert not same(fitted, found)

    judged = command.judge(found)
    np.testing.assert_array_equal(
        judged.said.target["wheel_speed"], found.parts.judge.values["wheel_speed"][found.parts.judge.bins()]
    )
    path = tmp_path / "today.safetensors"
    checkpoints.save(command.gated(judged, task), path)
    assert bases.read(path).specs() == found.made.specs  # of the next calibration
    again = checkpoints.load(path)
    log = offline.stream(again, sessions.select(task.parts.judge, slice(0, 4)), "blend")
    assert (
        summary.build(log, again)["streamed_vs_offline_max_abs"] <= 1e-5
    )  # in z-scores: float32 sums in another order


def test_a_first_day_looks_as_far_ahead_as_it_is_told(make_task: Callable[..., Task], first_day: Fitted) -> None:
    """In specs, header and targets; and the next calibration of it has the lead without being told."""
    keys = {"of": None, "outputs": ("wheel_speed", "choice"), "model": first_day.made.header.config.model}
    short = Scratch(steps=20)

    found = fits.fit(make_task(**keys, lead_ms={"wheel_speed": 40.0}, scratch=short))

    assert [spec.lead_ms for spec in found.made.specs] == [40.0, 0.0]
    assert found.made.header.config.lead_ms == {"wheel_speed": 40.0}
    first, stop = found.parts.judge.segments[0]
    plain = first_day.parts.judge.values["wheel_speed"]
    np.testing.assert_array_equal(found.parts.judge.values["wheel_speed"][first : stop - 2], plain[first + 2 : stop])


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"lead_ms": {"whisk": 40.0}}, r"lead_ms: 'whisk' is none of wheel_speed"),
        ({"lead_ms": {"wheel_speed": 40.0}, "model": ModelConfig(attention="full")}, "is for attention 'causal'"),
    ],
)
def test_a_lead_that_no_first_day_can_have_is_refused_where_it_is_read(keys: dict, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        CalibrateConfig(outputs=("wheel_speed",), **keys)


def test_a_lead_that_leaves_too_few_targets_is_refused(base: Base, make_task: Callable[..., Task], cut: Parts) -> None:
    """24 of a trial's 25 bins leave it one; 25 leave none."""
    most = cut.ahead({"wheel_speed": 480.0})
    quality.check_leads(most, most.fit.specs)
    with pytest.raises(DataError, match=r"looks 500 ms ahead, which leaves 0 segments of the fitting part"):
        fits.fit(make_task(of=looking_ahead(base, 500.0)))


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda s: replace(s, specs=(msgspec.structs.replace(s.specs[0], unit="deg/s"), s.specs[1])), "is in 'deg/s'"),
        (lambda s: replace(s, bin_ns=10_000_000), "has bins of 10 ms, the base of 20 ms; use one of its bin width"),
        (
            lambda s: replace(s, specs=tuple(msgspec.structs.replace(x, labels="inferred") for x in s.specs)),
            "are inferred: nothing can judge them",
        ),
    ],
)
def test_a_session_that_does_not_fit_the_base_is_refused(
    session: Session, make_task: Callable[..., Task], edit: Callable[[Session], Session], why: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=why):
        fits.fit(make_task(cutting.cut(edit(session))))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"outputs": ("pupil_diameter",)}, "has no behaviour 'pupil_diameter'"),
        ({"model": CalibrateConfig().model.__class__(width=32)}, "model is set, but the base has its own"),
        ({"of": None}, "outputs is empty, and there is no base"),
        ({"select": ("choice", "lick")}, "select: 'lick' is none of the outputs"),
        ({"lead_ms": {"wheel_speed": 40.0}}, "lead_ms is set, but the base has its own"),
        (
            {"of": None, "outputs": ("wheel_speed",), "lead_ms": {"wheel_speed": 30.0}},
            "not a whole number of bins of 20 ms; set it to 40",
        ),
    ],
)
def test_a_wrong_configuration_is_refused(make_task: Callable[..., Task], keys: dict, why: str) -> None:
    with pytest.raises((ConfigError, DataError), match=why):
        fits.fit(make_task(**keys))


def test_an_imported_checkpoint_is_no_base(make_checkpoint: Callable[..., Checkpoint]) -> None:
    made = make_checkpoint()

    with pytest.raises(CheckpointError, match="imported"):
        many.of_checkpoint(replace(made, header=msgspec.structs.replace(made.header, linear={})))


def test_some_outputs_of_the_base_will_do(make_task: Callable[..., Task], cut: Parts) -> None:
    found = fits.fit(make_task(outputs=("wheel_speed",), spikes=Stage(0, 1e-3), everything=Everything(0, 1e-3)))

    assert [spec.name for spec in found.made.specs] == ["wheel_speed"]


def test_a_trunk_of_many_recordings_is_a_base(
    base: Base, make_neds: Callable[..., NEDS], make_task: Callable[..., Task], tmp_path: Path
) -> None:
    """Read from its file; the new session's embedding starts at the mean of the trunk's."""
    header = base.trunk.header
    one = header.sessions[0]
    model = make_neds(header.config.model, (len(one.unit_ids),) * 2)
    two = msgspec.structs.replace(header, sessions=(one, msgspec.structs.replace(one, name="another")))
    many.save(Pretrained(two, model), tmp_path / "trunk.safetensors")
    found = bases.read(tmp_path / "trunk.safetensors")
    task = make_task(of=found, spikes=Stage(), ridge_start=False, everything=Everything(0))

    grown, _ = grafted(found, task)
    fitted = fits.fit(task)

    torch.testing.assert_close(grown.session[0], model.session.mean(0))
    assert fitted.made.header.record.trunk_sha == found.parents[0] == found.trunk.sha
    assert [step.name for step in fitted.steps] == ["linear decoders", "start", "rows and read-outs"]


def test_a_recording_without_trials_is_calibrated_on(
    make_task: Callable[..., Task], base: Base, session: Session
) -> None:
    """One long segment: cut in time, one trace, and a base that was trained for pauses between trials."""
    rng, n = np.random.default_rng(0), 14_000
    wheel = np.convolve(rng.normal(size=n), np.exp(-np.arange(100) / 20.0), "same").astype(np.float32)
    counts = rng.poisson(np.exp(np.outer(wheel / wheel.std(), rng.normal(0, 0.5, 12)) - 1.5).clip(max=9))
    one = replace(
        session, counts=counts.astype(np.uint8), valid=np.ones(n, bool), specs=session.specs[:1],
        values={"wheel_speed": wheel}, segments=np.array([[0, n]]), segment_ids=np.array([1]),
    )  # fmt: skip
    paused = replace(base, masks=msgspec.structs.replace(base.masks, pause=0.3))
    task = make_task(cutting.cut(one), paused, outputs=("wheel_speed",), everything=Everything(0), spikes=Stage())

    found = command.judge(fits.fit(task)).offers["wheel_speed"]

    assert found.n == 6  # blocks of 10 s
    assert found.word in ("PASS", "RIDGE")
