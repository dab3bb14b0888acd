"""The table of how soon a class is known says what its decoders said, and looks neither ahead nor at the test part."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from benchmarks.accuracy import lda
from benchmarks.accuracy.lda import Setting
from benchmarks.studies import target
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import session as sessions, session_file
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import CheckpointError, DataError
from neds_core.linear import baseline
from neds_core.scores import bootstrap
from neds_core.train import loop as train
from runtime.cli import commands as cli

KEPT = np.arange(12) != 11
SHORT = 9  # bins of the shortest trial below


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer settings and resamples: what is tested is whose they are."""
    monkeypatch.setattr(lda, "LAST_BINS", (4,))
    monkeypatch.setattr(lda, "FOLDS", 3)
    monkeypatch.setattr(bootstrap, "RULES", bootstrap.Resampling(times=100))


@pytest.fixture(scope="module")
def uneven(session: Session) -> Session:
    """The planted trials, cut to 25, 9 or 17 bins: what lies between belongs to no trial."""
    segments = session.segments.copy()
    segments[:, 1] = segments[:, 0] + np.array([25, SHORT, 17])[np.arange(len(segments)) % 3]
    return replace(session, segments=segments)


@pytest.fixture
def saved(uneven: Session, make_checkpoint: Callable[..., Checkpoint], tmp_path: Path) -> tuple[Path, Checkpoint]:
    """Folder with session.npz and a.safetensors, and that checkpoint."""
    made = make_checkpoint()
    session_file.save(uneven, tmp_path / "session.npz")
    checkpoints.save(made, tmp_path / "a.safetensors")
    return tmp_path, made


def test_rows_are_what_the_decoders_say_of_the_last_fifth(
    saved: tuple[Path, Checkpoint], uneven: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command, with two seeds: labelled test trials, read bin by bin, at the end, and in differences."""
    folder, made = saved
    files = [str(folder / "a.safetensors")] * 2

    cli.app(["bench", "target", str(folder / "session.npz"), *files, "--json"], standalone_mode=False)

    *shown, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    test = sessions.split(uneven).test
    label = test.values["choice"][test.segments[:, 0]]
    probs = {
        "neds": train.decode(made.model, test)["choice"],
        "logistic": baseline.predict(made.linear["choice"], test, made.scalers.kept, "class"),
    }
    starts = np.r_[0, np.cumsum(np.diff(test.segments)[:, 0])]
    assert result["trials"] == (label >= 0).sum() < len(label)
    assert result["time_ms"] == [20.0 * (k + 1) for k in range(SHORT)]
    for name, p in probs.items():
        guess = (p / made.scalers.prior["choice"]).argmax(1)
        right = [(guess[starts[:-1] + k] == label)[label >= 0].mean() for k in range(SHORT)]
        at_end = (guess[starts[1:] - 1] == label)[label >= 0].mean()
        row = result["decoders"][name]
        assert row["accuracy"]["value"] == pytest.approx(right)
        assert row["at_5_bins"]["value"] == pytest.approx(right[4])
        assert row["over_all_bins"]["value"] == pytest.approx(np.mean(right))
        assert row["at_trial_end"]["value"] == pytest.approx(at_end)
        for low, value, high in zip(*(row["accuracy"][k] for k in ("low", "value", "high")), strict=True):
            assert low <= value <= high
    for rival in target.RIVALS:
        first, second = (result["decoders"][n]["over_all_bins"]["value"] for n in ("neds", rival))
        assert result["neds_minus"][rival]["over_all_bins"]["value"] == pytest.approx(first - second)
        assert any(line.startswith(rival) for line in shown)
    assert result["decoders"]["lda"]["accuracy"]["value"][-1] > 0.8  # planted: these units tell the choice


@pytest.mark.parametrize(
    ("right", "bins"),
    [
        ([0, 5, 9, 10, 9, 10], 3),  # 9 of 10 is enough
        ([10, 10, 8, 10, 10, 9], 4),  # reached, lost, and reached again
        ([10, 10, 10, 10, 10, 8], 7),  # lost at the last bin: not within the six
        ([10, 10, 10, 10, 10, 10], 1),
    ],
)
def test_ninety_percent_has_to_be_kept(right: list[int], bins: int) -> None:
    """Counts of 10 trials at six bins; what happens at the trial's end does not matter."""
    for at_end in (0, 10):
        assert target.bins_until_kept(np.array([*right, at_end, 10.0])) == bins


@pytest.mark.parametrize("setting", [Setting(1, True), Setting(3, False), Setting(40, True)])
def test_lda_reads_the_past_of_its_own_trial(uneven: Session, setting: Setting) -> None:
    """Its features are plain means, and later bins and other trials change none of them."""
    x, clock = lda.window_means(uneven, setting, KEPT)
    rng = np.random.default_rng(0)
    rows = 0
    for start, stop in uneven.segments[:6]:
        for t in range(start, stop):
            past = uneven.counts[max(start, t - setting.last_bins + 1) : t + 1, KEPT].astype(float)
            expected = (np.sqrt(past) if setting.root else past).mean(0)
            # 1e-9: a difference of running sums of some thousands
            np.testing.assert_allclose(x[rows], expected, atol=1e-9)
            assert clock[rows] == t - start
            rows += 1
    start, stop = (int(v) for v in uneven.segments[3])
    other = uneven.counts.copy()
    other[:start] = rng.integers(0, 9, other[:start].shape)
    other[start + 5 :] = rng.integers(0, 9, other[start + 5 :].shape)
    changed, _ = lda.window_means(replace(uneven, counts=other), setting, KEPT)
    first = int(np.diff(uneven.segments[:3]).sum())
    np.testing.assert_allclose(changed[first : first + 5], x[first : first + 5], atol=1e-9)


def test_a_clocked_lda_is_one_lda_for_each_bin(uneven: Session) -> None:
    """As scikit-learn fits it on that bin alone; a bin later than all of them is read by the last."""
    development = sessions.split(uneven).development
    bins = target.bins_of(target.spans_of(development))
    label = development.values["choice"][bins]
    x, clock = lda.window_means(development, Setting(3, False), KEPT)

    guess = lda.fit(development, label, KEPT, Setting(3, False), SHORT, clocked=True).guess(development)

    for k in (0, 4, 8, 16):
        known = (clock == min(k, SHORT - 1)) & (label >= 0)
        own = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5]).fit(x[known], label[known])
        np.testing.assert_array_equal(guess[clock == k], own.predict(x[clock == k]))


def test_nothing_is_chosen_on_the_test_part(uneven: Session) -> None:
    """Other spikes and labels in the last fifth: the same choice, of other guesses."""
    start = int(sessions.split(uneven).test.segments[0, 0])
    counts, choice = uneven.counts.copy(), uneven.values["choice"].copy()
    counts[start:], choice[start:] = counts[start:][::-1], np.where(choice[start:] < 0, -1, 1 - choice[start:])
    found = []
    for one in (uneven, replace(uneven, counts=counts, values=uneven.values | {"choice": choice})):
        parts = sessions.split(one)
        found.append(target.lda_guesses(parts.development, parts.test, "choice", KEPT, SHORT))

    (ours, chosen), (theirs, chosen_again) = found
    assert chosen == chosen_again
    assert (ours["lda"][0] != theirs["lda"][0]).any()


def test_what_cannot_be_compared_is_refused(saved: tuple[Path, Checkpoint], uneven: Session, unbroken: Session) -> None:
    """Other units, trials of under five bins, inferred labels alone, and a checkpoint without its logistic."""
    folder, made = saved
    session_file.save(unbroken, folder / "other.npz")
    with pytest.raises(DataError, match="trained on other units"):
        target.bench(folder / "other.npz", [folder / "a.safetensors"])

    segments = uneven.segments.copy()
    segments[7, 1] = segments[7, 0] + 4
    session_file.save(replace(uneven, segments=segments), folder / "short.npz")
    with pytest.raises(DataError, match="a trial has 4 bins, under the 5"):
        target.bench(folder / "short.npz", [folder / "a.safetensors"])

    inferred = BehaviourSpec("choice", "class", labels="inferred", classes=("left", "right"))
    header = msgspec.structs.replace(made.header, specs=(made.header.specs[0], inferred))
    checkpoints.save(replace(made, header=header), folder / "inferred.safetensors")
    with pytest.raises(DataError, match="not all of one measured class output"):
        target.bench(folder / "session.npz", [folder / "inferred.safetensors"])

    origin = checkpoints.Imported("published.pt", "0" * 64, 1, ("one",), (0,), ())
    header = msgspec.structs.replace(made.header, linear={}, blend={}, imported=origin)
    checkpoints.save(replace(made, header=header, linear={}), folder / "imported.safetensors")
    with pytest.raises(CheckpointError, match="holds no logistic"):
        target.bench(folder / "session.npz", [folder / "imported.safetensors"])
