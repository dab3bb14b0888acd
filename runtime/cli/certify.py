"""`neds-rt certify`: the whole rig judged as it will run, with evidence and hashes, in a file that a run can demand."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.cli.options import taking
from runtime.cli.output import emit, note

if TYPE_CHECKING:
    from runtime.certificate.document import Certificate
    from runtime.certificate.evidence import Heard
    from runtime.config import RigConfig

CHECK_S, FLOOR_S, WAIT_S = 5.0, 4.0, 120.0
HALF = 0.5  # of the deadlines: a certificate that allows more says nothing


@dataclass(frozen=True)
class Options:
    """What `neds-rt certify` can be told."""

    rig: Annotated[Path, typer.Argument(help="RIG.toml")]
    seconds: Annotated[float, typer.Option(help="how long the rig runs to be judged")] = 300.0
    play: Annotated[
        bool, typer.Option(help="play the test part of score.recording: certifies software and machine only")
    ] = False
    misses: Annotated[
        float, typer.Option(help="share of the deadlines that may be missed at 95 % confidence (output.budget_ms)")
    ] = 1e-3
    out: Annotated[Path | None, typer.Option(help="the certificate; RIG.certificate.json beside the rig's file")] = None
    json: Annotated[bool, typer.Option("--json", help="the certificate as one JSON object on the last line")] = False


@taking(Options)
def certify(given: Options) -> None:
    """Judge a rig as it will run: its streams, its model, its machine. PASS, or FAIL and exit code 3.

    `neds-rt run --require-certificate` then starts only while nothing in the chain has changed.
    """
    import msgspec

    from neds_core.errors import ConfigError
    from runtime import config as rigs
    from runtime.certificate import chain, document, evidence

    rigs.check_seconds("--seconds", given.seconds)
    if not 0 < given.misses <= HALF:
        raise ConfigError(
            f"--misses {given.misses:g} is not above 0 and at most {HALF:g}: no time shows that none is ever missed, "
            "and more would say nothing; give a share such as 0.001"
        )
    config, home = rigs.load(given.rig), given.rig.resolve().parent
    out = given.out or document.beside(given.rig)
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: its folder does not exist; make it first")
    before = chain.of(config, home)
    heard = _measured(config, given)
    after = chain.changed(before, chain.of(config, home)) + chain.ran(
        before, heard.summary["scheduling"], heard.summary["model_sha"]
    )
    steady = document.Line(
        "chain", "FAIL" if after else "PASS", "; ".join(after) or "nothing changed while it was measured",
        "certify again, and leave the rig alone meanwhile" if after else "",
    )  # fmt: skip
    found = document.Certificate(
        created=datetime.now(UTC).isoformat(timespec="seconds"), rig=config.rig,
        source=heard.log.header.source, seconds=given.seconds, misses=given.misses, chain=before,
        evidence=(*evidence.judge(heard, config, given.misses), steady), measured=_numbers(heard),
    )  # fmt: skip
    document.save(found, out)
    tree = {"verdict": found.verdict, "certificate": str(out)} | msgspec.to_builtins(found)
    emit(tree, None if given.json else lambda: _lines(found, out), given.json)
    if found.verdict != "PASS":
        raise typer.Exit(3)


def _measured(config: RigConfig, given: Options) -> Heard:
    """Have the rig checked and run by the commands themselves, each in a process of its own."""
    import msgspec

    from benchmarks.latency import floor
    from benchmarks.latency.case import prepare
    from benchmarks.latency.load import Load
    from neds_core import toml
    from runtime.certificate.evidence import Heard
    from runtime.children import Child
    from runtime.io import log_file

    note(f"the floor of this machine: timer, LSL and ZeroMQ for {FLOOR_S:g} s")
    taken = floor.measure(FLOOR_S)
    with tempfile.TemporaryDirectory(prefix="neds-rt-certify-") as name:
        folder = Path(name)
        if not given.play:
            rig = folder / "rig.toml"
            free = msgspec.structs.replace(config, certificate="")  # it is made here
            rig.write_text(toml.written(msgspec.to_builtins(free)), encoding="utf-8")
            plan, summary = _checked_and_run(folder, rig, given.seconds)
        else:
            case = prepare(folder, config, Load(), given.seconds)
            with Child(
                folder, "play", case.recording, "--prefix", case.prefix, "--split", "test", "--repeat",
                "--wait", WAIT_S, "--parent", os.getpid(),
            ):  # fmt: skip
                plan, summary = _checked_and_run(folder, case.rig, given.seconds, "--allow-replay")
        return Heard(plan, summary, log_file.load(folder / "run.npz"), given.seconds, taken)


def _checked_and_run(folder: Path, rig: Path, seconds: float, *words: str) -> tuple[Any, Any]:
    """What `check` and then `run` report. words: options of both."""
    from runtime.children import Child

    note(f"listening for {CHECK_S:g} s")
    with Child(folder, "check", rig, "--seconds", CHECK_S, "--json", *words) as check:
        plan = check.result(codes=(0, 3))
    note(f"running for {seconds:g} s")
    log = folder / "run.npz"
    with Child(
        folder, "run", rig, "--seconds", seconds, "--headless", "--json", "--save-log", log, *words, say=note
    ) as run:
        return plan, run.result()


def _numbers(heard: Heard) -> dict[str, Any]:
    """The numbers that a certificate keeps."""
    kept = (
        "edge_to_pub_ms", "edge_to_pub_decoded_ms", "wait_ms", "infer_ms", "send_ms", "age_ms", "source_delay_ms",
        "deadline_misses", "miss_causes", "spikes", "tokens", "counters", "streamed_vs_offline_max_abs", "scheduling",
        "stolen_ms", "outputs", "engine", "decoder", "model", "model_sha", "run_s", "events",
    )  # fmt: skip
    streams = {name: heard.plan[name] for name in ("spikes", "markers", "behaviours")}
    return {name: heard.summary[name] for name in kept} | {"check": streams, "floor_ms": heard.floor}


def _lines(found: Certificate, out: Path) -> Iterator[str]:
    """The table: verdict, what was looked at, what was seen; below a FAIL its remedy."""
    for line in found.evidence:
        yield f"{line.verdict if line.verdict != 'INFO' else '':5} {line.name:28} {line.said}"
        if line.remedy:
            yield f"{'':5} {'':28} -> {line.remedy}"
    if found.source != "live":
        yield f"of a {found.source}: certifies software and machine, not the rig's own streams"
    failed = f" ({', '.join(found.failed)})" if found.failed else ""
    yield f"checkpoint {found.chain.checkpoint[:12]}; {len(found.chain.code)} files of code; {out}"
    yield f"{found.verdict}{failed}"
