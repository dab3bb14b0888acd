"""The loss reads what is asked, and nothing else."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional

from neds_core.data.session import BehaviourSpec
from neds_core.model.model import Batch
from neds_core.train import losses

SPECS = (
    BehaviourSpec("wheel_speed", "continuous"),
    BehaviourSpec("choice", "class", classes=("left", "right", "no_go")),
)
B, T, U = 2, 5, 3
KEPT = torch.tensor([True, False, True])


def outputs_and_targets(seed: int) -> tuple[dict[str, torch.Tensor], Batch]:
    """Random outputs of a model, and a batch of targets."""
    rng = torch.Generator().manual_seed(seed)
    out = {
        "spikes": torch.randn(B, T, U, generator=rng),
        "wheel_speed": torch.randn(B, T, generator=rng),
        "choice": torch.randn(B, T, 3, generator=rng),
    }
    batch = Batch(
        counts=torch.randint(0, 5, (B, T, U), generator=rng).float(),
        valid=torch.ones(B, T, dtype=torch.bool),
        traces={"wheel_speed": torch.randn(B, T, generator=rng)},
        classes={"choice": torch.randint(0, 3, (B, T), generator=rng)},
        clock=torch.full((B, T), -1),
    )
    return out, batch


def mean_loss(
    out: dict[str, torch.Tensor], batch: Batch, asked: torch.Tensor, kept: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Each term's mean over its targets, as training adds them up."""
    n = losses.targets(asked, SPECS, kept)
    return {name: term / n[name] for name, term in losses.sums(out, batch, asked, SPECS, kept).items()}


@given(seed=st.integers(0, 2**31), asked=arrays(bool, (B, T, 3)))
def test_the_loss_reads_every_asked_token_and_no_other(seed: int, asked: np.ndarray) -> None:
    """A target changed outside what is asked leaves each term's bits; one changed inside moves its own term."""
    out, batch = outputs_and_targets(seed)
    ask = torch.from_numpy(asked)

    def terms() -> dict[str, torch.Tensor]:
        return mean_loss(out, batch, ask, KEPT)

    before = terms()
    assert set(before) == {n for m, n in enumerate(("spikes", "wheel_speed", "choice")) if asked[..., m].any()}
    for m, (name, target) in enumerate(
        (("spikes", batch.counts), ("wheel_speed", batch.traces["wheel_speed"]), ("choice", batch.classes["choice"]))
    ):
        kept = target.clone()
        target[~ask[..., m]] = -1 if name == "choice" else torch.nan  # -1: undefined; cross_entropy would refuse it
        assert all(torch.equal(value, before[n]) for n, value in terms().items())
        target.copy_(kept)
        for b, t in np.argwhere(asked[..., m]):
            target[b, t] = (target[b, t] + 1) % 3 if name == "choice" else target[b, t] + 1
            after = terms()
            assert after[name] != before[name]
            assert all(torch.equal(after[n], before[n]) for n in before if n != name)
            target.copy_(kept)


def test_the_loss_leaves_filtered_units_out() -> None:
    """Their counts and their log-rates."""
    out, batch = outputs_and_targets(0)
    ask = torch.ones(B, T, 3, dtype=torch.bool)
    before = mean_loss(out, batch, ask, KEPT)["spikes"]
    batch.counts[..., 1] += 5
    out["spikes"][..., 1] -= 2

    assert torch.equal(mean_loss(out, batch, ask, KEPT)["spikes"], before)


def test_each_term_is_torchs_own() -> None:
    """Poisson of log-rates, squared error, cross-entropy, each a mean over asked tokens; their sum is weighted."""
    out, batch = outputs_and_targets(1)
    ask = torch.rand(B, T, 3, generator=torch.Generator().manual_seed(2)) < 0.6
    spikes, wheel, choice = ask.unbind(-1)
    poisson = torch.nn.PoissonNLLLoss(log_input=True, full=False)
    expected = {
        "spikes": poisson(out["spikes"][spikes][:, KEPT], batch.counts[spikes][:, KEPT]),
        "wheel_speed": ((out["wheel_speed"][wheel] - batch.traces["wheel_speed"][wheel]) ** 2).mean(),
        "choice": functional.nll_loss(out["choice"][choice].log_softmax(-1), batch.classes["choice"][choice]),
    }

    terms = mean_loss(out, batch, ask, KEPT)

    torch.testing.assert_close(terms, expected)
    total = 2.0 * expected["spikes"] + expected["wheel_speed"]
    torch.testing.assert_close(losses.total(terms, {"spikes": 2.0, "choice": 0.0}), total)
