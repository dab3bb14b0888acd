"""What the published code gets wrong and this does not; each test fails on code that does the same.

The faults were read in, and measured on, `yzhang511/NEDS` at 61d2ef6; the architecture itself is
reproduced (test_official.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from neds_core.config import FitConfig, MaskConfig, ModelConfig
from neds_core.data import scalers, session as sessions
from neds_core.data.session import BehaviourSpec, Session
from neds_core.model import offline
from neds_core.model.model import NEDS, Batch
from neds_core.train import losses
from neds_core.train.masks import FAMILIES
from neds_core.train.windows import Windows

SPECS = (
    BehaviourSpec("wheel_speed", "continuous"),
    BehaviourSpec("choice", "class", classes=("left", "right")),
)
MODALITIES = ("spikes", "wheel_speed", "choice")
B, T, U, M = 4, 8, 5, len(MODALITIES)
PUBLISHED = ModelConfig(attention="full", tokenizer="stitcher", width=16, layers=2, heads=2, window_bins=25)
CONFIGS = {
    "published": PUBLISHED,
    "full, rows": msgspec.structs.replace(PUBLISHED, tokenizer="rows"),
    "causal": ModelConfig(width=16, layers=2, heads=2, band=5),
}
MakeNeds = Callable[..., NEDS]


def mean_loss(
    out: dict[str, torch.Tensor], batch: Batch, asked: torch.Tensor, kept: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Each term's mean over its targets, as training adds them up."""
    n = losses.targets(asked, SPECS, kept)
    return {name: term / n[name] for name, term in losses.sums(out, batch, asked, SPECS, kept).items()}


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS.keys())
def model(request: pytest.FixtureRequest, make_neds: MakeNeds) -> NEDS:
    """Two sessions with as many units."""
    return make_neds(request.param, (U, U), SPECS)


def a_batch(session: int = 0) -> Batch:
    """Four trials where everything is known and valid."""
    rng = torch.Generator().manual_seed(0)
    return Batch(
        counts=torch.randint(0, 4, (B, T, U), generator=rng).float(),
        valid=torch.ones(B, T, dtype=torch.bool),
        traces={"wheel_speed": torch.randn(B, T, generator=rng)},
        classes={"choice": torch.tensor([0, 1, 1, 0])[:, None].expand(B, T).clone()},
        clock=torch.full((B, T), -1),
        session=session,
    )


def one_trial(batch: Batch, b: int) -> Batch:
    """A batch of one."""
    row = slice(b, b + 1)
    return replace(
        batch,
        counts=batch.counts[row],
        valid=batch.valid[row],
        traces={n: x[row] for n, x in batch.traces.items()},
        classes={n: x[row] for n, x in batch.classes.items()},
        clock=batch.clock[row],
    )


def hidden_by_trial() -> Tensor:
    """(B, T, M): encoding, decoding, and two random masks."""
    hidden = torch.rand(B, T, M, generator=torch.Generator().manual_seed(3)) < 0.4
    hidden[0], hidden[1] = torch.tensor([True, False, False]), torch.tensor([False, True, True])
    return hidden


def test_a_trial_is_the_same_alone_in_its_batch(model: NEDS) -> None:
    """Published: a trial that is the only one of its session in a batch, so every batch of one, gets no session
    embedding, and class logits that are the bias."""
    hidden = hidden_by_trial()
    for session in (0, 1):
        together = model(a_batch(session), hidden)
        for b in range(B):
            alone = model(one_trial(a_batch(session), b), hidden[b : b + 1])
            # 1e-5: float32 products of other shapes
            for name in MODALITIES:
                torch.testing.assert_close(alone[name][0], together[name][b], atol=1e-5, rtol=1e-5)
            assert (alone["choice"] - model.head("choice", session).bias).abs().max() > 0.05


def test_a_batch_of_one_knows_its_session(model: NEDS) -> None:
    """Published: it does not. All units' weights the same here: the session embedding alone differs."""
    twin = NEDS(model.config, (U, U), SPECS).eval()
    state = model.state_dict()
    for name in state:
        for table in (
            "units",
            "rates",
            "behaviour.wheel_speed",
            "behaviour.choice",
            "heads.wheel_speed",
            "heads.choice",
        ):
            if name.startswith(f"{table}.1."):
                state[name] = state[name.replace(f"{table}.1.", f"{table}.0.")]
    twin.load_state_dict(state)
    batch, hidden = one_trial(a_batch(), 1), hidden_by_trial()[1:2]

    first, second = twin(batch, hidden), twin(replace(batch, session=1), hidden)

    assert all((first[name] - second[name]).abs().max() > 1e-3 for name in MODALITIES)


def test_every_trial_follows_its_own_mask(model: NEDS) -> None:
    """Published until 2026-03: the first trial's mask hides the input of the whole batch, while each trial's own is
    scored, so that most targets could be read off the input."""
    hidden = hidden_by_trial()
    changed = a_batch()
    for m, values in enumerate((changed.counts, changed.traces["wheel_speed"], changed.classes["choice"])):
        values[hidden[..., m]] = 1 - values[hidden[..., m]]

    before, after = model(a_batch(), hidden), model(changed, hidden)

    assert all(torch.equal(before[name], after[name]) for name in MODALITIES)
    others = model(a_batch(), hidden[[0, 0, 0, 0]])
    assert all((before[name][1:] != others[name][1:]).any() for name in MODALITIES)


def test_the_input_is_not_written_to(model: NEDS) -> None:
    """Published until 2026-03: masking zeroed the spikes in place, once for each loss, so that 12 % were left."""
    batch, hidden = a_batch(), hidden_by_trial()

    out = model(batch, hidden)
    mean_loss(out, batch, hidden, torch.ones(U, dtype=torch.bool))

    assert torch.equal(batch.counts, a_batch().counts)
    assert torch.equal(batch.traces["wheel_speed"], a_batch().traces["wheel_speed"])
    assert torch.equal(hidden, hidden_by_trial())


def test_masks_are_drawn_for_each_trial_and_modality(session: Session) -> None:
    """Published: one random draw serves the batch, and in the cross-modal scheme all modalities."""
    part = sessions.split(session).train
    windows = Windows(part, SPECS, scalers.fit(part, SPECS, 0.5))
    only = MaskConfig(**(dict.fromkeys(FAMILIES, 0.0) | {"cross_modal": 1.0}))
    for ratio in (0.1, 0.6):
        each = [np.random.default_rng(i) for i in range(64)]
        batch, hidden, _, _ = windows.sample(each, FitConfig(), PUBLISHED, msgspec.structs.replace(only, ratio=ratio))
        assert len({tuple(row.tolist()) for row in hidden[..., 0]}) > 56
        assert (hidden[..., 0] != hidden[..., 1]).any(1).sum() > 56
        # published: the configured ratio never reaches the training; 0.07: five standard errors
        assert abs(hidden[..., 0][batch.valid].float().mean() - ratio) < 0.07


def test_every_head_is_trained_and_saved(model: NEDS) -> None:
    """Published: the unimodal models keep their heads in a plain dict, so no optimiser and no file sees them."""
    trained = NEDS(model.config, (U, U), SPECS).train()
    for session in (0, 1):
        batch, asked = a_batch(session), torch.ones(B, T, M, dtype=torch.bool)
        for hidden in (hidden_by_trial(), torch.zeros_like(asked)):
            terms = mean_loss(trained(batch, hidden), batch, asked, torch.ones(U, dtype=torch.bool))
            losses.total(terms, {}).backward()

    unmoved = [n for n, p in trained.named_parameters() if p.grad is None or not p.grad.any()]
    keys_have_no_gradient_of_their_bias = {n for n in unmoved if n.endswith("qkv.bias")}
    assert set(unmoved) <= keys_have_no_gradient_of_their_bias
    assert {n for n, _ in trained.named_parameters()} <= set(trained.state_dict())


def test_a_label_that_was_shown_is_not_scored(make_neds: MakeNeds) -> None:
    """Published: all trials' labels are scored, those in the input as well, and divided by T times too many trials."""
    model, batch = make_neds(PUBLISHED, (U,), SPECS), a_batch()
    hidden = torch.zeros(B, T, M, dtype=torch.bool)
    hidden[[1, 3], :, 2] = True

    out = model(batch, hidden)
    found = mean_loss(out, batch, hidden, torch.ones(U, dtype=torch.bool))

    label = batch.classes["choice"][:, 0]
    expected = functional.cross_entropy(out["choice"][[1, 3], 0], label[[1, 3]])
    assert set(found) == {"choice"}
    torch.testing.assert_close(found["choice"], expected)


def test_minus_one_is_a_value(make_neds: MakeNeds) -> None:
    """Published: targets of exactly -1 count as padding, which its own scaling to -1..1 reaches. Here only NaN does."""
    batch = replace(a_batch(), traces={"wheel_speed": torch.full((B, T), -1.0)})
    hidden = torch.zeros(B, T, M, dtype=torch.bool)
    hidden[..., 1] = True
    out = make_neds(PUBLISHED, (U,), SPECS)(batch, hidden)

    found = mean_loss(out, batch, hidden, torch.ones(U, dtype=torch.bool))

    torch.testing.assert_close(found["wheel_speed"], ((out["wheel_speed"] + 1) ** 2).mean())


def test_units_of_another_session_do_not_enter(make_neds: MakeNeds) -> None:
    """Published: every session is padded to the most units of any, and the padding goes through the tokenizer as -1."""
    alone = make_neds(PUBLISHED, (U,), SPECS)
    beside = NEDS(PUBLISHED, (U, 40), SPECS).eval()
    state = beside.state_dict()
    for name, value in alone.state_dict().items():
        state[name] = torch.cat([value, state[name][1:]]) if name == "session" else value
    beside.load_state_dict(state)

    ours, theirs = alone(a_batch(), hidden_by_trial()), beside(a_batch(), hidden_by_trial())

    assert ours["spikes"].shape == (B, T, U)
    assert all(torch.equal(ours[name], theirs[name]) for name in MODALITIES)


def test_a_session_with_missing_behaviour_is_kept(session: Session) -> None:
    """Published: one trial without a behaviour makes the whole session be skipped. Here its tokens are hidden."""
    values = session.values | {
        "choice": session.values["choice"].copy(),
        "wheel_speed": session.values["wheel_speed"].copy(),
    }
    values["choice"][:25] = -1
    values["wheel_speed"][25:50] = np.nan
    part = replace(sessions.split(replace(session, values=values)).train, segments=session.segments[:4])
    windows = Windows(part, SPECS, scalers.fit(part, SPECS, 0.5))
    batch, defined = windows.cut([(0, 25), (25, 50), (50, 75)], clocked=False)

    assert not defined[0, :, 2].any()
    assert not defined[1, :, 1].any()
    assert defined[:, :, 0].any(1).all()
    assert defined[2].any(0).all()
    assert batch.valid.any(1).all()


def test_every_trial_is_evaluated(model: NEDS) -> None:
    """Published: evaluation runs after the loop over batches, on the last of them alone."""
    rng = np.random.default_rng(0)
    n = 2 * offline.SPANS_AT_ONCE + 3
    counts = rng.integers(0, 4, (n * T, U))
    valid, clock = np.ones(n * T, bool), np.full(n * T, -1)
    spans = [(i * T, (i + 1) * T) for i in range(n)]

    decoded = offline.decode(model, counts, valid, clock, spans)

    for i in (0, 1, offline.SPANS_AT_ONCE, n - 1):
        alone = offline.decode(model, counts, valid, clock, [spans[i]])
        for name, value in alone.items():
            np.testing.assert_allclose(decoded[name][i * T : (i + 1) * T], value, atol=1e-5, rtol=1e-5)


def test_one_long_span_does_not_make_the_others_as_long(model: NEDS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is padded to the longest beside it: an hour among 31 snippets took 32 times its memory. Values stay."""
    rng = np.random.default_rng(0)
    lengths = [3, 2, 2 * T, 1, 5, T, T]
    stops = np.cumsum(lengths)
    spans = [(int(stop) - n, int(stop)) for stop, n in zip(stops, lengths, strict=True)]
    counts, valid, clock = rng.integers(0, 4, (stops[-1], U)), np.ones(stops[-1], bool), np.full(stops[-1], -1)
    at_once = offline.decode(model, counts, valid, clock, spans)

    floats = model.config.width * (1 + len(model.specs))
    monkeypatch.setattr(offline, "FLOATS_AT_ONCE", 2 * T * floats)
    groups = list(offline.grouped(model, spans))
    assert [span for group in groups for span in group] == spans
    assert [[stop - start for start, stop in group] for group in groups] == [[3, 2], [2 * T], [1, 5], [T, T]]
    few = offline.decode(model, counts, valid, clock, spans)
    for name, value in at_once.items():
        np.testing.assert_allclose(few[name], value, atol=1e-5, rtol=1e-5)
