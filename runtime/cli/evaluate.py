"""`neds-rt evaluate`: a part of a recording, by default what was held out, decoded by the pipeline, or predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.cli.play import Split

TASKS = ("decode", "encode", "within", "cross")


def evaluate(
    given: Annotated[
        list[Path],
        typer.Argument(metavar="FILES", help="a recording (.npz, .nwb) and one checkpoint for each seed, in any order"),
    ],
    task: Annotated[str, typer.Option(help="decode, encode, within or cross")] = "decode",
    split: Annotated[Split, typer.Option(help="with decode: part of the recording; all: of one not trained on")] = (
        Split.TEST
    ),
    figures: Annotated[Path | None, typer.Option(help="folder for figures")] = None,
    record: Annotated[bool, typer.Option(help="write the scores and one more look into the headers")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Score checkpoints on the last 20 % (or --split) over training seeds, with intervals paired by trial.

    decode: behaviour from spikes, streamed, beside ridge and blend. encode: spikes from all
    behaviours, each, and none. within: held-out units, and the next bin. cross: any from any.
    """
    import msgspec
    import torch

    from neds_core import checkpoint as files
    from neds_core.errors import ConfigError
    from neds_core.io import recording
    from runtime.scoring import report, seeds

    if task not in TASKS:
        raise ConfigError(f"--task {task!r} is not known; choose {', '.join(TASKS[:-1])} or {TASKS[-1]}")
    if record and task != "decode":
        raise ConfigError(f"--record: only scores of decoding are written into a checkpoint, not of {task}")
    if split is not Split.TEST and (record or figures or task != "decode"):
        raise ConfigError(f"--split {split} is for --task decode without --record and --figures; leave it out")
    for path in given:
        if not path.exists():
            raise ConfigError(f"{path} does not exist; check the path")
    recordings, checkpoints = (
        [p for p in given if (p.suffix.lower() in recording.KINDS) is one] for one in (True, False)
    )
    if len(recordings) != 1 or not checkpoints:
        raise ConfigError(
            f"given {len(recordings)} recordings (.npz, .nwb) and {len(checkpoints)} checkpoints; give one recording "
            "and its checkpoints, in any order"
        )
    torch.set_num_threads(1)
    session = recording.load(recordings[0])
    made = [files.load(path) for path in checkpoints]
    result: dict[str, Any] = {"task": task, "recording": session.name, "checkpoints": [p.name for p in checkpoints]}
    _refuse_brought(made, task, figures, record)
    if task == "decode":
        result |= {"split": split.value, "note": _note(made, recordings[0], split)}
        rows = _decoded(made, session, split)
        result |= _pooled(rows, session, figures) if split is Split.TEST else seeds.pool(rows)
        if record:
            for path, row in zip(checkpoints, rows, strict=True):
                _look(path, row.scalars())
    else:
        result |= _predicted(task, made, session, figures)
    if json:
        print(msgspec.json.encode(result).decode())
    else:
        print("\n".join(report.pooled_lines(result) if task == "decode" else report.task_lines(result)))


def _refuse_brought(checkpoints: list[Any], task: str, figures: Path | None, record: bool) -> None:
    """A decoder that was brought is streamed and scored, and no more."""
    from neds_core.errors import ConfigError

    for made in checkpoints:
        if made.state_space is not None and (task != "decode" or figures or record):
            raise ConfigError(
                f"{made.header.name!r} is a decoder that was brought: it is scored by --task decode without --figures "
                "and --record; leave them out"
            )


def _look(path: Path, scalars: dict[str, dict[str, float]]) -> None:
    """One more look at the test part, and what it showed, in a checkpoint's header."""
    from dataclasses import replace

    import msgspec

    from neds_core import checkpoint as files

    made = files.load(path)
    taken = made.header.record
    new = msgspec.structs.replace(taken, test_looks=taken.test_looks + 1, test_scores=scalars)
    header = msgspec.structs.replace(made.header, record=new)
    files.save(replace(made, header=header), path)


def _note(checkpoints: list[Any], recording: Path, split: Split) -> str:
    """What a reader of the scores has to know of the part that they are of, '' = nothing."""
    from neds_core.files import sha256

    own = sha256(recording) in {made.header.record.recording_sha for made in checkpoints}
    if own and split is not Split.TEST:
        return f"trained on or chosen by bins of this part ({split}): these scores are no evidence of skill"
    if not own and split is Split.TEST:
        return "not the recording that was trained on: --split all scores the whole of it"
    return ""


def _decoded(checkpoints: list[Any], session: Any, split: Split = Split.TEST) -> list[Any]:
    """Every checkpoint, streamed over a part."""
    from neds_core.data import session as sessions
    from neds_core.scores import tasks as evaluation
    from runtime.core.engine import RECOMMENDED
    from runtime.live import offline
    from runtime.scoring import score as scoring, seeds, truth

    part = session if split is Split.ALL else getattr(sessions.split(session), split.value)
    rows = []
    for made in checkpoints:
        evaluation.refuse_other_units(made, session)
        log = offline.stream(made, part, RECOMMENDED)
        at = log.decoded_rows()
        measured = truth.recorded(part, log, at)
        found = scoring.score_log(made, log, at, measured)
        occurrence = truth.occurrences(log, at)
        rows.append(seeds.SeedScores(made, found.found, measured, occurrence, found.outputs, found.exact))
    return rows


def _pooled(rows: list[Any], session: Any, folder: Path | None) -> dict[str, Any]:
    """Scores over seeds, and curves of the first checkpoint."""
    from neds_core.data import session as sessions
    from runtime.engines.layout import layout
    from runtime.scoring import curves, seeds

    result = seeds.pool(rows)
    first = rows[0]
    if first.checkpoint.state_space is not None:
        return result
    result["curves"] = curves.curves(first, sessions.split(session).validation)
    if folder is not None:
        from benchmarks.accuracy import evaluated

        columns = layout(first.checkpoint).columns
        values = {name: first.found["neds"][:, column.start] for name, column in columns.items()}
        specs, bin_ns = layout(first.checkpoint).specs, session.bin_ns
        evaluated.decoding(result["curves"], values, first.truth.traces, first.segment, specs, bin_ns, folder)
    return result


def _predicted(task: str, checkpoints: list[Any], session: Any, folder: Path | None) -> dict[str, Any]:
    """Scores of a task that no pipeline streams."""
    from neds_core.data import lead
    from neds_core.errors import ConfigError
    from neds_core.scores import tasks as evaluation

    for made in checkpoints:
        evaluation.refuse_other_units(made, session)
        for name, ms in lead.of(made.specs).items() if task != "within" else ():
            raise ConfigError(
                f"{made.header.name} decodes {name} {ms:g} ms ahead, so --task {task} would show its future; "
                "give a checkpoint without lead_ms"
            )
    if task == "encode":
        return _encoded(checkpoints, session, folder)
    if task == "cross":
        result = evaluation.cross(checkpoints, evaluation.held_out(session))
    else:
        result = evaluation.within(checkpoints, evaluation.held_out(session, evaluation.WITHIN_BINS))
    if folder is not None:
        from benchmarks.accuracy import evaluated

        evaluated.predictions(task, result["scores"], folder)
    return result


def _encoded(checkpoints: list[Any], session: Any, folder: Path | None) -> dict[str, Any]:
    """Scores of spikes predicted from behaviour."""
    from neds_core.scores import tasks as evaluation

    held = evaluation.held_out(session)
    rates = evaluation.encode_rates(checkpoints, held)
    result = evaluation.encode(checkpoints, held, rates)
    if folder is not None:
        from benchmarks.accuracy import evaluated

        specs = tuple(evaluation.shown_specs(checkpoints[0]))
        evaluated.encoding(held, rates["all"][0], result["scores"], specs, folder)
    return result
