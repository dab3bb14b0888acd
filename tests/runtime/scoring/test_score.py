"""Scores are of what an actor had in hand, and no score is given where it would be no evidence."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, strategies as st

from neds_core.checkpoint import Checkpoint
from neds_core.data.session import BehaviourSpec, Session
from neds_core.scores import r2 as scores, spread
from runtime.core.engine import DECODERS
from runtime.core.run_log import RunLog
from runtime.core.values import Layout
from runtime.engines import create as engines
from runtime.engines.layout import layout
from runtime.engines.stream import StreamEngine
from runtime.live import offline as replayed
from runtime.scoring import report, score as scoring, truth as truths
from runtime.scoring.points import score_points
from runtime.scoring.score import exactness, held, score_class, score_trace
from runtime.scoring.seeds import SeedScores, pool
from runtime.scoring.truth import Truth

BIN = 20_000_000
SPEED = BehaviourSpec("wheel_speed", "continuous", "rad/s")
STAGE = BehaviourSpec("stage", "class", classes=("left", "none", "right"))
EVEN = np.full(3, 1 / 3)


# --- held values ---


def test_the_last_value_in_time_is_held_within_its_segment() -> None:
    values = np.arange(1.0, 8.0)[:, None]
    in_time = np.array([False, True, False, True, False, False, True])
    start = np.array([True, False, False, False, False, True, False])
    np.testing.assert_array_equal(held(values, in_time, start)[:, 0], [np.nan, 2, 2, 4, 4, np.nan, 7])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_a_held_value_is_never_newer_than_its_token(rows: list[tuple[bool, bool]]) -> None:
    in_time, start = (np.array(column) for column in zip(*rows, strict=True))
    found = held(np.arange(len(rows), dtype=float)[:, None], in_time, start)[:, 0]
    for t, value in enumerate(found):
        since = [k for k in range(t + 1) if start[k]][-1:] or [0]
        known = [k for k in range(since[0], t + 1) if in_time[k]]
        assert value == known[-1] if known else np.isnan(value)


# --- traces ---


def decoders(value: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value.copy() for name in ("published", "neds", "ridge", "blend")}


def test_a_token_without_a_value_scores_as_the_mean() -> None:
    """The trial average would lend it the time in the trial."""
    rng = np.random.default_rng(0)
    y, trial = rng.normal(size=100), np.arange(100) // 10
    value, average = y + rng.normal(0, 0.3, 100), np.sin(np.arange(100.0))
    said = decoders(value)
    said["published"][:30] = np.nan
    target = y.copy()
    target[50:60] = np.nan  # not measured: not scored

    row = score_trace(SPEED, target, said, trial, average, -0.4, BIN)

    known = np.isfinite(target)
    with_mean = np.r_[np.full(30, -0.4), value[30:]]
    assert row["n"] == 90
    assert row["r2"] == pytest.approx(scores.r2(y[known], with_mean[known]))
    assert row["neds_r2"] == pytest.approx(scores.r2(y[known], value[known]))
    assert row["r2_about_mean_trial"] == pytest.approx(scores.r2(y[known], with_mean[known], average[known]))
    assert row["mean_r2"] == pytest.approx(scores.r2(y[known], average[known]))
    assert row["neds_minus_ridge"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert row["ci95"][0] <= row["r2"] <= row["ci95"][1]
    assert row["unit"] == "rad/s"


def test_a_trial_average_is_the_stricter_reference() -> None:
    rng = np.random.default_rng(1)
    average = np.tile(np.sin(np.arange(20.0)), 10)
    y = average + rng.normal(0, 0.1, 200)
    row = score_trace(SPEED, y, decoders(average.copy()), np.arange(200) // 20, average, 0.0, BIN)
    assert row["r2"] > 0.9
    assert row["r2_about_mean_trial"] == pytest.approx(0.0)


def test_without_measured_behaviour_there_is_no_score() -> None:
    nothing = np.full(20, np.nan)
    row = score_trace(SPEED, nothing, decoders(np.zeros(20)), np.zeros(20), np.zeros(20), 0.0, BIN)
    assert row == {"r2": None, "n": 0, "null_reason": "no measured behaviour was received"}


@given(n=st.integers(0, 60), known=st.integers(0, 60), flat=st.booleans())
def test_few_measured_bins_are_scored_or_say_why(n: int, known: int, flat: bool) -> None:
    """A stream at 1 Hz, or a camera that died: no length of it breaks the summary."""
    rng = np.random.default_rng(n)
    target = np.where(np.arange(n) < known, 1.0 if flat else rng.normal(size=n), np.nan)
    row = score_trace(SPEED, target, decoders(rng.normal(size=n)), np.arange(n) // 5, np.zeros(n), 0.0, BIN)
    n_known = min(n, known)
    if n_known == 0:
        assert row["null_reason"] == "no measured behaviour was received"
    elif n_known < 25:
        assert row["null_reason"] == f"too few measured bins ({n_known}, at least 25 are needed)"
    elif flat:
        assert row["null_reason"] == "the measured behaviour did not vary"
    else:
        assert np.isfinite(row["r2"])


def test_a_decoder_that_trails_has_a_lag() -> None:
    y = np.random.default_rng(0).normal(size=400)
    row = score_trace(SPEED, y, decoders(np.roll(y, 3)), np.zeros(400), np.zeros(400), 0.0, BIN)
    assert row["peak_lag_ms"] == 60.0


# --- classes ---


def probs(*rows: tuple[float, float, float]) -> dict[str, np.ndarray]:
    return decoders(np.array(rows))


def test_inferred_labels_are_never_scored() -> None:
    spec = msgspec.structs.replace(STAGE, labels="inferred", labels_note="from these very neurons")
    row = score_class(spec, np.array([0, 1, 2]), probs((1, 0, 0), (0, 1, 0), (0, 0, 1)), EVEN)
    assert row["balanced_accuracy"] is None
    assert row["null_reason"] == "from these very neurons"
    assert "contrasts" not in row
    assert score_class(msgspec.structs.replace(STAGE, labels="inferred"), np.array([0]), probs((1, 0, 0)), EVEN)[
        "null_reason"
    ]


def test_a_class_is_judged_against_its_prior_and_unknown_labels_are_left_out() -> None:
    """The frequent class does not win by being frequent; a trial without label or value is no trial."""
    prior = np.array([0.6, 0.2, 0.2])
    said = probs((0.5, 0.3, 0.2), (0.9, 0.05, 0.05), (0.1, 0.8, 0.1), (np.nan, np.nan, np.nan))
    row = score_class(STAGE, np.array([1, 0, -1, 2]), said, prior)
    assert (row["balanced_accuracy"], row["n"], row["chance"]) == (1.0, 2, 1 / 3)
    assert row["logistic_balanced_accuracy"] == 1.0  # every decoder's probabilities hold the prior alike


def test_no_labels_no_score() -> None:
    row = score_class(STAGE, np.array([-1, -1]), probs((1, 0, 0), (1, 0, 0)), EVEN)
    assert (row["balanced_accuracy"], row["null_reason"]) == (None, "no labels were received")
    row = score_class(STAGE, np.array([-1, -1]), probs((1, 0, 0), (1, 0, 0)), EVEN, "'Left'")
    assert row["null_reason"] == f"label 'Left' is no class; send {', '.join(map(repr, STAGE.classes))}"


def test_a_declared_contrast_gives_two_class_rows_only() -> None:
    """Two- and three-class accuracies never stand side by side."""
    pairs = {"left or right": (("left",), ("right",)), "turn or not": (("none",), ("left", "right"))}
    spec = msgspec.structs.replace(STAGE, contrasts=pairs)
    label = np.array([0, 1, 2, 2])
    said = probs((0.5, 0.4, 0.1), (0.2, 0.6, 0.2), (0.1, 0.5, 0.4), (0.3, 0.5, 0.2))

    row = score_class(spec, label, said, np.array([0.25, 0.5, 0.25]))

    assert (row["balanced_accuracy"], row["chance"]) == (None, None)
    turn, side = row["contrasts"]["turn or not"], row["contrasts"]["left or right"]
    assert (side["n"], side["chance"], side["balanced_accuracy"]) == (3, 0.5, (1 + 1 / 2) / 2)
    assert (turn["n"], turn["balanced_accuracy"]) == (4, (1 + 1 / 3) / 2)  # 0.5 / 0.5 is no more than 0.5 / 0.5


def test_a_side_that_was_not_said_is_wrong_for_its_decoder_alone() -> None:
    """NEDS has no value of a trial on the left, where the left is what comes first; the others do."""
    spec = msgspec.structs.replace(STAGE, contrasts={"left or right": (("left",), ("right",))})
    said = probs((0.8, 0.1, 0.1), (0.8, 0.1, 0.1), (0.1, 0.1, 0.8))
    said = said | {"neds": np.where(np.arange(3)[:, None] == 1, np.nan, said["neds"])}

    row = score_class(spec, np.array([0, 0, 2]), said, EVEN)["contrasts"]["left or right"]

    assert (row["n"], row["balanced_accuracy"], row["neds_balanced_accuracy"]) == (3, 1.0, (0.5 + 1.0) / 2)


def test_one_class_alone_has_no_accuracy() -> None:
    """A decoder that always says left would be perfect."""
    row = score_class(STAGE, np.array([0, 0, -1]), probs((1, 0, 0), (0, 1, 0), (0, 0, 1)), EVEN)
    assert (row["balanced_accuracy"], row["n"]) == (None, 2)
    assert row["null_reason"] == "every scored trial is 'left'"
    pairs = {"left or right": (("left",), ("right",)), "turn or not": (("none",), ("left", "right"))}
    spec = msgspec.structs.replace(STAGE, contrasts=pairs)
    row = score_class(spec, np.array([1, 1]), probs((1, 0, 0), (0, 1, 0)), EVEN)
    assert row["contrasts"]["left or right"]["null_reason"] == "no trial is of these classes"
    assert row["contrasts"]["turn or not"]["null_reason"] == "every scored trial is 'none'"


# --- points, exactness ---


def test_the_error_of_a_point_is_a_distance() -> None:
    specs = tuple(BehaviourSpec(f"position_{a}", "continuous", "px", group="position") for a in "xy")
    plan = Layout(specs, {"position_x": slice(0, 1), "position_y": slice(1, 2)}, np.ones(2), np.zeros(2))
    x = np.r_[np.zeros(100), np.arange(1.0, 101.0)]  # 50 px/s in the second half
    x[20] = 1.0  # a pixel of jitter is no movement
    said = {"published": np.stack([x + 3, np.full(200, 4.0)], 1), "ridge": np.full((200, 2), np.nan)}
    target = Truth({"position_x": x, "position_y": np.r_[np.zeros(199), np.nan]}, {})

    row = score_points(plan, said, target, np.arange(200) // 20, BIN)["position"]

    assert row == {
        "unit": "px", "n_all": 199, "published_median_error_all": 5.0, "ridge_median_error_all": None,
        "n_moving": 74, "published_median_error_moving": 5.0, "ridge_median_error_moving": None,
        "published_ci95_all": [5.0, 5.0], "ridge_ci95_all": None,
        "published_ci95_moving": None, "ridge_ci95_moving": None,  # of four trials
    }  # fmt: skip
    assert score_points(plan, said, Truth({"position_x": x}, {}), np.arange(200) // 20, BIN) == {}


SIDES = tuple(BehaviourSpec(f"heading_{s}", "continuous", group="heading", angle=s) for s in ("sin", "cos"))


def pair(degrees: np.ndarray, radius: float = 1.0) -> np.ndarray:
    """(n, 2) sine and cosine, as `SIDES`."""
    return radius * np.stack([np.sin(np.radians(degrees)), np.cos(np.radians(degrees))], 1)


def test_the_error_of_an_angle_is_in_degrees() -> None:
    """Across 360, whatever the length of what was said; beside the ridge, paired, and while turning."""
    plan = Layout(SIDES, {"heading_sin": slice(0, 1), "heading_cos": slice(1, 2)}, np.ones(2), np.zeros(2))
    angle = np.r_[np.full(200, 359.0), 359.0 + 1.2 * np.arange(400)]  # 60 degrees/s from bin 200 on
    target = Truth(dict(zip(("heading_sin", "heading_cos"), pair(angle).T, strict=True)), {})
    said = {"published": pair(angle + 4, 0.3), "neds": pair(angle + 4, 0.3), "ridge": pair(angle - 10, 2.0)}
    said["ridge"][:2] = np.nan

    row = score_points(plan, said, target, np.arange(600) // 50, BIN)["heading"]

    assert (row["unit"], row["n_all"], row["n_moving"]) == ("deg", 600, 379)
    # 1e-6 degrees: arctan2 of float64
    for part in ("all", "moving"):
        assert row[f"neds_median_error_{part}"] == pytest.approx(4.0, abs=1e-6)
        assert row[f"ridge_ci95_{part}"] == pytest.approx([10.0, 10.0], abs=1e-6)
        assert list(row[f"neds_minus_ridge_{part}"].values()) == pytest.approx([-6.0, -6.0, -6.0], abs=1e-6)
    line = report._other("heading", row, unbroken=True)
    assert "median error, all: 4.0 [4.0, 4.0] deg, neds 4.0, ridge 10.0, blend -, n 600" in line[0]
    assert line[1].strip() == "neds minus ridge -6.0 [-6.0, -6.0] deg"


def test_half_an_angle_is_no_angle() -> None:
    """A decoder of the cosine alone has its R2, and no error in degrees."""
    plan = Layout(SIDES[1:], {"heading_cos": slice(0, 1)}, np.ones(1), np.zeros(1))
    cos = pair(np.arange(200.0))[:, 1:]
    assert (
        score_points(plan, {"published": cos}, Truth({"heading_cos": cos[:, 0]}, {}), np.arange(200) // 20, BIN) == {}
    )


def test_exactness_is_in_z_scores_and_over_valid_tokens() -> None:
    plan = Layout((), {}, np.array([4.0, 1.0], np.float32), np.zeros(2, np.float32))
    offline = np.zeros((3, 2))
    streamed = np.array([[2.0, 0.1], [100.0, 100.0], [0.0, np.nan]])
    assert exactness(plan, streamed, offline, np.array([True, False, True])) == 0.5
    assert exactness(plan, streamed, offline, np.zeros(3, bool)) is None


# --- a whole run ---


@pytest.fixture(scope="module")
def run(tiny_checkpoint: Checkpoint, session: Session) -> tuple[RunLog, np.ndarray, Truth, dict[str, np.ndarray]]:
    """Eight trials through the pipeline: log, scored rows, truth, and what each decoder says offline."""
    part = replace(session, segments=session.segments[-8:], segment_ids=session.segment_ids[-8:])
    log = replayed.stream(tiny_checkpoint, part, "neds")
    rows = log.decoded_rows()
    return log, rows, truths.recorded(part, log, rows), scoring.all_decoders(tiny_checkpoint, log, rows)


def test_a_run_without_a_miss_scores_like_its_offline_twin(
    run: tuple[RunLog, np.ndarray, Truth, dict[str, np.ndarray]], tiny_checkpoint: Checkpoint
) -> None:
    log, rows, truth, found = run
    plan = layout(tiny_checkpoint)
    outputs, scored = scoring.score(tiny_checkpoint, plan, log, rows, found, truth)
    wheel, choice = outputs["wheel_speed"], outputs["choice"]
    known = np.isfinite(truth.traces["wheel_speed"]) | (truth.labels["choice"] >= 0)
    assert scored == known.sum()
    assert wheel["r2"] == pytest.approx(wheel["neds_r2"], rel=1e-5)  # streamed and offline differ by rounding
    assert set(found) == set(DECODERS)
    assert choice["n"] == (truth.labels["choice"].reshape(8, -1)[:, -1] >= 0).sum()
    exact = exactness(plan, log.values[rows], found["neds"], log.valid[rows])
    assert exact is not None
    assert exact < 1e-5  # float32 sums in another order


def test_a_recommendation_is_scored_as_what_it_is(
    judged_checkpoint: Checkpoint, short: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was published is the recommended decoder of each output; every network computes its offline values once."""
    log = replayed.stream(judged_checkpoint, short, "recommended")
    rows, ran, offline = log.decoded_rows(), [], StreamEngine.offline
    monkeypatch.setattr(StreamEngine, "offline", lambda self, *told: ran.append(self) or offline(self, *told))

    found = scoring.score_log(judged_checkpoint, log, rows, truths.recorded(short, log, rows))

    assert log.header.decoder == "recommended"
    assert len(ran) == 3
    np.testing.assert_array_equal(found.found["recommended"][:, :1], found.found["blend"][:, :1])
    np.testing.assert_array_equal(found.found["recommended"][:, 1:], found.found["ridge"][:, 1:])
    told = log.counts[rows], log.valid[rows], log.clock[rows], log.reset[rows]
    for name in (*DECODERS, "recommended"):
        twin = engines.create(judged_checkpoint, name).offline(*told)
        np.testing.assert_array_equal(found.found[name], twin, err_msg=name)
    assert found.exact is not None
    assert found.exact < 1e-5  # float32 sums in another order


@pytest.mark.parametrize("decoder", ["neds", "ridge", "recommended"])
def test_the_sd_of_a_run_is_as_fitted(judged_checkpoint: Checkpoint, short: Session, decoder: str) -> None:
    """By the spread of the networks' values at each bin; exactness is of it too, and its intervals are scored."""
    log = replayed.stream(judged_checkpoint, short, decoder)
    rows, which = log.decoded_rows(), "blend" if decoder == "recommended" else decoder
    told = log.counts[rows], log.valid[rows], log.clock[rows], log.reset[rows]
    each = np.stack([engines.network(judged_checkpoint.alone(m)).offline(*told)[:, 0] for m in range(3)])
    fitted = engines.calibrated(judged_checkpoint, which, "wheel_speed")
    assert fitted is not None
    measured = truths.recorded(short, log, rows)

    found = scoring.score_log(judged_checkpoint, log, rows, measured)

    assert (fitted.slope > 0.0) == (decoder != "ridge")
    expected = np.sqrt(fitted.floor**2 + fitted.slope**2 * each.var(0, ddof=1))
    np.testing.assert_allclose(log.sd[rows, 0], expected, rtol=1e-5)
    assert np.isnan(log.sd[rows, 1:]).all()
    assert found.exact is not None
    assert found.exact < 1e-5  # float32 sums in another order
    known = np.isfinite(measured.traces["wheel_speed"])
    error = np.abs(measured.traces["wheel_speed"] - log.values[rows, 0])[known]
    assert found.outputs["wheel_speed"]["sd"] == {
        "covers": {k: pytest.approx((error <= z * expected[known]).mean()) for k, z in spread.LEVELS.items()},
        "constant_covers": {k: pytest.approx((error <= z * fitted.constant).mean()) for k, z in spread.LEVELS.items()},
        "n": known.sum(),
    }
    log.sd[rows[3], 0] += judged_checkpoint.header.sd["wheel_speed"]
    assert scoring.score_log(judged_checkpoint, log, rows, measured).exact == pytest.approx(1.0, abs=1e-4)


def test_what_is_withheld_has_no_sd(judged_checkpoint: Checkpoint, short: Session, tiny_checkpoint: Checkpoint) -> None:
    """Nor has a decoder of which none is known."""
    bad = replace(short, valid=short.valid & (np.arange(short.n_bins) != 10))
    log = replayed.stream(judged_checkpoint, bad, "neds")
    np.testing.assert_array_equal(np.isnan(log.sd[:, 0]), np.isnan(log.values[:, 0]))
    assert np.isfinite(log.sd[log.decoded_rows(), 0]).any()
    assert np.isnan(replayed.stream(tiny_checkpoint, short, "neds").sd).all()


def test_a_lead_is_scored_against_the_behaviour_so_much_later(ahead_checkpoint: Checkpoint, short: Session) -> None:
    """As it was received and as the recording has it: in the same segment, else not at all."""
    log = replayed.stream(ahead_checkpoint, short, "ridge")
    rows, n = log.decoded_rows(), 3
    plain = short.values["wheel_speed"][short.bins()].astype(float).reshape(3, -1)
    for t_ns, value in zip(log.t_end_ns[rows], plain.ravel(), strict=True):
        log.measured("wheel_speed", int(t_ns), float(value))
    usable = np.where(short.valid[short.bins()].reshape(3, -1), plain, np.nan)
    for measured, later in ((truths.received(log, rows), plain), (truths.recorded(short, log, rows), usable)):
        expected = np.full(plain.shape, np.nan)
        expected[:, :-n] = later[:, n:]
        np.testing.assert_array_equal(measured.traces["wheel_speed"], expected.ravel())

        found = scoring.score_log(ahead_checkpoint, log, rows, measured).outputs["wheel_speed"]

        y, value = expected.ravel(), log.values[rows, 0].astype(float)
        known = np.isfinite(y)
        value = np.where(np.isfinite(value), value, ahead_checkpoint.header.mean["wheel_speed"])[known]
        assert (found["lead_ms"], found["n"]) == (60.0, known.sum())
        assert found["r2"] == pytest.approx(scores.r2(y[known], value))
        assert found["ridge_r2"] == pytest.approx(found["r2"], abs=1e-5)


def test_every_decoder_is_held_through_the_same_misses(
    run: tuple[RunLog, np.ndarray, Truth, dict[str, np.ndarray]], tiny_checkpoint: Checkpoint
) -> None:
    """A token that came too late costs NEDS, ridge and blend alike."""
    log, rows, truth, found = run
    late = log.in_time.copy()
    log.in_time[rows[3::2]] = False
    outputs, _ = scoring.score(tiny_checkpoint, layout(tiny_checkpoint), log, rows, found, truth)
    log.in_time[:] = late

    phase = log.clock[rows]
    y, known = truth.traces["wheel_speed"], np.isfinite(truth.traces["wheel_speed"])
    in_time = np.ones(len(rows), bool)
    in_time[3::2] = False
    for key, name in (("neds_r2", "neds"), ("ridge_r2", "ridge"), ("blend_r2", "blend")):
        value = held(found[name][:, :1].astype(float), in_time, phase == 0)[:, 0]
        value = np.where(np.isfinite(value), value, tiny_checkpoint.header.mean["wheel_speed"])
        assert outputs["wheel_speed"][key] == pytest.approx(scores.r2(y[known], value[known]), abs=1e-6)


def test_one_output_fails_alone(
    run: tuple[RunLog, np.ndarray, Truth, dict[str, np.ndarray]], tiny_checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    log, rows, truth, found = run

    def broken(*given: object) -> dict[str, object]:
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(scoring, "score_trace", broken)
    outputs, _ = scoring.score(tiny_checkpoint, layout(tiny_checkpoint), log, rows, found, truth)
    assert outputs["wheel_speed"]["null_reason"] == "its score failed (operands could not be broadcast together)"
    assert outputs["choice"]["balanced_accuracy"] is not None


def test_the_trial_average_is_by_phase_and_the_mean_outside(tiny_checkpoint: Checkpoint) -> None:
    average = tiny_checkpoint.scalers.trial_mean["wheel_speed"]
    mean = tiny_checkpoint.header.mean["wheel_speed"]
    found = scoring.trial_average(tiny_checkpoint, "wheel_speed", np.array([-1, 0, 3, 10_000]))
    np.testing.assert_allclose(found, [mean, average[0], average[3], average[-1]], rtol=1e-6)


def test_seeds_are_pooled_beside_one_ridge(
    run: tuple[RunLog, np.ndarray, Truth, dict[str, np.ndarray]], tiny_checkpoint: Checkpoint
) -> None:
    log, rows, truth, found = run
    outputs, _ = scoring.score(tiny_checkpoint, layout(tiny_checkpoint), log, rows, found, truth)
    seed = SeedScores(tiny_checkpoint, found, truth, log.segment[rows], outputs, 1e-6)
    worse = replace(seed, found=found | {"neds": -found["neds"]}, exact=3e-6)

    pooled = pool([seed, worse])

    row = pooled["traces"]["wheel_speed"]
    assert row["neds"][0] == pytest.approx(outputs["wheel_speed"]["neds_r2"])
    known = np.isfinite(truth.traces["wheel_speed"])
    y = truth.traces["wheel_speed"][known]
    assert row["neds"][1] == pytest.approx(scores.r2(y, -found["neds"][known, 0].astype(float)))
    assert row["ridge"] == pytest.approx(outputs["wheel_speed"]["ridge_r2"])
    assert row["neds_minus_ridge"]["value"] == pytest.approx(np.mean(row["neds"]) - row["ridge"])
    assert row["neds_minus_ridge"]["low"] <= row["neds_minus_ridge"]["value"] <= row["neds_minus_ridge"]["high"]
    assert pooled["other"]["choice"] == [outputs["choice"]] * 2
    assert pooled["streamed_vs_offline_max_abs"] == 3e-6
    assert set(seed.scalars()["wheel_speed"]) >= {"r2", "neds_r2", "ridge_r2", "n"}
