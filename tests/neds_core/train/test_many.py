"""One NEDS for many sessions, and a new session on its trunk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from neds_core import checkpoint
from neds_core.config import FinetuneConfig, MaskConfig, ModelConfig, PretrainConfig, StageConfig, TrainConfig
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import CheckpointError, ConfigError, DataError
from neds_core.model.model import NEDS
from neds_core.train import loop, many, single
from neds_core.train.loop import Plan
from neds_core.train.many import Pretrained
from neds_core.train.optim import Learner, owner, role
from neds_core.train.single import Job
from neds_core.train.sources import Source, build

SESSIONS = 3


def same_bits(a: NEDS, b: NEDS) -> bool:
    """Whether two models hold the same tensors."""
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def changed(a: NEDS, b: NEDS) -> set[str]:
    """Roles of the parameters that differ."""
    theirs = b.state_dict()
    return {role(name) for name, p in a.named_parameters() if not torch.equal(p, theirs[name])}


def test_gradients_accumulate_to_those_of_one_pass(recipe: PretrainConfig, sources: tuple[Source, ...]) -> None:
    """Three samples at a time, without dropout."""
    model = msgspec.structs.replace(recipe.model, dropout=0.0, embed_dropout=0.0)
    whole = msgspec.structs.replace(recipe, model=model)
    cut = msgspec.structs.replace(whole, fit=msgspec.structs.replace(whole.fit, micro_batch=3))

    ours, theirs = (loop.fit(Plan(c, sources, 0, steps=10)).history for c in (whole, cut))

    np.testing.assert_allclose([p.loss for p in theirs], [p.loss for p in ours], rtol=0, atol=1e-4)


def test_one_model_learns_many_sessions(recipe: PretrainConfig, sources: tuple[Source, ...]) -> None:
    """Each session's own unit rows serve a shared trunk: R2 and choice of every session beat chance."""
    config = msgspec.structs.replace(recipe, fit=msgspec.structs.replace(recipe.fit, steps=100, check_every=50))

    found = loop.fit(Plan(config, sources, 0))

    each = [
        loop.skill(found.model, source.validation, source.scale, recipe.outputs, row)
        for row, source in enumerate(sources)
        if source.validation is not None
    ]
    assert len(each) == SESSIONS
    assert min(each) > 0.1
    assert found.best_skill == pytest.approx(np.mean(each))


def test_a_step_teaches_its_own_sessions_alone(recipe: PretrainConfig, sources: tuple[Source, ...]) -> None:
    """The others' unit rows neither move nor decay."""
    config = msgspec.structs.replace(recipe, fit=msgspec.structs.replace(recipe.fit, sessions_per_step=1))
    training = loop.Training(Plan(config, sources, 0))
    (drawn,) = set(training.sampler.sessions(0).tolist())
    before = {k: v.clone() for k, v in training.learner.model.state_dict().items()}

    training.run(lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))

    after = training.learner.model.state_dict()
    for s in range(SESSIONS):
        for name in (f"units.{s}.rows", f"rates.{s}.weight"):
            assert torch.equal(before[name], after[name]) == (s != drawn)


@pytest.fixture(scope="module")
def published(recipe: PretrainConfig, session: Session) -> PretrainConfig:
    """The same recordings, in the published pattern with the published tokenizers."""
    size = ModelConfig(
        attention="full",
        tokenizer="stitcher",
        width=16,
        layers=1,
        heads=2,
        window_bins=25,
        dropout=0.0,
        embed_dropout=0.0,
    )
    fit = msgspec.structs.replace(recipe.fit, window_bins=25)
    return msgspec.structs.replace(recipe, model=size, fit=fit)


def test_the_published_tokenizers_learn_many_sessions(published: PretrainConfig, sources: tuple[Source, ...]) -> None:
    """Every session has its own, priors included; one step on a session moves those of no other."""
    config = msgspec.structs.replace(published, fit=msgspec.structs.replace(published.fit, sessions_per_step=1))
    training = loop.Training(Plan(config, sources, 0))
    model = training.learner.model
    for s, source in enumerate(sources):
        prior = model.head("choice", s).bias.detach().softmax(0).numpy()
        np.testing.assert_allclose(prior, source.scale.prior["choice"], rtol=1e-5)
    (drawn,) = set(training.sampler.sessions(0).tolist())
    before = {k: v.clone() for k, v in model.state_dict().items()}

    training.run(lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))

    moved = {owner(k) for k, v in model.named_parameters() if not torch.equal(v, before[k])}
    assert moved == {None, drawn}
    masks = MaskConfig(encoding=0.0, within_spikes=0.0, within_behaviour=0.0, cross_modal=0.0)
    fit = msgspec.structs.replace(published.fit, steps=200, check_every=200)
    found = loop.fit(Plan(msgspec.structs.replace(published, masks=masks, fit=fit), sources, 0))
    each = [loop.skill(found.model, s.train, s.scale, ("wheel_speed",), row) for row, s in enumerate(sources)]
    assert min(each) > 0.1


def test_a_new_session_has_stitchers_of_its_own(
    published: PretrainConfig, tiny: TrainConfig, sources: tuple[Source, ...], tmp_path: Path
) -> None:
    """On a trunk with published tokenizers: blocks and positions are the trunk's, tokenizers and read-outs fresh, and
    those train first."""
    fit = loop.fit(Plan(published, sources[1:], 0, steps=2))
    rows = tuple(many.row(source) for source in sources[1:])
    header = many.Header(1, sources[0].train.bin_ns, published, fit.model.specs, rows, 2, 0.0, 1.0)
    many.save(Pretrained(header, fit.model), tmp_path / "x.safetensors")
    stages = (StageConfig(3, 1e-2, ("units", "session")), StageConfig(3, 1e-3))
    config = msgspec.structs.replace(
        tiny, model=published.model, fit=msgspec.structs.replace(tiny.fit, window_bins=25),
        finetune=FinetuneConfig("x.safetensors", stages),
    )  # fmt: skip

    start = many.graft(many.load(tmp_path / "x.safetensors"), config, sources[0], 0)
    fresh, old = build(config, sources[:1], 0).state_dict(), fit.model.state_dict()
    first = loop.fit(Plan(config, (replace(sources[0], validation=None),), 0, steps=3, start=start))

    for name, value in start.state_dict().items():
        if name not in ("session", "modality"):
            assert torch.equal(value, old[name] if owner(name) is None else fresh[name]), name
    assert torch.equal(start.session[0], old["session"].mean(0))
    assert changed(first.model, start) == {"units", "session"}
    moved = {n.split(".")[0] for n, p in first.model.named_parameters() if not torch.equal(p, start.state_dict()[n])}
    assert {"units", "rates", "behaviour", "heads"} <= moved


@pytest.mark.parametrize("tokenizer", ["rows", "stitcher", "causal"])
def test_a_new_session_may_have_some_of_the_outputs(
    published: PretrainConfig, recipe: PretrainConfig, tiny: TrainConfig, sources: tuple[Source, ...], tokenizer: str
) -> None:
    """In another order or fewer: every table has the trunk's rows of those modalities."""
    size = recipe.model if tokenizer == "causal" else msgspec.structs.replace(published.model, tokenizer=tokenizer)
    config = msgspec.structs.replace(published, model=size, fit=recipe.fit if tokenizer == "causal" else published.fit)
    fit = loop.fit(Plan(config, sources[1:], 0, steps=2))
    old = fit.model
    rows = tuple(many.row(source) for source in sources[1:])
    trunk = Pretrained(many.Header(1, sources[0].train.bin_ns, config, old.specs, rows, 2, 0.0, 1.0), old)

    for outputs, taken in ((("choice",), [0, 2]), (("choice", "wheel_speed"), [0, 2, 1])):
        one = msgspec.structs.replace(tiny, outputs=outputs, model=size, fit=config.fit)
        new = many.graft(trunk, one, sources[0], 0)

        assert torch.equal(new.modality, old.modality[taken])
        mean = old.session.mean(0)
        assert torch.equal(new.session[0], mean if tokenizer == "causal" else mean[taken])
        if tokenizer != "causal":
            assert torch.equal(new.position, old.position[:, taken])
        assert loop.decode(new, sources[0].train)["choice"].shape[1] == 2


def test_sessions_that_mean_other_things_are_refused(recipe: PretrainConfig, sources: tuple[Source, ...]) -> None:
    """Another bin width, or another meaning of a name."""
    first, second = sources[:2]
    specs = (msgspec.structs.replace(second.train.specs[0], sign="signed"), second.train.specs[1])

    for other in (replace(second.train, bin_ns=10_000_000), replace(second.train, specs=specs)):
        with pytest.raises(DataError, match=r"(train|name) them apart"):
            loop.fit(Plan(recipe, (first, replace(second, train=other)), 0))


@pytest.fixture(scope="module")
def trunk(recipe: PretrainConfig, sources: tuple[Source, ...]) -> Pretrained:
    """Trained on the second and third session."""
    fit = loop.fit(Plan(recipe, sources[1:], 0))
    rows = tuple(many.row(source) for source in sources[1:])
    specs = fit.model.specs
    return Pretrained(many.Header(1, sources[0].train.bin_ns, recipe, specs, rows, 20, 0.1, 1.0), fit.model)


def test_a_pretrained_file_is_what_was_trained(trunk: Pretrained, sources: tuple[Source, ...], tmp_path: Path) -> None:
    """Weights bit for bit, unit tables and scalers; anything else is refused in one sentence."""
    many.save(trunk, tmp_path / "x.safetensors")
    found = many.load(tmp_path / "x.safetensors")

    assert same_bits(found.model, trunk.model)
    for row, source in zip(found.header.sessions, sources[1:], strict=True):
        assert row.units.sha256 == source.train.units.sha256
        assert row.kept == source.scale.kept.tolist()
        assert row.mean == source.scale.mean
    for content in (b"", b"\0" * 64):
        (tmp_path / "bad.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match="not a multi-session NEDS"):
            many.load(tmp_path / "bad.safetensors")


def test_fine_tuning_trains_what_its_stages_say(
    tiny: TrainConfig, trunk: Pretrained, sources: tuple[Source, ...]
) -> None:
    """Unit rows and session embedding with the trunk's bits untouched, then everything."""
    stages = (StageConfig(5, 1e-2, ("units", "session")), StageConfig(5, 1e-3))
    config = msgspec.structs.replace(tiny, finetune=FinetuneConfig("x.safetensors", stages))
    start = many.graft(trunk, config, sources[0], 0)
    old = trunk.model.state_dict()

    new = loop.fit(Plan(config, sources[:1], 0, start=start))
    first = loop.fit(Plan(config, (replace(sources[0], validation=None),), 0, steps=5, start=start))
    both = loop.fit(Plan(config, (replace(sources[0], validation=None),), 0, start=start))

    assert torch.equal(start.layers[0].qkv.weight, old["blocks.0.qkv.weight"])
    assert torch.equal(start.session[0], old["session"].mean(0))
    assert torch.equal(start.head("choice").weight, old["heads.choice.weight"])
    assert changed(first.model, start) == {"units", "session"}
    assert changed(both.model, start) == {"units", "session", "heads", "trunk"}
    assert [p.step for p in new.history] == list(range(1, 11))
    assert same_bits(many.graft(trunk, config, sources[0], 0), start)


def test_a_trunk_that_does_not_fit_is_refused(
    tiny: TrainConfig, trunk: Pretrained, sources: tuple[Source, ...]
) -> None:
    """Other sizes, other embeddings left out, or an output it was not trained for."""
    bare = msgspec.structs.replace(tiny, model=msgspec.structs.replace(tiny.model, without=("session",)))
    wide = msgspec.structs.replace(tiny, model=msgspec.structs.replace(tiny.model, width=32))
    specs = tuple(msgspec.structs.replace(s, classes=("a", "b")) if s.classes else s for s in sources[0].train.specs)
    other = replace(sources[0], train=replace(sources[0].train, specs=specs))

    with pytest.raises(ConfigError, match=r"model.width is 32, but the trunk's is 16"):
        many.graft(trunk, wide, sources[0], 0)
    with pytest.raises(ConfigError, match=r"model.without is \['session'\], but the trunk's is \[\]"):
        many.graft(trunk, bare, sources[0], 0)
    with pytest.raises(ConfigError, match="'choice' is none of the trunk's"):
        many.graft(trunk, tiny, other, 0)


def test_a_fine_tuned_checkpoint_is_a_checkpoint(
    tiny: TrainConfig, trunk: Pretrained, session: Session, tmp_path: Path
) -> None:
    """`release` with a trunk: stages in its header, loads like any other."""
    fit = msgspec.structs.replace(tiny.fit, steps=10)
    config = msgspec.structs.replace(tiny, fit=fit, finetune=FinetuneConfig("trunk.safetensors"))
    session_file.save(session, tmp_path / "session.npz")

    made, found, _ = single.release(Job(config, tmp_path / "session.npz", 0, "tuned", trunk))
    checkpoint.save(made, tmp_path / "tuned.safetensors")

    assert [s.trains for s in config.stages] == [("units", "session"), ("units", "session", "heads", "trunk")]
    assert found.best_step == 10
    assert checkpoint.load(tmp_path / "tuned.safetensors").header.config == config


def test_early_stages_are_not_ended_by_patience(tiny: TrainConfig, trunk: Pretrained) -> None:
    """Patience counts in the last stage; there it ends the training."""
    learner = Learner(trunk.model, tiny.fit, (StageConfig(2, 1e-3, ("units",)), StageConfig(1, 1e-3)))
    seen = []
    for _ in range(3):
        learner.begin()
        seen.append((learner.stage, learner.in_last_stage))
        learner.update()

    assert seen == [(0, False), (0, False), (1, True)]
