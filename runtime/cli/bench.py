"""`neds-rt bench ...`: measurements of accuracy and of cost, one command each; the work is done in `benchmarks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

bench = typer.Typer(help="Measure: tables on real recordings, with JSON.", no_args_is_help=True, rich_markup_mode=None)


@bench.command()
def accuracy(
    quick: Annotated[bool, typer.Option(help="the same rows with small grids, short training and one seed")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
    out: Annotated[
        Path | None, typer.Option(help="JSON-lines file of finished rows; a later call goes on there")
    ] = None,
    only: Annotated[
        str, typer.Option(help="a regular expression of 'recording task split peer'; join files of rows with cat")
    ] = "",
    figures: Annotated[Path | None, typer.Option(help="folder for bars and for scatters trial by trial")] = None,
) -> None:
    """Score NEDS and its peers on the example recordings: skill, paired intervals and cost side by side."""
    import sys
    import time

    import msgspec

    from benchmarks.accuracy import compare as table, goals as accuracy_goals, table as accuracy_table

    began, began_cpu = time.perf_counter(), time.process_time()
    path = out or Path("runs") / ("accuracy-quick.jsonl" if quick else "accuracy.jsonl")
    rows = table.run(path, quick, lambda what: print(what, file=sys.stderr, flush=True), only=only)
    pooled, goals = accuracy_table.pooled(rows), accuracy_goals.judge(rows)
    made_here = [r for r in pooled if not r["loaded"]]
    minutes = sum(r["seconds_search"] + r["seeds"] * r["seconds_train"] for r in made_here) / 60
    print("\n".join([*accuracy_table.lines(pooled), "", *accuracy_goals.lines(goals), ""]))
    where = table.conditions()
    torch_version = where["versions"]["torch"]
    print(f"{minutes:.0f} CPU minutes of search and training; {where['cpu']}, one thread, torch {torch_version}")
    if figures:
        from benchmarks.accuracy import figures as accuracy_figures

        for file in accuracy_figures.draw(figures, rows, pooled):
            print(f"wrote {file}")
    if json:
        result = {
            "quick": quick,
            "minutes_of_this_call": (time.perf_counter() - began) / 60,
            "cpu_minutes_of_this_call": (time.process_time() - began_cpu) / 60,
            "cpu_minutes_of_all_rows": minutes,
            "machine": where,
            "goals": goals,
            "table": pooled,
        }
        print(msgspec.json.encode(result).decode())


@bench.command()
def kernels(
    quick: Annotated[bool, typer.Option(help="the headline size only, in under 45 s")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Cost of a decoding step against the published way and the floor, on one pinned thread.

    Exit 3: it is wrong, or at the headline's size less than 30 times faster than the best full forward, less than 3
    times faster than the step in torch, or longer than 3 times the floor.
    """
    import msgspec

    from benchmarks.cost import kernels as work
    from benchmarks.cost.full_forward import WrongError

    try:
        result = work.run(quick)
    except WrongError as error:
        print(error)
        raise typer.Exit(3) from None
    print("\n".join(work.lines(result)))
    if json:
        print(msgspec.json.encode(result).decode())
    if not result["gate"]["passed"]:
        raise typer.Exit(3)


@bench.command()
def train(
    quick: Annotated[bool, typer.Option(help="a quarter of the batch and 3 steps instead of 4")] = False,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch")] = 1,
    gpu: Annotated[bool, typer.Option(help="on the GPU instead of the CPU")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Samples a second and memory of a training step at the published sizes. Exit 3: its outputs are wrong."""
    import msgspec
    import torch

    from benchmarks.cost import train_throughput
    from neds_core.errors import ConfigError

    if gpu and not torch.cuda.is_available():
        raise ConfigError("--gpu was given, but torch finds no GPU here; leave it out")
    result = train_throughput.run(quick, "cuda" if gpu else "cpu", threads)
    print("\n".join(train_throughput.lines(result)))
    if not result.gate:
        print(f"outputs differ from the dense evaluation by {result.gate_error:.1e}; nothing was timed")
    if json:
        print(msgspec.json.encode(result).decode())
    if not result.gate:
        raise typer.Exit(3)


@bench.command()
def ablation(
    quick: Annotated[
        bool, typer.Option(help="the same rows with a few steps and one seed: shows that it runs")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
    out: Annotated[
        Path | None, typer.Option(help="JSON-lines file of finished rows; a later call goes on there")
    ] = None,
) -> None:
    """Change one part of the demo's training at a time, and score it inside the training part."""
    import sys

    import msgspec

    from benchmarks.studies import ablation as work

    path = out or Path("runs") / ("ablation-quick.jsonl" if quick else "ablation.jsonl")
    result = work.result(work.run(path, quick, lambda what: print(what, file=sys.stderr, flush=True)), quick)
    print("\n".join(work.lines(result["table"])))
    if json:
        print(msgspec.json.encode(result).decode())


@bench.command()
def degraded(
    recording: Annotated[Path, typer.Argument(help="a Session.npz")],
    checkpoints: Annotated[list[Path], typer.Argument(help="one checkpoint for each training seed")],
    draws: Annotated[int, typer.Option(min=1, help="random draws of each condition")] = 5,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Score neds, ridge and blend on held-out spikes that were deleted, merged, lost or left unsorted."""
    import msgspec
    import torch

    from benchmarks.studies import degraded as work

    torch.set_num_threads(1)
    result = work.bench(recording, checkpoints, draws)
    print(msgspec.json.encode(result).decode() if json else "\n".join(work.lines(result)))


@bench.command()
def regions(
    recordings: Annotated[list[Path], typer.Argument(help="Session.npz; several: one is left out at a time")],
    model: Annotated[list[str] | None, typer.Option(help="NAME=CHECKPOINT, one for each seed and recording")] = None,
    permutations: Annotated[int, typer.Option(min=0, help="shuffles of the labels within each session")] = 100,
    repeats: Annotated[int, typer.Option(min=1, help="draws of the folds of one recording")] = 5,
    min_animals: Annotated[int, typer.Option(min=1, help="animals that must have shown a region")] = 3,
    figures: Annotated[Path | None, typer.Option(help="folder for the maps and confusion matrices")] = None,
    projection: Annotated[str, typer.Option(help="pca, or umap (pip install 'neds-rt[map]')")] = "pca",
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Tell a unit's brain region from its embedding, beside what tells it without a model."""
    import msgspec

    from benchmarks.studies import region_figures, regions as work
    from neds_core.errors import ConfigError

    if projection not in ("pca", "umap"):
        raise ConfigError(f"--projection {projection}: not known; choose pca or umap")
    models = work.parse_models(model or [])
    result, plan, shown = work.bench(recordings, models, permutations, repeats, min_animals)
    if figures:
        for path in region_figures.draw(figures, plan.places, shown, result["confusion"], projection):
            print(f"wrote {path}")
    print(msgspec.json.encode(result).decode() if json else "\n".join(work.lines(result)))


@bench.command()
def target(
    recording: Annotated[Path, typer.Argument(help="a Session.npz")],
    checkpoints: Annotated[list[Path], typer.Argument(help="one checkpoint for each training seed")],
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """How soon a trial's class is known: neds, blend, logistic and LDA against time since the trial's start."""
    import msgspec
    import torch

    from benchmarks.studies import target as work

    torch.set_num_threads(1)
    result = work.bench(recording, checkpoints)
    print("\n".join(work.lines(result)))
    if json:
        print(msgspec.json.encode(result).decode())


@bench.command()
def transfer(
    folder: Annotated[Path | None, typer.Argument(help="sessions as in examples/steinmetz2019/sessions")] = None,
    quick: Annotated[bool, typer.Option(help="30 trials, one seed and short schedules, in a few minutes")] = False,
    trials: Annotated[list[int] | None, typer.Option(min=0, help="training trials, 0: all of the first 70 %")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="training seeds at 30 trials; one elsewhere")] = None,
    made_up: Annotated[bool, typer.Option("--made-up", help="synthetic animals that share their latents")] = False,
    out: Annotated[
        Path | None, typer.Option(help="JSON-lines file of finished rows, trunks beside it; a later call goes on there")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="PNG: pre-trained against scratch, a point a session")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Train NEDS on all mice but one, tune it on the first trials of that one, and compare with three controls."""
    import sys

    import msgspec

    from benchmarks.accuracy import steinmetz
    from benchmarks.studies import made_up as animals, transfer as work, transfer_table
    from neds_core.errors import ConfigError

    if made_up and folder:
        raise ConfigError(f"--made-up and the folder {folder} were both given; leave one of them out")
    study = work.sized(work.study(quick, made_up), trials, seeds)
    name = f"transfer{'-made-up' * made_up}{'-quick' * quick}.jsonl"
    path = out or Path("runs") / name
    if made_up:
        bundles = animals.bundles(animals.WORLD, study.asked.outputs)
    else:
        bundles = steinmetz.read_folder(folder or steinmetz.FOLDER)
    rows = work.run(bundles, study, path, lambda what: print(what, file=sys.stderr, flush=True))
    result = transfer_table.table(rows, study)
    print("\n".join(transfer_table.lines(result)))
    if figure:
        from benchmarks.studies import transfer_figures

        transfer_figures.scatter(result["sessions"], study.asked, figure)
        print(f"wrote {figure}")
    if json:
        print(msgspec.json.encode(result).decode())


@bench.command()
def choice(
    folder: Annotated[Path | None, typer.Argument(help="sessions as in examples/steinmetz2019/sessions")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Tell a choice from contrasts, spikes and both: on all trials, at equal contrasts, before the first movement."""
    import sys

    import msgspec
    import torch

    from benchmarks.accuracy import steinmetz
    from benchmarks.studies import choice as work

    torch.set_num_threads(1)
    bundles = steinmetz.read_folder(folder or steinmetz.FOLDER)
    result = work.bench(bundles, lambda what: print(what, file=sys.stderr, flush=True))
    print("\n".join(work.lines(result)))
    if json:
        print(msgspec.json.encode(result).decode())
