"""The ablation: one change a row, scored inside the training part, resumable."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies import ablation
from benchmarks.studies.ablation import BASE, BITS, VARIANTS, Variant
from neds_core.config import TrainConfig
from neds_core.data import session as sessions, session_file
from neds_core.data.session import Session
from neds_core.errors import DataError

RECORD = """
recording = "session.npz"
outputs = ["wheel_speed", "choice"]
[model]
width = 16
layers = 1
heads = 2
band = 5
[fit]
window_bins = 20
"""
FEW = (Variant(BASE), Variant("band of 2 bins", {"band": 2}))


@pytest.fixture
def folder(session: Session, tmp_path: Path) -> Path:
    """The planted recording and a small configuration, in the places of the example's."""
    session_file.save(session, tmp_path / "session.npz")
    (tmp_path / "train.toml").write_text(RECORD)
    return tmp_path


def differing(a: TrainConfig, b: TrainConfig) -> set[str]:
    """Dotted names of the fields in which two configurations differ."""
    found = set()
    for part in ("model", "masks", "fit"):
        ours, theirs = getattr(a, part), getattr(b, part)
        found |= {f"{part}.{f}" for f in ours.__struct_fields__ if getattr(ours, f) != getattr(theirs, f)}
    return found


def test_every_variant_changes_one_thing() -> None:
    """Of its base, on the shipped configurations; a set of masks counts as one thing, and none has the fit changed."""
    by_name = {v.name: v for v in VARIANTS}
    for variant in VARIANTS:
        changed = differing(ablation.settings(variant, False), ablation.settings(by_name[variant.against], False))
        assert len({name if name.startswith("model.") else name.split(".")[0] for name in changed}) == (
            0 if variant.name == BASE else 1
        )
        assert not any(name.startswith("fit.") for name in changed)
    assert len(by_name) == len(VARIANTS)


def test_rows_resume_and_a_change_is_paired_with_its_base(folder: Path) -> None:
    """Finished rows are not computed again, one cut short is; the base has no difference, the other an interval."""
    out, said = folder / "rows.jsonl", list[str]()

    first = ablation.run(out, True, said.append, FEW, folder)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:-1]) + lines[-1][:40])
    again = ablation.run(out, True, said.append, FEW, folder)

    assert said == ["base, seed 0", "band of 2 bins, seed 0", "band of 2 bins, seed 0"]
    assert [r["scores"] for r in again] == [r["scores"] for r in first]
    assert [r["receptive_field_bins"] for r in first] == [5, 2]
    assert len(first[0]["sums"][BITS]) == 12  # trials 36 to 47 of 60
    found = ablation.result(again, True)
    base, other = json.loads(json.dumps(found["table"]))
    for name in ("wheel_speed", BITS):
        gap = other["scores"][name]["minus"]
        assert "minus" not in base["scores"][name]
        assert gap["low"] <= gap["value"] <= gap["high"]
        assert gap["value"] == pytest.approx(other["scores"][name]["value"] - base["scores"][name]["value"])
    assert len(ablation.lines(found["table"])) == 3


def test_the_test_part_is_not_read(folder: Path, session: Session) -> None:
    """Whatever lies in the last fifth, and in the stretch that is scored, the training is the same."""
    poisoned = replace(session, counts=session.counts.copy(), values={k: v.copy() for k, v in session.values.items()})
    poisoned.counts[sessions.part(session, 0.8, 1.0).segments[0, 0] :] = 9
    poisoned.values["wheel_speed"][sessions.part(session, 0.8, 1.0).segments[0, 0] :] = 1e3
    first = ablation.run(folder / "clean.jsonl", True, lambda _: None, FEW[:1], folder)

    session_file.save(poisoned, folder / "session.npz")
    second = ablation.run(folder / "poisoned.jsonl", True, lambda _: None, FEW[:1], folder)

    assert second[0]["sums"] == first[0]["sums"]
    assert second[0]["inputs_sha256"] != first[0]["inputs_sha256"]


def test_a_score_is_that_of_its_sums(folder: Path) -> None:
    """R2 and bits/spike of all trials; both are finite."""
    (row,) = ablation.run(folder / "rows.jsonl", True, lambda _: None, FEW[:1], folder)

    for name, sums in row["sums"].items():
        assert row["scores"][name] == pytest.approx(float(ablation.statistic(name)(np.array(sums).sum(0))))
    assert set(row["scores"]) == {"wheel_speed", BITS}
    assert np.isfinite(list(row["scores"].values())).all()


def test_an_absent_example_is_refused(tmp_path: Path) -> None:
    """In one sentence with the remedy, before a file of rows is made."""
    with pytest.raises(DataError, match=r"train\.toml is missing; run it from a checkout of the repository"):
        ablation.run(tmp_path / "rows.jsonl", True, lambda _: None, FEW, tmp_path)
    assert not (tmp_path / "rows.jsonl").exists()
