"""Which decoder is recommended, and the evidence that a checkpoint keeps of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from neds_core import checkpoint as files, ensemble
from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Judged, Verdict
from neds_core.data.session import BehaviourSpec
from neds_core.errors import CheckpointError
from neds_core.scores import judging, r2 as scores

S, N = 30, 25  # segments, bins of each


def told(right: float, n: int = S, seed: int = 0, ridge: float = 0.8) -> Judged:
    """Evidence of one network whose choice is right in a share `right` of the trials, and its trace off by 1 - right.

    The ridge is right in a share `ridge`; every tenth label and trace bin is not known.
    """
    same, own = np.random.default_rng(7), np.random.default_rng(100 + seed)
    segment = np.repeat(np.arange(n), N)
    trace, label = same.normal(size=n * N), np.arange(n) % 2

    def noisy(share: float, rng: np.random.Generator) -> np.ndarray:
        return (trace + 2 * (1 - share) * rng.normal(size=n * N)).astype(np.float32)

    def probs(share: float, rng: np.random.Generator) -> np.ndarray:
        hit = rng.permutation(n) < share * n
        return np.where((label == hit)[:, None], (0.3, 0.7), (0.7, 0.3)).astype(np.float32)

    known, labelled = np.where(np.arange(n * N) % 10 == 3, np.nan, trace), np.where(np.arange(n) % 10 == 3, -1, label)
    return Judged(
        segment,
        {"wheel_speed": known.astype(np.float32), "choice": labelled.astype(np.float32)},
        {"wheel_speed": noisy(right, own)[None], "choice": probs(right, own)[None]},
        {"wheel_speed": noisy(ridge, same), "choice": probs(ridge, same)},
    )


@pytest.fixture(scope="module")
def judged(make_checkpoint: Callable[..., Checkpoint]) -> Callable[..., Checkpoint]:
    """A checkpoint with that evidence, judged; share: of NEDS in its blend."""
    each = [make_checkpoint(seed=seed) for seed in range(3)]

    def build(
        evidence: Judged, share: float = 1.0, specs: tuple[BehaviourSpec, ...] = each[0].specs, seed: int = 0
    ) -> Checkpoint:
        made = each[seed]
        prior = {"choice": [1 / len(specs[1].classes)] * len(specs[1].classes)}
        header = msgspec.structs.replace(made.header, blend=dict.fromkeys(made.header.blend, share), specs=specs)
        header = msgspec.structs.replace(header, prior=prior)
        return judging.decide(replace(made, header=header, judged=evidence))

    return build


def verdict(made: Checkpoint, name: str = "wheel_speed") -> Verdict:
    return made.header.verdicts[name]


@pytest.mark.parametrize(
    ("right", "recommended", "why"),
    [(0.98, "neds", "NEDS gains +"), (0.5, "ridge", "neither NEDS nor the blend is better")],
)
def test_ridge_stays_unless_another_is_surely_as_good(
    judged: Callable[..., Checkpoint], right: float, recommended: str, why: str
) -> None:
    """Of a trace and of a class."""
    found = judged(told(right, ridge=0.7))

    for name in ("wheel_speed", "choice"):
        assert verdict(found, name).recommended == recommended
        assert verdict(found, name).reason.startswith(why)


def test_ridge_stays_where_trials_are_few(judged: Callable[..., Checkpoint]) -> None:
    """Four segments of 0.5 s, which are one block of 10 s; of the class three known labels."""
    found = judged(told(0.98, n=4, ridge=0.5))

    for name, n in (("wheel_speed", 1), ("choice", 3)):
        assert verdict(found, name).recommended == "ridge"
        assert verdict(found, name).reason == f"too few trials or blocks to tell ({n})"
        assert verdict(found, name).scores["neds"].low is None


def test_a_gain_that_may_be_a_loss_is_none(judged: Callable[..., Checkpoint]) -> None:
    """27 trials, of which NEDS is right in one or two more: by chance."""
    found = verdict(judged(told(0.85)), "choice")

    assert found.scores["neds"].value > found.scores["ridge"].value
    assert found.recommended == "ridge"
    assert found.reason.endswith("which may be a loss of over 0.02")


def test_the_coordinates_of_a_point_are_recommended_together(judged: Callable[..., Checkpoint]) -> None:
    """One is better by NEDS, the other by the ridge, by less: alone they would be published by two decoders."""
    good, bad = told(0.98, ridge=0.5), told(0.6, ridge=0.7)
    x = judged(good).specs[0]
    both = tuple(msgspec.structs.replace(x, name=name, group=group) for name, group in (("x", "place"), ("y", "place")))

    def at(specs: tuple[BehaviourSpec, ...]) -> dict[str, Verdict]:
        parts = [
            {"x": getattr(good, part)["wheel_speed"], "y": getattr(bad, part)["wheel_speed"]}
            for part in ("target", "neds", "linear")
        ]
        made = judged(good)
        header = msgspec.structs.replace(made.header, specs=specs, blend={"x": 1.0, "y": 1.0}, verdicts={})
        evidence = Judged(good.segment, *parts)
        return judging.decide(replace(made, header=header, judged=evidence)).header.verdicts

    alone = at(tuple(msgspec.structs.replace(spec, group="") for spec in both))
    assert [verdict.recommended for verdict in alone.values()] == ["neds", "ridge"]
    together = at(both)
    assert [verdict.recommended for verdict in together.values()] == ["neds", "neds"]
    assert together["x"].reason == together["y"].reason
    assert together["x"].reason.startswith("NEDS of the whole point gains +")
    assert together["y"].scores == alone["y"].scores


def test_the_blend_is_recommended_where_it_is_best(judged: Callable[..., Checkpoint]) -> None:
    """Two decoders as good as each other, and wrong in different bins."""
    found = verdict(judged(told(0.8), share=0.5))

    assert found.recommended == "blend"
    assert found.reason.startswith("the blend gains +")
    assert found.scores["blend"].value > max(found.scores[name].value for name in ("neds", "ridge"))


def test_inferred_labels_are_not_judged(judged: Callable[..., Checkpoint]) -> None:
    """The ridge is what was there first."""
    specs = judged(told(0.9)).specs
    inferred = msgspec.structs.replace(specs[1], labels="inferred")

    found = verdict(judged(told(0.95), specs=(specs[0], inferred)), "choice")

    assert (found.recommended, found.reason, found.scores) == ("ridge", "not judged: its labels are inferred", {})


def test_a_class_is_judged_by_its_contrasts(judged: Callable[..., Checkpoint]) -> None:
    """The mean of two questions, over the trials of each; one whose second side does not occur is not asked."""
    evidence, specs = told(0.9), judged(told(0.9)).specs
    contrasts = {"side": (("left",), ("right",)), "go": (("left", "right"), ("none",)), "no": (("none",), ("never",))}
    three = msgspec.structs.replace(specs[1], classes=("left", "right", "none", "never"), contrasts=contrasts)
    label = np.arange(S) % 3
    probs = np.full((S, 4), 0.1, np.float32)
    probs[np.arange(S), label] = 0.7
    probs[label == 2] = (0.1, 0.7, 0.1, 0.1)  # never "none"
    evidence = replace(
        evidence,
        target=evidence.target | {"choice": label.astype(np.float32)},
        neds=evidence.neds | {"choice": probs[None]},
        linear=evidence.linear | {"choice": np.full((S, 4), 0.25, np.float32)},
    )

    found = verdict(judged(evidence, specs=(specs[0], three)), "choice")

    assert found.scores["neds"].value == pytest.approx((1.0 + 0.5) / 2)  # all sides, and no "none"
    assert found.scores["ridge"].value == pytest.approx(0.5)


@pytest.mark.parametrize("contrasts", [{}, {"side": (("left",), ("right",))}], ids=["class", "contrast"])
@pytest.mark.parametrize("name", ["neds", "linear"])
def test_a_decoder_that_lacks_a_trial_is_not_judged(
    judged: Callable[..., Checkpoint], contrasts: dict[str, Any], name: str
) -> None:
    """By its other trials it might be the best; as the first class it might be right. Nor is it recommended."""
    evidence, specs = told(0.95), judged(told(0.95)).specs
    labelled = int((evidence.target["choice"] >= 0).sum())
    said = getattr(evidence, name)["choice"].copy()
    said[..., 0, :] = np.nan
    evidence = replace(evidence, **{name: getattr(evidence, name) | {"choice": said}})

    found = verdict(
        judged(evidence, specs=(specs[0], msgspec.structs.replace(specs[1], contrasts=contrasts))), "choice"
    )

    decoder, other = ("neds", "ridge") if name == "neds" else ("ridge", "neds")
    assert found.recommended == other
    assert found.reason == f"not judged: {decoder} has no value of 1 of {labelled} trials there"


@pytest.mark.parametrize("lacks", [("neds",), ("linear",), ("neds", "linear")], ids=["neds", "ridge", "both"])
@pytest.mark.parametrize("grouped", [False, True], ids=["trace", "point"])
def test_a_decoder_without_a_finite_score_is_not_recommended(
    judged: Callable[..., Checkpoint], lacks: tuple[str, ...], grouped: bool
) -> None:
    """Beside one that has it; of a point, in any coordinate."""
    evidence, made = told(0.95), judged(told(0.95))
    specs = [msgspec.structs.replace(made.specs[0], name=name, group="place" if grouped else "") for name in "xy"]
    parts = {part: dict.fromkeys("xy", getattr(evidence, part)["wheel_speed"]) for part in ("target", "neds", "linear")}
    for part in lacks:
        parts[part]["x"] = parts[part]["x"].copy()
        parts[part]["x"][..., 5] = np.nan
    header = msgspec.structs.replace(made.header, specs=tuple(specs), blend={"x": 0.5, "y": 0.5}, verdicts={})

    found = judging.decide(replace(made, header=header, judged=Judged(evidence.segment, **parts)))

    expected = {("neds",): ("ridge", "neds has no"), ("linear",): ("neds", "ridge has no")}
    recommended, who = expected.get(lacks, ("ridge", "no decoder has a"))
    x, y = (verdict(found, name) for name in "xy")
    of = " of the whole point" if grouped else ""
    assert (x.recommended, x.reason, x.scores) == (recommended, f"not judged: {who} finite score{of} there", {})
    assert y == x if grouped else y.measure == "R2"


def joined(judged: Callable[..., Checkpoint], n: int = 3) -> Checkpoint:
    """An ensemble of several such checkpoints, whose networks are wrong in different bins."""
    each = [replace(judged(told(0.75, seed=s), share=0.3 + 0.2 * s, seed=s), sha=f"sha-{s}") for s in range(n)]
    return ensemble.join(each, "all")


def test_an_ensemble_is_judged_by_its_members_mean(judged: Callable[..., Checkpoint]) -> None:
    """And its blend by the mean of theirs."""
    made = joined(judged)
    assert made.judged is not None
    y, each, linear = (made.judged.target, made.judged.neds, made.judged.linear)
    known, ours, theirs = np.isfinite(y["wheel_speed"]), each["wheel_speed"], linear["wheel_speed"]

    found = verdict(made).scores

    assert ours.shape == (3, S * N)
    assert found["neds"].value == pytest.approx(scores.r2(y["wheel_speed"][known], ours.mean(0)[known]))
    blend = np.mean([(0.3 + 0.2 * s) * ours[s] + (0.7 - 0.2 * s) * theirs for s in range(3)], axis=0)
    assert found["blend"].value == pytest.approx(scores.r2(y["wheel_speed"][known], blend[known]), abs=1e-6)
    alone = made.alone(1)
    assert alone.judged is not None
    np.testing.assert_array_equal(alone.judged.neds["wheel_speed"], ours[1:2])
    assert alone.header.verdicts == {}


def test_each_decoder_of_a_trace_has_an_sd(judged: Callable[..., Checkpoint]) -> None:
    """By the spread of the networks beside a floor; one network and the ridge have the floor alone."""
    one, three = judged(told(0.75), share=0.5), joined(judged)
    alone, spread = verdict(one).spread, verdict(three).spread
    assert three.judged is not None
    known = np.isfinite(three.judged.target["wheel_speed"])

    assert set(spread) == set(alone) == {"neds", "ridge", "blend"}
    assert [each.slope for each in alone.values()] == [0.0] * 3
    assert all(each.floor == pytest.approx(each.constant) for each in alone.values())
    assert alone["neds"].floor == pytest.approx(0.5, rel=0.1)  # as `told` makes its errors
    assert (spread["ridge"].slope, spread["ridge"].n) == (0.0, known.sum())
    assert list(spread["neds"].covers.values()) == pytest.approx([0.5, 0.8, 0.95], abs=0.06)
    assert verdict(three, "choice").spread == {}


def test_evidence_is_read_back(judged: Callable[..., Checkpoint], tmp_path: Path) -> None:
    """With the verdicts; a file of before has neither."""
    made = joined(judged, 2)
    files.save(made, tmp_path / "all.safetensors")
    files.save(files.load(tmp_path / "all.safetensors"), tmp_path / "again.safetensors")

    read = files.load(tmp_path / "all.safetensors")

    assert read.judged is not None
    assert made.judged is not None
    assert read.header.verdicts == made.header.verdicts
    assert list(judging.lines(read.header.verdicts)) == list(judging.lines(made.header.verdicts))
    for name, tensor in made.judged.tensors().items():
        np.testing.assert_array_equal(read.judged.tensors()[name], tensor)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "all.safetensors").read_bytes()


def test_a_checkpoint_without_evidence_is_not_judged(judged: Callable[..., Checkpoint]) -> None:
    """Nor is an ensemble that has one."""
    with_, without = judged(told(0.9)), replace(judged(told(0.9, seed=1), seed=1), judged=None, sha="other")
    without = replace(without, header=msgspec.structs.replace(without.header, verdicts={}))

    assert judging.decide(without).header.verdicts == {}
    made = ensemble.join([with_, without], "both")
    assert (made.judged, made.header.verdicts, list(judging.lines(made.header.verdicts))) == (None, {}, [])
    assert judging.outcome(made)[0].startswith("not judged: a network holds nothing of its validation part; train")
    assert judging.outcome(with_) == list(judging.lines(with_.header.verdicts))


def test_evidence_that_does_not_fit_is_refused(judged: Callable[..., Checkpoint], tmp_path: Path) -> None:
    """Of fewer networks, of another part, or a verdict without it."""
    made, path = judged(told(0.9)), tmp_path / "x.safetensors"
    two = replace(made, judged=joined(judged, 2).judged)
    with pytest.raises(CheckpointError, match="what wheel_speed was judged by is incomplete"):
        files.save(two, path)
    with pytest.raises(CheckpointError, match="its verdicts are incomplete"):
        files.save(replace(made, judged=None), path)
    with pytest.raises(CheckpointError, match="judged on different validation parts"):
        ensemble.join([made, replace(judged(told(0.9, n=S - 1)), sha="other")], "both")
