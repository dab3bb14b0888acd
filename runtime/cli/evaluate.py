"""`neds-rt evaluate`: a part of a recording, by default what was held out, decoded by the pipeline, or predicted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.cli.options import taking
from runtime.cli.play import Split

TASKS = ("decode", "encode", "within", "cross")


@dataclass(frozen=True)
class Options:
    """What `neds-rt evaluate` can be told."""

    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES", help="a recording (.npz, .nwb) and one checkpoint for each seed, in any order"),
    ]
    task: Annotated[str, typer.Option(help="decode, encode, within or cross")] = "decode"
    split: Annotated[Split, typer.Option(help="with decode: part of the recording; all: of one not trained on")] = (
        Split.TEST
    )
    figures: Annotated[Path | None, typer.Option(help="folder for figures")] = None
    report: Annotated[
        Path | None, typer.Option(help="with decode: report to write; default: CHECKPOINT.report.html")
    ] = None
    no_report: Annotated[bool, typer.Option("--no-report", help="write no report")] = False
    record: Annotated[bool, typer.Option(help="write the scores and one more look into the headers")] = False
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False


@taking(Options)
def evaluate(given: Options) -> None:
    """Score checkpoints on the last 20 % (or --split) over training seeds, with intervals paired by trial.

    decode: behaviour from spikes, streamed, beside ridge and blend, with a report (HTML). encode: spikes from all
    behaviours, each, and none. within: held-out units, and the next bin. cross: any from any.
    """
    import msgspec
    import torch

    from neds_core import checkpoint as files
    from neds_core.io import recording
    from runtime.cli.page import page_for
    from runtime.scoring import report, seeds

    _refuse_mixed(given)
    origin, checkpoints = _sorted(given.files)
    decodes = given.task == "decode"
    page = page_for(given.report, given.no_report, checkpoints[0]) if decodes else None
    torch.set_num_threads(1)
    session = recording.load(origin)
    made = [files.load(path) for path in checkpoints]
    result: dict[str, Any] = {
        "task": given.task, "recording": session.name, "checkpoints": [p.name for p in checkpoints]
    }  # fmt: skip
    _refuse_brought(made, given)
    rows: list[Any] = []
    if decodes:
        result |= {"split": given.split.value, "note": evidence(made, origin, given.split)}
        rows = _decoded(made, session, given.split)
        result |= _pooled(rows, session) if given.split is Split.TEST else seeds.pool(rows)
        if given.record:
            for path, row in zip(checkpoints, rows, strict=True):
                _look(path, row.scalars())
    else:
        result |= _predicted(given.task, made, session, given.figures)
    lines = report.pooled_lines(result) if decodes else report.task_lines(result)
    if not given.json:
        print("\n".join(lines), flush=True)
    try:
        if decodes and given.figures is not None:
            _draw(rows[0], result, given.figures)
        result["report"] = (
            None if page is None else _written(given, page, checkpoints, origin, session, rows[0], result, lines)
        )
    finally:  # whatever becomes of pictures and page: the scores are out
        if given.json:
            print(msgspec.json.encode({"report": None} | result).decode(), flush=True)
    if result["report"] and not given.json:
        print(f"report of {checkpoints[0]}: {page}")


def _refuse_mixed(given: Options) -> None:
    """Options that have no meaning together. Raises `ConfigError`."""
    from neds_core.errors import ConfigError

    if given.task not in TASKS:
        raise ConfigError(f"--task {given.task!r} is not known; choose {', '.join(TASKS[:-1])} or {TASKS[-1]}")
    if given.record and given.task != "decode":
        raise ConfigError(f"--record: only scores of decoding are written into a checkpoint, not of {given.task}")
    if given.report and given.task != "decode":
        raise ConfigError(f"--report: there is none of --task {given.task}; leave it out, --figures draws its pictures")
    if given.split is not Split.TEST and (given.record or given.figures or given.task != "decode"):
        raise ConfigError(f"--split {given.split} is for --task decode without --record and --figures; leave it out")


def _sorted(given: list[Path]) -> tuple[Path, list[Path]]:
    """The recording and the checkpoints among the files. Raises `ConfigError`."""
    from neds_core.errors import ConfigError
    from neds_core.io import recording

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
    return recordings[0], checkpoints


def _refuse_brought(checkpoints: list[Any], given: Options) -> None:
    """A decoder that was brought is streamed and scored, and no more."""
    from neds_core.errors import ConfigError

    for made in checkpoints:
        if made.state_space is not None and (given.task != "decode" or given.figures or given.record):
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


def evidence(checkpoints: list[Any], recording: Path, split: Split) -> str:
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
        measured, bins = truth.recorded(part, log, at), truth.bins(part, log, at)
        found = scoring.score_log(made, log, at, measured)
        occurrence = truth.occurrences(log, at)
        rows.append(seeds.SeedScores(made, found.found, measured, occurrence, found.outputs, found.exact, bins))
    return rows


def _pooled(rows: list[Any], session: Any) -> dict[str, Any]:
    """Scores over seeds, and curves of the first checkpoint."""
    from neds_core.data import session as sessions
    from runtime.scoring import curves, seeds

    result = seeds.pool(rows)
    if rows[0].checkpoint.state_space is None:
        result["curves"] = curves.curves(rows[0], sessions.split(session).validation)
    return result


def _draw(first: Any, result: dict[str, Any], folder: Path) -> None:
    """The pictures of the first checkpoint, in a folder."""
    from benchmarks.accuracy import evaluated, shown
    from runtime.scoring.report import part_of

    found = shown.of_scores(first, result, part_of(Split.TEST))
    evaluated.save(evaluated.decoding(found, result["curves"]), folder)


def _written(given: Options, page: Path, *told: Any) -> str | None:
    """Write the report (`benchmarks.accuracy.reported.evaluation`); returns its path, as `page.write` does."""
    from benchmarks.accuracy import reported
    from runtime.cli.page import write

    return write(partial(reported.evaluation, *told), page, asked=given.report is not None)


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
