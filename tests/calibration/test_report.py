"""The report of a calibration: what it says of trials, units and probabilities, as JSON, text, page and figures."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, strategies as st

from calibration import command, insight, judge as judges, page, report as reports
from calibration.fitting.fit import Fitted
from calibration.report import Report
from neds_core.checkpoint.judged import Judged
from neds_core.data.parts import Parts
from neds_core.linear import baseline
from neds_core.scores import bootstrap, r2 as scores, reliability
from neds_core.train import loop
from runtime.io.chain import Link

NAMES = ["wheel_speed", "choice"]


@pytest.fixture(scope="module")
def judged(first_day: Fitted) -> judges.Judgement:
    """The planted session, which has a real relation."""
    return command.judge(first_day)


@pytest.fixture(scope="module")
def found(first_day: Fitted, judged: judges.Judgement) -> Report:
    """Its report."""
    return reports.make(first_day, judged, "", 0.0)


def test_the_report_has_all_of_it(found: Report, tmp_path: Path) -> None:
    """As JSON, as text that names each output, and as a page that loads nothing, with its figures beside it."""
    again = msgspec.json.decode(msgspec.json.encode(found), type=Report)
    assert again.passed
    assert 0.0 < again.latency.p50_ms <= again.latency.p99_ms <= again.latency.max_ms
    assert again.report_seconds < again.seconds
    text = "\n".join(reports.lines(again))
    assert "nan" not in text
    wanted = (
        "wheel_speed: ",
        "choice: ",
        "from scratch",
        "p99",
        "calibration error",
        "loses most without",
        "by trials",
    )
    assert all(word in text for word in wanted)

    said = page.write(again, tmp_path / "today.safetensors").read_text(encoding="utf-8")

    assert text.splitlines()[-1] in said
    assert said.count('src="data:image/png;base64,') == 5
    assert not re.search(r'(src|href)="(?!data:)|url\(|\bnan\b', re.sub(r"base64,[^\"]+", "", said))
    for part in (f"Judging part: {found.parts['judge'].segments} segments", "Selecting part: ", "Fitting part: "):
        assert part in said
    assert "What was swapped" not in said
    pictures = sorted(tmp_path.glob("today.*.png"))
    assert [p.name.split(".")[1] for p in pictures] == ["lags", "learning", "reliability", "traces", "units"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)


def test_a_page_says_what_was_swapped_and_drops_figures_of_an_earlier_one(found: Report, tmp_path: Path) -> None:
    link = Link("2026-01-31T07:00:00Z", "rig", "swap", "taken", "a" * 64, "b" * 64, "today", "<new> decodes", token=7)
    out = tmp_path / "today.safetensors"
    page.write(found, out)

    page.write(msgspec.structs.replace(found, reliability={}), out, [link])

    said = out.with_suffix(".html").read_text(encoding="utf-8")
    assert not (tmp_path / "today.reliability.png").exists()
    assert "swap, taken" in said
    assert "&lt;new&gt; decodes" in said
    assert "Reliability" not in said


def test_a_learning_curve_ends_where_the_whole_fitting_part_is(first_day: Fitted, found: Report, cut: Parts) -> None:
    """With the score of the linear decoder that the selecting part saw; before it, with what fewer trials fitted."""
    for name in NAMES:
        curve, verdict = found.learning[name], first_day.made.header.verdicts[name]
        assert curve.trials == [
            *(round(len(cut.fit.segments) * share) for share in insight.SHARES),
            len(cut.fit.segments),
        ]
        assert curve.minutes[-1] == pytest.approx(len(cut.fit.bins()) * 0.02 / 60)
        last = curve.linear[-1]
        assert last is not None
        assert last.value == pytest.approx(verdict.scores["ridge"].value, abs=1e-6)
        assert curve.all == verdict.scores
    half, once = cut.fit, first_day.once["wheel_speed"]
    n = found.learning["wheel_speed"].trials[2]
    half = replace(half, segments=half.segments[:n], segment_ids=half.segment_ids[:n])
    fitted = baseline.refit(half, cut.select.spec("wheel_speed"), first_day.made.scalers, once.bank, once.penalty)
    value = baseline.predict(fitted, cut.select, first_day.made.scalers.kept, "continuous")
    y = cut.select.values["wheel_speed"][cut.select.bins()]
    known = np.isfinite(y) & cut.select.valid[cut.select.bins()]
    of_half = found.learning["wheel_speed"].linear[2]
    assert of_half is not None
    assert of_half.value == pytest.approx(scores.r2(y[known], value[known]), abs=1e-6)


def test_trials_of_one_class_fit_nothing(first_day: Fitted, cut: Parts) -> None:
    values = {**cut.fit.values, "choice": np.where(np.arange(cut.fit.n_bins) < 500, 0, cut.fit.values["choice"])}
    curve = insight.learning(first_day, replace(cut, fit=replace(cut.fit, values=values)), ["choice"])["choice"]
    assert [point is None for point in curve.linear] == [True, True, True, False]


def test_the_closed_form_is_what_silence_does(first_day: Fitted, judged: judges.Judgement, cut: Parts) -> None:
    """Of every used unit, and both kinds of output: the linear decoder on counts without the unit."""
    offers = {name: msgspec.structs.replace(offer, decoder="ridge") for name, offer in judged.offers.items()}
    found, made = insight.units(first_day, cut.select, offers), first_day.made
    bins, kept = cut.select.bins(), np.flatnonzero(made.scalers.kept)
    y = cut.select.values["wheel_speed"][bins]
    known = np.isfinite(y) & cut.select.valid[bins]
    for name in NAMES:
        assert found[name].ids == made.units.ids[kept].tolist()
        assert found[name].offered == found[name].linear
    wheel = []
    for u in (-1, *kept):
        counts = cut.select.counts.copy()
        if u >= 0:
            counts[:, u] = 0
        silent = replace(cut.select, counts=counts)
        said = baseline.predict(first_day.once["wheel_speed"], silent, made.scalers.kept, "continuous")
        wheel.append(scores.r2(y[known], said[known]))
    np.testing.assert_allclose(found["wheel_speed"].linear, wheel[0] - np.array(wheel[1:]), atol=1e-5)
    assert found["wheel_speed"].whole == pytest.approx(wheel[0], abs=1e-6)
    assert max(found["wheel_speed"].linear) > 0.02


@pytest.mark.parametrize("decoder", ["neds", "blend"])
def test_a_network_is_run_again_without_the_unit(
    first_day: Fitted, judged: judges.Judgement, cut: Parts, decoder: str
) -> None:
    offers = {name: msgspec.structs.replace(offer, decoder=decoder) for name, offer in judged.offers.items()}
    found, made = insight.units(first_day, cut.select, offers)["wheel_speed"], first_day.made
    assert found.whole == pytest.approx(made.header.verdicts["wheel_speed"].scores[decoder].value, abs=1e-5)
    bins, unit = cut.select.bins(), 3
    counts = cut.select.counts.copy()
    counts[:, unit] = 0
    silent = replace(cut.select, counts=counts)
    network = loop.decode_live(made.model, silent)["wheel_speed"] * made.header.sd["wheel_speed"]
    network = network + made.header.mean["wheel_speed"]
    share = made.header.blend["wheel_speed"] if decoder == "blend" else 1.0
    linear = baseline.predict(first_day.once["wheel_speed"], silent, made.scalers.kept, "continuous")
    y = cut.select.values["wheel_speed"][bins]
    known = np.isfinite(y) & cut.select.valid[bins]
    left = scores.r2(y[known], (share * network + (1 - share) * linear)[known])
    drop = found.offered[found.ids.index(int(made.units.ids[unit]))]
    assert drop == pytest.approx(found.whole - left, abs=1e-5)


def test_the_most_of_many_units_are_run_and_the_most_first(
    first_day: Fitted, judged: judges.Judgement, cut: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(insight, "PASSES", 4)
    offers = {name: msgspec.structs.replace(offer, decoder="neds") for name, offer in judged.offers.items()}
    found = insight.units(first_day, cut.select, offers)["wheel_speed"]
    known = [k for k, drop in enumerate(found.offered) if drop is not None]
    assert len(known) == 4
    assert sorted(reports.top(found)) == known
    drops = [found.offered[k] or 0.0 for k in reports.top(found)]
    assert drops == sorted(drops, reverse=True)


def contribution(**changed: object) -> insight.Contribution:
    """Of four units: two lose surely, one does not, and one was not tested; the linear decoder says otherwise."""
    made = insight.Contribution(
        "neds", "R2", 0.5, [7, 8, 9, 10], ["a"] * 4, [0.9] * 4, [0.2, 0.0, 0.3, None], [0.8] * 4,
        [0.1, -0.1, 0.05, None], 0.4,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "2 of 3 tested above noise (by chance about 0): 9 +0.300 (at least +0.050), 7 +0.200 (at least +0.100)"),
        ({"offered": [0.0, 0.0, 0.0, None], "offered_low": [0.0, 0.0, 0.0, None]}, "of 3 tested none is above noise"),
        ({"whole_low": -0.1}, "not above noise, for neds is not surely above the constant there"),
        ({"whole_low": None}, "not above noise, for neds is not surely above the constant there"),
        ({"offered": [None] * 4, "offered_low": [None] * 4}, "ridge loses most without"),
        ({"offered": [None] * 4, "offered_low": [None] * 4}, "4 of 4 tested above noise"),
    ],
)
def test_units_are_ranked_where_they_are_above_noise(
    found: Report, changed: dict[str, object], said: str
) -> None:  # fmt: skip
    """By what was tested of the decoder that is offered: a drop of exactly 0 is no drop of another decoder."""
    of = contribution(**changed)
    text = list(reports.lines(msgspec.structs.replace(found, contributions={"wheel_speed": of})))
    line = next(line for line in text if "loses most without" in line)
    assert said in line
    assert "0.900" not in line or of.offered == [None] * 4


def test_lower_ends_are_paired_over_trials(first_day: Fitted, judged: judges.Judgement, cut: Parts) -> None:
    """The interval of a drop is that of `bootstrap.paired`, which draws the same trials for both."""
    offers = {name: msgspec.structs.replace(offer, decoder="ridge") for name, offer in judged.offers.items()}
    found, made = insight.units(first_day, cut.select, offers)["wheel_speed"], first_day.made
    bins = cut.select.bins()
    y = cut.select.values["wheel_speed"][bins]
    known = np.isfinite(y) & cut.select.valid[bins]
    group = cut.select.segment_of(bins)[known]
    k = int(np.argmax(found.linear))
    counts = cut.select.counts.copy()
    counts[:, np.flatnonzero(made.scalers.kept)[k]] = 0
    sums = [
        scores.r2_sums(y[known], baseline.predict(
            first_day.once["wheel_speed"], part, made.scalers.kept, "continuous"
        )[known], group)
        for part in (cut.select, replace(cut.select, counts=counts))
    ]  # fmt: skip
    drop = bootstrap.paired([sums[0]], sums[1], scores.r2_of_sums)
    assert found.linear_low == found.offered_low
    assert found.whole_low is not None
    assert 0 < found.whole_low < found.whole
    low = found.linear_low[k]
    assert low is not None
    assert low < found.linear[k]
    assert low == pytest.approx(drop.low, abs=0.02)


def test_an_output_without_values_on_select_has_no_units(
    first_day: Fitted, judged: judges.Judgement, cut: Parts
) -> None:
    offers = {name: msgspec.structs.replace(offer, decoder="ridge") for name, offer in judged.offers.items()}
    values = {**cut.select.values, "wheel_speed": np.full(cut.select.n_bins, np.nan, np.float32)}
    assert list(insight.units(first_day, replace(cut.select, values=values), offers)) == ["choice"]


@given(seed=st.integers(0, 2**32 - 1), neds=st.floats(0.5, 5.0), ridge=st.floats(0.5, 5.0))
def test_before_the_temperatures_is_what_they_were_folded_into(
    seed: int, neds: float, ridge: float, judged: judges.Judgement
) -> None:
    """The probabilities of before are found again, of the network, the linear decoder and their blend."""
    rng, made = np.random.default_rng(seed), judged.made
    prior, share = np.array(made.header.prior["choice"]), made.header.blend["choice"]
    raw = {name: rng.dirichlet([1.0, 1.0], 40).clip(0.01, 0.99) for name in ("neds", "ridge")}
    raw = {name: probs / probs.sum(1, keepdims=True) for name, probs in raw.items()}
    used = {"neds": neds, "ridge": ridge}
    cool = {name: reliability.with_temperature(probs, used[name], prior) for name, probs in raw.items()}
    label = rng.integers(-1, 2, 40)
    label[:2] = 0, 1
    said = Judged(np.arange(40), {"choice": label}, {"choice": cool["neds"][None]}, {"choice": cool["ridge"]})
    before = {**raw, "blend": share * raw["neds"] + (1 - share) * raw["ridge"]}
    after = {**cool, "blend": share * cool["neds"] + (1 - share) * cool["ridge"]}
    known = label >= 0
    for name in ("neds", "ridge", "blend"):
        found = judges.reliability_of(made, "choice", said, name, used)
        assert found.error_before == pytest.approx(
            reliability.reliability_error(before[name][known], label[known], judges.RELIABILITY_BINS), abs=1e-6
        )
        assert found.error == pytest.approx(
            reliability.reliability_error(after[name][known], label[known], judges.RELIABILITY_BINS), abs=1e-6
        )
        assert sum(found.after.n) == sum(found.before.n) == found.n == int(known.sum())
