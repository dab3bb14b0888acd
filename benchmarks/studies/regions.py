"""The brain-region map: how well a unit's region is told from its embedding, beside what needs no model.

One recording: nested cross-validation over its units. Several: one session is left out at a time, over
regions seen in enough animals. Everything is read from the first 80 % of each recording.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from neds_core import checkpoint as checkpoints
from neds_core.data import session as sessions, session_file
from neds_core.data.session import Session
from neds_core.errors import CheckpointError, DataError
from neds_core.io import bundles
from neds_core.model import directions
from neds_core.scores import nested, regions
from neds_core.scores.regions import Places
from neds_core.train import many as pretrain

MIN_RATE_HZ = 0.5
MIN_ANIMALS = 3  # a region that one animal showed cannot be told from the animal
NOTE = "not comparable with published accuracies: other recordings, regions, units and splits"
FRAME_NOTE = "these models are of one session each: rows of separate trainings have no frame; train one on all sessions"


@dataclass(frozen=True, slots=True)
class Recording:
    """The training and validation part of a recording, its animal, and the units fast enough to be trained on."""

    session: Session
    animal: str
    kept: np.ndarray  # (U,) bool


@dataclass(frozen=True, slots=True)
class Embedded:
    """A model's embedding of one session: identity of its unit table, kept (U,) bool, name -> rows (U, F)."""

    units_sha: str
    kept: np.ndarray
    rows: dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Told:
    """One set of features: hits (n,) as shares over seeds and repeats, guesses, and its row of the table."""

    hits: np.ndarray
    guesses: list[np.ndarray]
    row: dict[str, Any]


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


def read(path: Path) -> Recording:
    """A Session.npz (its name stands for the animal), or a bundle of Steinmetz et al. 2019 as published here."""
    animal, whole = _published(path) or ("", session_file.load(path))
    parts = sessions.split(whole)
    bins = directions.bins_of(directions.spans_of(parts.train))
    kept = whole.counts[bins].mean(0) / (whole.bin_ns * 1e-9) >= MIN_RATE_HZ
    return Recording(parts.development, animal or whole.name, kept)


def _published(path: Path) -> tuple[str, Session] | None:
    """Animal and session of a published bundle; None for another file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as raw:
            if "mouse" not in raw.files or "brain_area" not in raw.files:
                return None
            animal = str(raw["mouse"])
        return animal, replace(bundles.steinmetz2019(path), name=path.stem)
    except FileNotFoundError:
        raise DataError(f"recording {path} does not exist; check the path") from None
    except Exception:  # numpy, zipfile and zlib raise a dozen kinds of error for damaged bytes
        raise DataError(f"{path} is not a readable Session.npz or published bundle; copy or convert it again") from None


def embedded(path: Path) -> list[Embedded]:
    """Every session of a checkpoint, of one recording or of many, as a map sees it."""
    if pretrain.is_one(path):
        many = pretrain.load(path)
        return [
            Embedded(row.units.sha256, np.array(row.kept), regions.embedding(many.model, s))
            for s, row in enumerate(many.header.sessions)
        ]
    made = checkpoints.load(path)
    return [Embedded(made.units.sha256, made.scalers.kept, regions.embedding(made.model))]


def fit_to(recordings: list[Recording], files: list[Path]) -> list[list[Embedded]]:
    """Embeddings by training seed, in each one for every recording; matched by the unit table."""
    by_recording: list[list[Embedded]] = [[] for _ in recordings]
    shas = [one.session.units.sha256 for one in recordings]
    for path in files:
        found = [one for one in embedded(path) if shas.count(one.units_sha) == 1]
        if not found:
            raise CheckpointError(
                f"{path} is of none of the recordings, or of two that are alike; give the one it is of"
            )
        for one in found:
            by_recording[shas.index(one.units_sha)].append(one)
    n_seeds = {len(one) for one in by_recording}
    if len(n_seeds) > 1:
        raise CheckpointError("a model needs as many checkpoints for every recording; give the missing ones")
    return [list(seed) for seed in zip(*by_recording, strict=True)]


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


def bench(
    files: list[Path],
    models: dict[str, list[Path]],
    permutations: int = 100,
    repeats: int = 5,
    min_animals: int = MIN_ANIMALS,
    on_row: Callable[[str], None] | None = None,
) -> tuple[dict[str, Any], Plan, dict[str, np.ndarray]]:
    """The table as one JSON object; the plan; and each model's features "both" (n, 2D), for the pictures.

    Models are named lists of checkpoints, see `fit_to`. Rows: plain features without a model (`regions.
    plain_features`), each model's tokenizer and read-out rows and both, and both with the plain ones.
    """
    began = time.monotonic()
    say = on_row or (lambda _: None)
    recordings = [read(path) for path in files]
    several = len(recordings) > 1
    made = {name: fit_to(recordings, paths) for name, paths in models.items()}
    kept = [one.kept.copy() for one in recordings]
    for seeds in made.values():
        for seed in seeds:
            for s, one in enumerate(seed):
                kept[s] &= one.kept
    found = regions.places(
        [one.session.units.region for one in recordings], kept, [one.animal for one in recordings],
        min_animals if several else 1,
    )  # fmt: skip
    plan = Plan(found, several, 1 if several else repeats, permutations)
    plain = [regions.plain_features(one.session, shared_frame=several) for one in recordings]
    told: dict[str, Told] = {}
    for name in plain[0]:
        say(name)
        told[name] = tell(plan, [plan.rows([table[name] for table in plain])], permute=True)
    baseline = max(plain[0], key=lambda name: told[name].row["balanced_accuracy"])
    comparisons, shown = {}, {}
    everything = plan.rows([table["plain"] for table in plain])
    for model, seeds in made.items():
        features = {f: [plan.rows([one.rows[f] for one in seed]) for seed in seeds] for f in regions.FEATURES}
        features["both+plain"] = [np.concatenate([x, everything], 1) for x in features["both"]]
        shown[model] = features["both"][0]
        for name, x in features.items():
            say(f"{model}: {name}")
            told[f"{model}: {name}"] = tell(plan, x, permute=name == "both")
        comparisons[model] = {
            f"both - {baseline}": _gap(plan, told[f"{model}: both"], told[baseline]),
            "both+plain - plain": _gap(plan, told[f"{model}: both+plain"], told["plain"]),
        }
    confused = ["plain", *(f"{model}: both" for model in made)]
    result: dict[str, Any] = {
        "recordings": [one.session.name for one in recordings],
        "scheme": "one session left out at a time" if several else f"5-fold over units, {repeats} repeats, nested",
        "regions": dict(zip(found.names, np.bincount(found.label).tolist(), strict=True)),
        "units": len(found.label),
        "chance": 1.0 / len(found.names),
        "permutations": permutations,
        "notes": [NOTE, *_frame(models, made), *_notes(recordings)],
        "rows": {name: one.row for name, one in told.items()},
        "strongest_plain": baseline,
        "comparisons": comparisons,
        "confusion": {
            name: np.round(nested.confusion(found.label, told[name].guesses, len(found.names)), 2).tolist()
            for name in confused
        },
    }
    if several:
        result["session_identity"] = _identity(plan)
    result |= {"seconds": round(time.monotonic() - began, 1), "machine": machine.describe()}
    return result, plan, shown


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
        text += [f"  {model}: {k}: {v['value']:+.3f} [{v['low']:+.3f}, {v['high']:+.3f}]" for k, v in gaps.items()]
    return text + [f"note: {note}" for note in result["notes"]]
