"""The report that `neds-rt train` and `evaluate` leave: one page of HTML that loads nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import report
from benchmarks.accuracy import evaluated, sections, shown as showing
from neds_core import checkpoint as checkpoints, toml
from neds_core.checkpoint import Checkpoint, Record
from neds_core.data import lead
from neds_core.data.session import Session, Splits
from neds_core.errors import NedsError
from neds_core.files import sha256
from neds_core.io import recording as recordings
from neds_core.train import validation
from runtime import config as rigs
from runtime.core.engine import BROUGHT
from runtime.scoring.points import MOVING_PX_S
from runtime.scoring.report import number, part_of, span
from runtime.scoring.seeds import SeedScores
from runtime.start import called

Row = dict[str, Any]
MOVING = f"<p>Moving: by more than {MOVING_PX_S:g} of the error's unit a second.</p>"
LINES = "<p>Lines: of each output the recommended decoder, which a run publishes, and a thinner one to compare.</p>"
NAMES = {"neds": "NEDS", "blend": "blend", "ridge": "ridge", BROUGHT: "brought"}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a report is of: a checkpoint and a recording, as they lie on disk. own: trained on this very recording."""

    path: Path
    made: Checkpoint
    recording: Path
    session: Session
    own: bool

    @property
    def record(self) -> Record:
        """How the checkpoint came about."""
        return self.made.header.record

    @property
    def parts(self) -> Splits:
        """The recording's parts, looked ahead in as the checkpoint does."""
        return lead.split(self.session, lead.of(self.made.specs))


def _subject(path: Path, recording: Path, session: Session) -> Subject:
    made = checkpoints.load(path)
    return Subject(path, made, recording, session, sha256(recording) == made.header.record.recording_sha)


def training(path: Path, recording: Path) -> str:
    """The page of a training: it shows the validation part, and nothing that depends on the test part's values."""
    of = _subject(path, recording, recordings.load(recording))
    parts, header = of.parts, of.made.header
    looked = "not read: training and this page take the first 80 %"
    looked += f"; looks that the checkpoint records: {of.record.test_looks}"
    found = showing.of_training(of.made, parts.validation)
    points = ""
    if found is not None and found.points:
        points = _table(_points(found.points, of.session.continuous)) + MOVING
    drawn = [] if found is None else list(evaluated.decoding(found, {}))
    return report.document(
        f"{header.name}: training on {of.session.name}",
        [
            _head(of, looked),
            "<h2>On the validation part</h2>",
            "<p>It stopped the training and chose the blend, so scores of NEDS and the blend are flattered here. The "
            "held-out part is scored by <code>neds-rt evaluate</code>.</p>",
            points,
            LINES + sections.pictures(drawn) if drawn else "<p>The checkpoint keeps nothing of it.</p>",
            *sections.chosen(of.made, path),
            *sections.units(of.made, parts.train, parts.validation, "validation part"),
            *_data(of, parts),
            _next(of, ("evaluate", "check", "run")),
        ],
    )


def evaluation(
    paths: Sequence[Path], recording: Path, session: Session, first: SeedScores, result: Row, lines: list[str]
) -> str:
    """The page of a scored part. first: of the first of the checkpoints `paths`; result: what the command found;
    lines: what it prints."""
    of = _subject(paths[0], recording, session)
    split = result["split"]
    parts = of.parts if of.own or split != "all" else Splits(session, session, session)
    name = part_of(split)
    part = session if split == "all" else getattr(parts, split)
    looked = f"looks that the checkpoint records: {of.record.test_looks} (--record adds one)"
    looked = f"shown on this page; {looked}" if of.own and split in ("test", "all") else looked
    found = showing.of_scores(first, result, name)
    many = f" Pictures are of the first of {len(paths)} checkpoints." if len(paths) > 1 else ""
    return report.document(
        f"{of.made.header.name}: {name} of {session.name}",
        [
            _head(of, looked, paths[1:]),
            f"<h2>Scores of the {name}</h2>",
            f"<p><b>{escape(result['note'])}</b></p>" if result["note"] else "",
            f"<p>{len(first.bins)} bins ({len(first.bins) * session.bin_ns * 1e-9:.0f} s), streamed as in a run. "
            f"Brackets: 95 % over trials or blocks of 10 s.{many}</p>",
            _table([*_others(result["other"], session.continuous), *_traces(result["traces"], session.continuous)]),
            MOVING if found.points else "",
            *(f"<p>{escape(name)} is not scored: {escape(why)}.</p>" for name, why in _unscored(result["other"])),
            LINES + sections.pictures(list(evaluated.decoding(found, result.get("curves", {})))),
            f"<details><summary>As printed</summary>{report.text(lines)}</details>",
            *sections.chosen(of.made, of.path),
            *sections.units(of.made, parts.train if of.own else None, part, name),
            *(_data(of, parts) if of.own else []),
            _next(of, ("check", "play", "certify")),
        ],
    )


def _head(of: Subject, looked: str, others: Iterable[Path] = ()) -> str:
    """What was decoded by which file, and how that came about."""
    header, model = of.made.header, of.made.header.config.model
    bin_ms, reach = header.bin_ns * 1e-6, model.receptive_field
    said = f"{model.attention} attention, {model.layers} layers of width {model.width}, {model.heads} heads"
    said += f", reaching back {reach} bins ({reach * bin_ms * 1e-3:g} s)" if model.attention == "causal" else ""
    said = f"{len(header.members)} networks of {said}" if header.members else said
    said = "a linear decoder with a state, brought" if header.brought is not None else said
    known = {
        "recording": f"{of.session.name} ({of.recording})",
        "checkpoint": f"{of.path}, SHA-256 {sha256(of.path)}",
        **{f"checkpoint {n}": f"{path}, SHA-256 {sha256(path)}" for n, path in enumerate(others, start=2)},
        "configuration": f"{said}; bins of {bin_ms:g} ms",
        "outputs": "; ".join(f"{spec.name} ({spec.unit or spec.kind})" for spec in header.specs),
        "seed": ", ".join(str(member.record.seed) for member in header.members) or str(of.record.seed),
        "trained": f"{of.record.created}, in {of.record.seconds:.0f} s"
        + (", stopped before it was done" if of.record.interrupted else ""),
        "test part": looked,
        "versions": ", ".join(f"{name} {version}" for name, version in of.record.versions.items()) or "not kept",
    }
    if of.session.citation or of.session.licence:
        known["source"] = ", ".join(text for text in (of.session.citation, of.session.licence) if text)
    if header.brought is not None:
        return report.facts({"imported": known.pop("trained"), **known})
    everything = report.text([toml.written(msgspec.to_builtins(header.config)).strip()])
    return report.facts(known) + f"<details><summary>All keys of the training</summary>{everything}</details>"


def _data(of: Subject, parts: Splits) -> list[str]:
    """What a training says of its recording before it begins."""
    lines = validation.start(of.made.header.config, of.session, parts, of.made.scalers)
    return ["<h2>Data</h2><p>The recording passes all checks that are made when it is read.</p>", report.text(lines)]


Line = tuple[str, str, str, str, str, str]


def _table(rows: Iterable[Line]) -> str:
    """A score a row."""
    return report.table(("output", "score", "decoder", "value", "95 %", "minus ridge"), rows)


def _traces(traces: Row, continuous: bool) -> Iterator[Line]:
    """R2 of every decoder and seed, and what it gains."""
    for name, row in traces.items():
        chosen = set(row.get("recommended", ()))
        for decoder in (d for d in NAMES if d in row):
            values, limits = row[decoder], row["ci95" if decoder == BROUGHT else f"{decoder}_ci95"]
            each = zip(values, limits, strict=True) if isinstance(values, list) else [(values, limits)]
            gain = row.get(f"{decoder}_minus_ridge")
            said = f"{gain['value']:+.3f} {span((gain['low'], gain['high']), 3, continuous)}" if gain else ""
            called = NAMES[decoder] + (" (recommended)" if decoder in chosen else "")
            for n, (value, ci95) in enumerate(each):
                yield name, "R2", called, number(value), span(ci95, 3, continuous), "" if n else said
        if row.get("trial_average") is not None:
            yield (
                name,
                "R2",
                "mean of training" if continuous else "trial average of training",
                number(row["trial_average"]),
                "",
                "",
            )


def _others(other: Row, continuous: bool) -> Iterator[Line]:
    """Points and classes of the first checkpoint."""
    for name, rows in other.items():
        row = rows[0]
        if "contrasts" in row:
            each = {f"{name} {contrast}": [inner] for contrast, inner in row["contrasts"].items()}
            yield from _others(each, continuous)
        elif row.get("balanced_accuracy") is not None:
            score = f"balanced accuracy, {row['n']} trials, chance {row['chance']:.2f}"
            yield name, score, "published", number(row["balanced_accuracy"]), span(row["ci95"]), ""
            for decoder, key in (("NEDS", "neds"), ("blend", "blend"), ("logistic", "logistic")):
                yield name, score, decoder, number(row[f"{key}_balanced_accuracy"]), "", ""
        elif "n_all" in row:
            yield from _points({name: row}, continuous)


def _unscored(other: Row) -> Iterator[tuple[str, str]]:
    """Outputs without a score, and why."""
    for name, (row, *_) in other.items():
        if "contrasts" not in row and row.get("balanced_accuracy") is None and "n_all" not in row:
            yield name, str(row.get("null_reason"))


def _points(points: dict[str, Row], continuous: bool) -> Iterator[Line]:
    """Median errors of points and angles: below 0, a decoder is nearer than the ridge."""
    for name, row in points.items():
        for part in ("all", "moving"):
            for decoder in NAMES:
                if (value := row.get(f"{decoder}_median_error_{part}")) is None:
                    continue
                gain = row.get(f"{decoder}_minus_ridge_{part}")
                said = f"{gain['value']:+.1f} {span((gain['low'], gain['high']), 1, continuous)}" if gain else ""
                score = f"median error ({row['unit']}), {'all bins' if part == 'all' else part}"
                limits = span(row[f"{decoder}_ci95_{part}"], 1, continuous)
                yield name, score, NAMES[decoder], number(value, 1), limits, said


def _next(of: Subject, after: Sequence[str]) -> str:
    """The commands that come next, with this user's paths."""
    rig, made = _rig(of)
    neds_rt = called("neds-rt")
    lines = {
        "evaluate": (f"{neds_rt} evaluate {_quoted(of.recording)} {_quoted(of.path)}", "scores the held-out part"),
        "check": (f"{neds_rt} check {rig}", "judges the rig's streams: GO or NO-GO"),
        "run": (f"{neds_rt} run {rig}", "decodes live"),
        "play": (f"{neds_rt} run {rig} --play", "plays the recording and decodes it, without a rig"),
        "certify": (f"{neds_rt} certify {rig}", "judges the rig as it will run"),
    }
    steps = [lines[name] for name in after]
    steps[1 if "evaluate" in after else 0 : 0] = made
    body = "".join(f"<li><code>{escape(step)}</code><br><small>{escape(what)}</small></li>" for step, what in steps)
    return f"<h2>What to run next</h2><p>In <code>{escape(str(Path.cwd()))}</code>:</p><ol>{body}</ol>"


def _rig(of: Subject) -> tuple[str, list[tuple[str, str]]]:
    """The rig.toml beside the checkpoint or the recording, as a command names it, and what to do before it is used."""
    edit = f'checkpoint = "{of.path.resolve()}"'
    for rig in dict.fromkeys((of.path.parent / "rig.toml", of.recording.parent / "rig.toml")):
        if rig.is_file():
            try:
                same = Path(rigs.load(rig).checkpoint).resolve() == of.path.resolve()
            except NedsError:
                same = False
            return _quoted(rig), [] if same else [(edit, f"to be set in {rig}, which names another decoder")]
    folder = of.path.parent / "rig"
    make = f"{called('neds-rt')} init {_quoted(folder)} --from {_quoted(of.recording)}"
    return _quoted(folder / "rig.toml"), [
        (make, "writes a rig's folder with every key"), (edit, f"to be set in {folder / 'rig.toml'}")
    ]  # fmt: skip


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
