"""`neds-rt init FOLDER`: a rig folder for a recording, ready for the next five commands."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.cli.output import note

if TYPE_CHECKING:
    from neds_core.data.session import Session

LATENESS_MS = 5.0
COLUMNS = ("source_id", "region", "depth_um", "rate_hz")
STAGES = (
    {"steps": 80, "learning_rate": 2e-3, "trains": ["units", "session"]},
    {"steps": 320, "learning_rate": 5e-4, "trains": ["units", "session", "heads", "trunk"]},
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a folder is filled in with.

    what: says where it comes from; recording: path from the folder, '' = none yet; markers: stream name, '' = none;
    trial_s: of the made-up trials; units: the rows of units.tsv; left_out: why, of each behaviour that is no output;
    training: keys of train.toml that differ from their defaults.
    """

    rig: str
    what: str
    recording: str
    markers: str
    bin_ms: float
    trial_s: float
    outputs: tuple[str, ...]
    traces: tuple[str, ...]
    units: tuple[tuple[str, ...], ...]
    left_out: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)


def init(
    folder: Annotated[Path, typer.Argument(help="folder to make; it may exist, its files may not")],
    recording: Annotated[Path | None, typer.Option("--from", help="Session.npz: its units, outputs and bins")] = None,
) -> None:
    """Write a rig folder: rig.toml and train.toml with every key, a sender for these very units, the next commands.

    Without a recording units and outputs are examples to replace, and the commands begin with a first session.
    """
    from neds_core.data import session_file
    from neds_core.errors import ConfigError
    from neds_core.files import make_folder, whole

    rig = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-") or "rig"
    plan = first_day(rig) if recording is None else of_session(rig, session_file.load(recording), recording, folder)
    written = files(plan, folder)
    if there := [name for name in written if (folder / name).exists()]:
        raise ConfigError(f"{folder / there[0]} is there already; name another folder")
    make_folder(folder)
    for name, text in written.items():
        with whole(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    note(f"wrote {', '.join(written)} in {folder}; {folder / 'README.md'} has the next commands")


def first_day(rig: str) -> Plan:
    """A plan without a recording: three units and one output that stand for yours."""
    units = tuple((str(row), "?", "nan", "10") for row in range(3))
    what = "no recording: its units and outputs are examples"
    return Plan(rig, what, "", f"{rig}-markers", 20.0, 1.0, ("wheel_speed",), ("wheel_speed",), units)


def of_session(rig: str, session: Session, recording: Path, folder: Path) -> Plan:
    """The plan for a recording. Raises `DataError` where it has nothing to decode."""
    from neds_core.errors import DataError
    from runtime.cli.init.advice import advised

    outputs, left_out = _outputs(session)
    if not outputs:
        raise DataError(f"{recording}: no behaviour can be decoded: {'; '.join(left_out) or 'it has none'}")
    bin_ms = session.bin_ns * 1e-6
    lengths = session.segments[:, 1] - session.segments[:, 0]
    return Plan(
        rig,
        f"`{recording.name}` ({session.name}, {len(session.units)} units, bins of {bin_ms:g} ms)",
        os.path.relpath(recording.resolve(), folder.resolve()).replace(os.sep, "/"),
        "" if session.continuous else f"{rig}-markers",
        bin_ms,
        max(float(lengths.mean()) * bin_ms * 1e-3, 0.1),
        outputs,
        tuple(name for name in outputs if session.spec(name).kind == "continuous"),
        _units(session),
        left_out,
        advised(session),
    )


def files(plan: Plan, folder: Path = Path()) -> dict[str, str]:
    """Name -> text of each file of the folder. Its README has the programs as they are started from there."""
    from runtime.cli.init import sender
    from runtime.io import unit_stream
    from runtime.start import called

    spikes, markers = (json.dumps(name) for name in (f"{plan.rig}-spikes", plan.markers))
    left_out = "".join(f"\nLeft out of the outputs: {reason}.\n" for reason in plan.left_out)
    readme = sender.README if plan.recording else sender.FIRST_DAY
    programs = {"neds_rt": called("neds-rt", str(folder)), "python": called("python", str(folder))}
    return {
        "rig.toml": _rig(plan),
        "train.toml": _train(plan),
        "units.tsv": "".join("\t".join(row) + "\n" for row in (COLUMNS, *plan.units)),
        "sender.py": sender.SENDER.format(spikes=spikes, markers=markers, trial_s=plan.trial_s),
        "unit_stream.py": Path(unit_stream.__file__).read_text(encoding="utf-8"),
        "README.md": (readme + sender.FILES).format(rig=plan.rig, what=plan.what, **programs) + left_out,
    }


def _outputs(session: Session) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Behaviours that a training can judge, and of each other one why it cannot."""
    from neds_core.config import TrainConfig
    from neds_core.data.session import split
    from neds_core.errors import NedsError
    from neds_core.train import ready

    taken, left_out, parts = [], [], split(session)
    for spec in session.specs:
        try:
            ready.check(TrainConfig("", (spec.name,)), parts)
        except NedsError as error:
            left_out.append(str(error))
        else:
            taken.append(spec.name)
    return tuple(taken), tuple(left_out)


def _rig(plan: Plan) -> str:
    """The text of rig.toml."""
    from runtime.cli.init.keys import RIG
    from runtime.cli.init.toml import commented
    from runtime.config import RigConfig

    values = {
        "rig": plan.rig,
        "checkpoint": "neds.safetensors",
        "input.spikes": f"{plan.rig}-spikes",
        "input.markers": plan.markers,
        "bins.lateness_ms": min(LATENESS_MS, plan.bin_ms / 2),
        "output.budget_ms": min(plan.bin_ms, 1000.0),
        "output.valid_ms": min(3 * plan.bin_ms, 60_000.0),
        "score.recording": plan.recording,
    }
    off = {"input.behaviours": {name: f"{plan.rig}-{name}" for name in plan.traces}, "control.port": 5573}
    return commented(RigConfig, RIG, values, off)


def _train(plan: Plan) -> str:
    """The text of train.toml."""
    from neds_core.config import TrainConfig
    from runtime.cli.init.keys import TRAIN
    from runtime.cli.init.toml import commented

    lead = dict.fromkeys(plan.traces[:1], 60.0)
    off = {
        "lead_ms": lead,
        "fit.loss_weights": {plan.outputs[0]: 0.5},
        "finetune.stages": list(STAGES),
        "ensemble.linear_share": 0.4,
    }
    values = {"recording": plan.recording or "day1/session.npz", "outputs": plan.outputs}
    return commented(TrainConfig, TRAIN, values | plan.training, off)


def _units(session: Session) -> tuple[tuple[str, ...], ...]:
    """The rows of units.tsv: each unit as a stream tells it, and its mean rate inside the segments."""
    from runtime.io.lsl_description import unit_rows

    rates_hz = session.counts[session.bins()].mean(0) / (session.bin_ns * 1e-9)
    return tuple((*unit, f"{rate:.4g}") for unit, rate in zip(unit_rows(session.units), rates_hz, strict=True))
