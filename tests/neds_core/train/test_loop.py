"""Training: the same seed gives the same bits, a planted relation is found, an interrupt loses nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from neds_core.config import FinetuneConfig, MaskConfig, TrainConfig
from neds_core.data import scalers, session as sessions, session_file
from neds_core.data.scalers import Scalers
from neds_core.data.session import Session, Splits
from neds_core.errors import ConfigError, DataError
from neds_core.model.model import NEDS
from neds_core.scores import r2
from neds_core.train import loop, losses, single, sources
from neds_core.train.log import OnStep, Progress
from neds_core.train.loop import Fit, Plan
from neds_core.train.single import Job
from neds_core.train.sources import Source
from neds_core.train.windows import Windows


@pytest.fixture(scope="module")
def parts(session: Session) -> Splits:
    """42, 6 and 12 trials."""
    return sessions.split(session)


@pytest.fixture(scope="module")
def scale(parts: Splits) -> Scalers:
    """Of the first 42 trials."""
    return scalers.fit(parts.train, parts.train.specs, 0.5)


Run = Callable[..., Fit]


@pytest.fixture(scope="module")
def run(tiny: TrainConfig, parts: Splits, scale: Scalers) -> Run:
    """Train on the planted session; arguments go to its `Plan`."""

    def fit(
        seed: int = 0,
        validation: Session | None = parts.validation,
        steps: int | None = None,
        on_step: OnStep | None = None,
    ) -> Fit:
        return loop.fit(Plan(tiny, (Source(parts.train, validation, scale),), seed, steps), on_step)

    return fit


@pytest.fixture(scope="module")
def fitted(run: Run) -> Fit:
    """Seed 0, not interrupted."""
    return run()


def same_bits(a: NEDS, b: NEDS) -> bool:
    """Whether two models hold the same tensors."""
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_seed_is_a_result(run: Run, fitted: Fit) -> None:
    """Bit for bit, losses and skills included; another seed is another model."""
    again, other = run(), run(seed=1, validation=None, steps=1)

    assert again.history == fitted.history
    assert same_bits(again.model, fitted.model)
    assert other.history[0].loss != fitted.history[0].loss


def test_a_planted_relation_is_learnt(fitted: Fit, parts: Splits, scale: Scalers) -> None:
    """Wheel and choice of later trials, from spikes; chance is an R2 of 0 and an accuracy of one half."""
    bins = parts.test.bins()
    target, known = parts.test.values["wheel_speed"][bins], np.isfinite(parts.test.values["wheel_speed"][bins])
    decoded = loop.decode(fitted.model, parts.test)
    wheel = decoded["wheel_speed"] * scale.sd["wheel_speed"] + scale.mean["wheel_speed"]
    label, last = parts.test.values["choice"][bins], np.isin(bins, parts.test.segments[:, 1] - 1)
    judged = last & (label >= 0)

    assert r2.r2(target[known], wheel[known]) > 0.5
    assert (decoded["choice"][judged].argmax(1) == label[judged]).mean() > 0.75
    np.testing.assert_allclose(decoded["choice"].sum(1), 1.0, rtol=1e-5)


def test_spikes_are_predicted_from_behaviour(fitted: Fit, parts: Splits, scale: Scalers) -> None:
    """The same model the other way: later trials' rates beat the units' mean rates."""
    windows = Windows(parts.test, parts.test.specs, scale)
    batch, defined = windows.cut([(int(a), int(b)) for a, b in parts.test.segments], clocked=False)
    hidden = ~torch.from_numpy(defined)
    hidden[..., 0] = True

    log_rate = fitted.model(batch, hidden)["spikes"].detach()

    shown = batch.valid
    mean = torch.from_numpy(parts.train.counts[: 42 * 25].mean(0)).float().clamp(min=1e-4).log()
    ours = losses.poisson(log_rate[shown], batch.counts[shown]).mean()
    assert ours < losses.poisson(mean.expand_as(log_rate[shown]), batch.counts[shown]).mean() - 0.02


def test_a_shuffled_relation_is_not_learnt(tiny: TrainConfig, session: Session) -> None:
    """With the spikes of other trials there is no skill, and patience ends the training early."""
    trials = np.random.default_rng(0).permutation(60)
    parts = sessions.split(replace(session, counts=session.counts.reshape(60, 25, 12)[trials].reshape(1500, 12)))
    patient = msgspec.structs.replace(tiny, fit=msgspec.structs.replace(tiny.fit, check_every=5, patience=2))

    source = Source(parts.train, parts.validation, scalers.fit(parts.train, parts.train.specs, 0.5))

    found = loop.fit(Plan(patient, (source,), 0))

    assert found.best_skill < 0.1
    assert len(found.history) == found.best_step + 2 * 5 < 60


def test_the_best_weights_are_kept(fitted: Fit, parts: Splits, scale: Scalers, tiny: TrainConfig) -> None:
    """Best on validation, at a step where it was measured; what is returned has that skill."""
    measured = {p.step: p.skill for p in fitted.history if p.skill is not None}

    assert list(measured) == [10, 20, 30, 40, 50, 60, 70, 80]
    assert fitted.best_skill == max(measured.values()) == measured[fitted.best_step]
    assert loop.skill(fitted.model, parts.validation, scale, tiny.outputs) == fitted.best_skill
    assert not fitted.interrupted
    assert not fitted.model.training


def test_a_training_shorter_than_a_check_is_validated_at_its_end(
    tiny: TrainConfig, parts: Splits, scale: Scalers
) -> None:
    """It used to give back the model it began with."""
    short = msgspec.structs.replace(tiny, fit=msgspec.structs.replace(tiny.fit, steps=3))

    found = loop.fit(Plan(short, (Source(parts.train, parts.validation, scale),), 0))

    assert [p.skill for p in found.history] == [None, None, found.best_skill]
    assert found.best_step == 3
    assert not same_bits(found.model, sources.build(short, (Source(parts.train, None, scale),), 0))


def test_selected_outputs_alone_stop_training(tiny: TrainConfig, parts: Splits, scale: Scalers, fitted: Fit) -> None:
    """Skill is the mean of each output's own."""
    each = [loop.skill(fitted.model, parts.validation, scale, (name,)) for name in tiny.outputs]

    assert np.mean(each) == pytest.approx(fitted.best_skill)
    assert each[0] != each[1]


@pytest.mark.parametrize(("at", "best"), [(25, 20), (30, 30), (4, 0)])
def test_an_interrupt_keeps_the_best_so_far(
    run: Run, fitted: Fit, parts: Splits, scale: Scalers, tiny: TrainConfig, at: int, best: int
) -> None:
    """Ctrl-C during a step: history so far, weights of the best measure so far; before any, it says step 0."""

    def stop(progress: Progress) -> None:
        if progress.step == at:
            raise KeyboardInterrupt

    found = run(on_step=stop)

    assert found.interrupted
    assert found.history == fitted.history[:at]
    assert found.best_step == best
    if best:
        assert found.best_skill == fitted.history[best - 1].skill
        assert loop.skill(found.model, parts.validation, scale, tiny.outputs) == found.best_skill


def test_a_refit_runs_as_many_steps_as_it_is_told(run: Run) -> None:
    """Of the same schedule, without a validation part: its first steps are those of any other run of its length."""
    seen: list[Progress] = []
    short, long = run(validation=None, steps=7, on_step=seen.append), run(validation=None, steps=12)

    assert (short.best_step, len(short.history), len(seen)) == (7, 7, 7)
    assert [(p.step, p.steps, p.skill) for p in seen] == [(n, 7, None) for n in range(1, 8)]
    assert [p.loss for p in long.history[:7]] == [p.loss for p in seen]
    assert not same_bits(short.model, long.model)


def test_a_finished_model_is_trained_further(tiny: TrainConfig, parts: Splits, scale: Scalers) -> None:
    """One whose gradients are off, as files are read, learns; what it was made without stays zero."""
    size = msgspec.structs.replace(tiny.model, clock_bins=5, without=("temporal", "session"))
    config = msgspec.structs.replace(tiny, model=size)
    source = Source(parts.train, None, scale)
    made = loop.fit(Plan(config, (source,), 0, steps=2)).model

    for start in (made, copy.deepcopy(made).requires_grad_(False)):
        again = loop.fit(Plan(config, (source,), 0, steps=2, start=start)).model

        moved = {name for name, p in again.named_parameters() if not torch.equal(p, made.state_dict()[name])}
        assert moved == {name for name, _ in made.named_parameters()} - {"session", "clock.weight"}
        assert not any(again.get_parameter(name).any() for name in ("session", "clock.weight"))


def test_fine_tuning_needs_a_model_to_start_from(tiny: TrainConfig, parts: Splits, scale: Scalers) -> None:
    """Its first stage would train beside a trunk of noise."""
    config = msgspec.structs.replace(tiny, finetune=FinetuneConfig("trunk.safetensors"))

    with pytest.raises(ConfigError, match=r"take \[finetune\] out"):
        loop.fit(Plan(config, (Source(parts.train, parts.validation, scale),), 0, steps=1))


def test_a_batch_that_asks_nothing_is_drawn_again(tiny: TrainConfig, session: Session) -> None:
    """One trial at a time, choice alone, and a tenth of the trials without a label."""
    masks = MaskConfig(encoding=0, within_spikes=0, within_behaviour=0, cross_modal=0)
    fit = msgspec.structs.replace(tiny.fit, batch=1)
    config = msgspec.structs.replace(tiny, outputs=("choice",), masks=masks, fit=fit)
    train_part = sessions.split(session).train
    scale = scalers.fit(train_part, (session.spec("choice"),), 0.5)

    found = loop.fit(Plan(config, (Source(train_part, None, scale),), 0, steps=40))

    assert [p.terms.keys() for p in found.history] == [{"choice"}] * 40


@pytest.mark.parametrize("name", ["wheel_speed", "choice"])
@pytest.mark.parametrize("trials", [(0, 42), (42, 48)], ids=["training", "validation"])
def test_an_output_that_a_part_lacks_is_refused(
    tiny: TrainConfig, session: Session, name: str, trials: tuple[int, int]
) -> None:
    """Before the first step, and not as a mean of nothing."""
    values = session.values[name].copy()
    values[trials[0] * 25 : trials[1] * 25] = np.nan if name == "wheel_speed" else -1
    parts = sessions.split(replace(session, values=session.values | {name: values}))

    def begin() -> Fit:
        source = Source(parts.train, parts.validation, scalers.fit(parts.train, session.specs, 0.5))
        return loop.fit(Plan(tiny, (source,), 0))

    with pytest.raises(DataError, match=f"no {name} in a part"):
        begin()


def test_nothing_of_a_checkpoint_comes_from_the_test_part(session: Session, tiny: TrainConfig, tmp_path: Path) -> None:
    """A recording with another last fifth gives the same weights, scalers, filters, linear decoders and blend."""
    rng = np.random.default_rng(0)
    test = np.arange(session.n_bins) >= 48 * 25
    other = replace(
        session,
        counts=np.where(test[:, None], rng.poisson(3.0, session.counts.shape), session.counts).astype(np.uint8),
        values={
            "wheel_speed": np.where(test, 99.0, session.values["wheel_speed"]).astype(np.float32),
            "choice": np.where(test, 0, session.values["choice"]),
        },
        valid=session.valid | test,
    )
    model = msgspec.structs.replace(tiny.model, filter_taus_ms=(40.0, 200.0))
    short = msgspec.structs.replace(tiny, model=model, fit=msgspec.structs.replace(tiny.fit, steps=20))
    found = []
    for one in (session, other):
        session_file.save(one, tmp_path / "session.npz")
        found.append(single.release(Job(short, tmp_path / "session.npz", 3, "tiny"))[0])

    ours, theirs = found
    assert same_bits(ours.model, theirs.model)
    for name in ("mean", "sd", "prior", "linear", "blend"):
        assert getattr(ours.header, name) == getattr(theirs.header, name)
    for name, linear in ours.linear.items():
        np.testing.assert_array_equal(linear.weight, theirs.linear[name].weight)
        np.testing.assert_array_equal(linear.bias, theirs.linear[name].bias)
    np.testing.assert_array_equal(ours.scalers.trial_mean["wheel_speed"], theirs.scalers.trial_mean["wheel_speed"])
    assert ours.header.record.recording_sha != theirs.header.record.recording_sha
    assert (ours.header.record.train_segments, ours.header.record.best_step) == (42, 20)
