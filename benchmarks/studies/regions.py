"""The brain-region map: how well a unit's region is told from its embedding, beside what needs no model.

One recording: nested cross-validation over its units. Several: one session is left out at a time, over
regions seen in enough animals. Everything is read from the first 80 % of each recording.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.intervals import words
from benchmarks.studies.region_inputs import Embedded, Recording, fit_to, read
from neds_core.errors import DataError
from neds_core.scores import nested, regions
from neds_core.scores.regions import Places

MIN_ANIMALS = 3  # a region that one animal showed cannot be told from the animal
NOTE = "not comparable with published accuracies: other recordings, regions, units and splits"
FRAME_NOTE = "these models are of one session each: rows of separate trainings have no frame; train one on all sessions"


@dataclass(frozen=True, slots=True)
class Told:
    """One set of features: hits (n,) as shares over seeds and repeats, guesses, and its row of the table."""

    hits: np.ndarray
    guesses: list[np.ndarray]
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Shuffles of the labels, draws of one recording's folds, and animals that must have shown a region."""

    permutations: int = 100
    repeats: int = 5
    min_animals: int = MIN_ANIMALS


@dataclass(frozen=True, slots=True)
class Plan:
    """What every row has in common."""

    places: Places
    leave_out: bool
    repeats: int
    permutations: int

    @property
    def group(self) -> np.ndarray:
        """What a bootstrap draws: sessions where one is left out at a time, else units."""
        return self.places.session if self.leave_out else np.arange(len(self.places.label))

    def rows(self, tables: list[np.ndarray]) -> np.ndarray:
        """Features (n, F) of the places from one table (U, F) for each session."""
        out = np.empty((len(self.places.label), tables[0].shape[1]))
        for s, table in enumerate(tables):
            mine = self.places.session == s
            out[mine] = table[self.places.row[mine]]
        return out


@dataclass(frozen=True, slots=True)
class Map:
    """The table as one JSON object; its plan; and each model's features "both" (n, 2D), for the pictures."""

    result: dict[str, Any]
    plan: Plan
    shown: dict[str, np.ndarray]


def tell(plan: Plan, seeds: list[np.ndarray], permute: bool) -> Told:
    """Classify features x (n, F), one array a training seed; the null is of the first seed."""
    label, n_classes = plan.places.label, len(plan.places.names)
    group = plan.places.session if plan.leave_out else None
    guesses = [nested.predict(x, label, n_classes, group, seed=k) for x in seeds for k in range(plan.repeats)]
    hit = np.stack([guess == label for guess in guesses]).astype(np.float64)
    value, low, high = nested.interval(label, hit.mean(0), 0.0, plan.group)
    per_seed = hit.reshape(len(seeds), plan.repeats, -1).mean(1)
    row: dict[str, Any] = {"balanced_accuracy": value, "ci95": [low, high], "columns": seeds[0].shape[1]}
    if len(seeds) > 1:
        row["per_seed"] = [nested.balanced(label, h) for h in per_seed]
    if permute and plan.permutations:
        null = nested.permutation_null(
            seeds[0], label, n_classes, plan.places.session, plan.leave_out, plan.permutations
        )
        row["permuted"] = {
            "mean": float(null.mean()),
            "percentile_95": float(np.percentile(null, 95)),
            "p": nested.p_value(nested.balanced(label, hit[0]), null),
        }
    return Told(hit.mean(0), guesses, row)


def plan_of(recordings: list[Recording], made: dict[str, list[list[Embedded]]], sizes: Sizes) -> Plan:
    """The places of all units that every recording and model keeps."""
    several = len(recordings) > 1
    kept = [one.kept.copy() for one in recordings]
    for seeds in made.values():
        for seed in seeds:
            for s, one in enumerate(seed):
                kept[s] &= one.kept
    found = regions.places(
        [one.session.units.region for one in recordings], kept, [one.animal for one in recordings],
        sizes.min_animals if several else 1,
    )  # fmt: skip
    return Plan(found, several, 1 if several else sizes.repeats, sizes.permutations)


def features_of(plan: Plan, seeds: list[list[Embedded]], plain: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Tokenizer and read-out rows of a model (n, F), both, and both with the plain features; an array for each seed."""
    found = {name: [plan.rows([one.rows[name] for one in seed]) for seed in seeds] for name in regions.FEATURES}
    return found | {"both+plain": [np.concatenate([x, plain], 1) for x in found["both"]]}


def bench(files: list[Path], models: dict[str, list[Path]], sizes: Sizes) -> Map:
    """Models are named lists of checkpoints, see `fit_to`.

    Rows: plain features without a model (`regions.plain_features`), then those of `features_of` for each model.
    """
    began = time.monotonic()
    recordings = [read(path) for path in files]
    made = {name: fit_to(recordings, paths) for name, paths in models.items()}
    plan = plan_of(recordings, made, sizes)
    tables = [regions.plain_features(one.session, shared_frame=plan.leave_out) for one in recordings]
    plain = {name: plan.rows([table[name] for table in tables]) for name in tables[0]}
    told = {name: tell(plan, [x], permute=True) for name, x in plain.items()}
    strongest = max(plain, key=lambda name: told[name].row["balanced_accuracy"])
    comparisons, shown = {}, {}
    for model, seeds in made.items():
        features = features_of(plan, seeds, plain["plain"])
        shown[model] = features["both"][0]
        told |= {f"{model}: {name}": tell(plan, x, permute=name == "both") for name, x in features.items()}
        comparisons[model] = {
            f"both - {strongest}": _gap(plan, told[f"{model}: both"], told[strongest]),
            "both+plain - plain": _gap(plan, told[f"{model}: both+plain"], told["plain"]),
        }
    notes = [NOTE, *_frame(models, made), *_notes(recordings)]
    result = {
        "recordings": [one.session.name for one in recordings],
        **_described(plan, sizes, notes),
        "rows": {name: one.row for name, one in told.items()},
        "strongest_plain": strongest,
        "comparisons": comparisons,
        "confusion": {name: _confusion(plan, told[name]) for name in ("plain", *(f"{model}: both" for model in made))},
        **({"session_identity": _identity(plan)} if plan.leave_out else {}),
        "seconds": round(time.monotonic() - began, 1),
        "machine": machine.describe(),
    }
    return Map(result, plan, shown)


def _described(plan: Plan, sizes: Sizes, notes: list[str]) -> dict[str, Any]:
    """What is classified, and how."""
    places = plan.places
    one = f"5-fold over units, {sizes.repeats} repeats, nested"
    return {
        "scheme": "one session left out at a time" if plan.leave_out else one,
        "regions": dict(zip(places.names, np.bincount(places.label).tolist(), strict=True)),
        "units": len(places.label),
        "chance": 1.0 / len(places.names),
        "permutations": sizes.permutations,
        "notes": notes,
    }


def _confusion(plan: Plan, told: Told) -> list[list[float]]:
    places = plan.places
    return np.round(nested.confusion(places.label, told.guesses, len(places.names)), 2).tolist()


def _gap(plan: Plan, first: Told, second: Told) -> dict[str, float]:
    value, low, high = nested.interval(plan.places.label, first.hits, second.hits, plan.group)
    return {"value": value, "low": low, "high": high}


def _identity(plan: Plan) -> dict[str, Any]:
    """What knowing the session alone would give, were units of one session in training and test."""
    one_hot = (plan.places.session[:, None] == np.unique(plan.places.session)).astype(np.float64)
    pooled = Plan(plan.places, leave_out=False, repeats=1, permutations=0)
    return {"folds": "5-fold over units of all sessions", **tell(pooled, [one_hot], permute=False).row}


def _frame(models: dict[str, list[Path]], made: dict[str, list[list[Embedded]]]) -> list[str]:
    """A note for each model whose sessions come from files of their own."""
    return [f"{name}: {FRAME_NOTE}" for name, paths in models.items() if len(paths) > len(made[name])]


def _notes(recordings: list[Recording]) -> list[str]:
    names = [one.session.name for one in recordings]
    return [f"{key}: {text}" for key, text in regions.NOTES.items() if any(n.startswith(key) for n in names)]


def parse_models(given: list[str]) -> dict[str, list[Path]]:
    """NAME=CHECKPOINT options to name -> checkpoints, in the order given."""
    models: dict[str, list[Path]] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise DataError(f"--model {text!r} is not NAME=CHECKPOINT; write for example multimodal=neds.safetensors")
        models.setdefault(name, []).append(Path(path))
    return models


def lines(result: dict[str, Any]) -> list[str]:
    """The table for a terminal."""
    text = [f"{', '.join(result['recordings'])}: {result['units']} units, {len(result['regions'])} regions"]
    text += [f"{result['scheme']}; chance {result['chance']:.3f}", "balanced accuracy [95 %]   labels permuted"]
    for name, row in result["rows"].items():
        low, high = row["ci95"]
        null = row.get("permuted")
        tail = f"   {null['mean']:.3f}, 95th percentile {null['percentile_95']:.3f}, p {null['p']:.3f}" if null else ""
        text.append(f"  {name:<38}{row['balanced_accuracy']:.3f} [{low:.3f}, {high:.3f}]{tail}")
    if "session_identity" in result:
        row = result["session_identity"]
        text.append(f"  session identity alone, {row['folds']}: {row['balanced_accuracy']:.3f}")
    for model, gaps in result["comparisons"].items():
        text += [f"  {model}: {k}: {words(v, '+')}" for k, v in gaps.items()]
    return text + [f"note: {note}" for note in result["notes"]]
