"""One calibration of a recorded session: read, fit, judge the file, write the same file with its gate."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from calibration import judge as judges, page, report as reports, update as updates
from calibration.fitting import base as bases, fit as fits, stages
from calibration.fitting.base import Base
from calibration.fitting.config import CalibrateConfig
from calibration.report import Report
from neds_core import checkpoint, toml
from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Gate
from neds_core.checkpoint.tensors import refuse_foreign
from neds_core.data import parts
from neds_core.errors import CheckpointError, ConfigError, DataError, NedsError
from neds_core.files import sha256, without_ending
from neds_core.io import recording
from neds_core.train.log import Show
from runtime.core.engine import RECOMMENDED


class Order(msgspec.Struct, frozen=True):
    """What to calibrate: paths of the session ("" = it is still to be collected), the base ("" = none), the
    configuration ("" = defaults), the output. update: units keep their rows, the trunk is frozen, and the report
    has the base beside what came of it, both as `decoder` (engine.decoder of the run) would publish them. base_sha:
    SHA-256 that the base's file must have, "" = any."""

    session: str
    base: str
    config: str
    out: str
    update: bool = False
    base_sha: str = ""
    decoder: str = RECOMMENDED


def run(order: Order, show: Show) -> Report:
    """Calibrate, and write the checkpoint and the page beside it.

    Raises `NedsError` for what cannot be done; nothing is then written. Without a page the checkpoint is good all the
    same, and the report says why there is none.
    """
    began, out, path = time.monotonic(), Path(order.out), Path(order.session)
    refuse(order)
    config, base = prepared(order)
    running = _checked(checkpoint.load(Path(order.base)), order) if order.update else None
    cut = parts.cut(recording.load(path))
    task = fits.Task(config, cut, path, sha256(path), without_ending(out).name, base, show)
    fitted = fits.fit(task)
    show.stage("judge")
    judged = judge(fitted)
    name = Path(order.base).name if order.base else ""
    report = reports.make(fitted, judged, name, began)
    beside = updates.compare(running, judged.made, fitted.parts.judge, order.decoder) if running is not None else None
    checkpoint.save(gated(judged, task), out)
    report = msgspec.structs.replace(report, checkpoint=str(out), checkpoint_sha=sha256(out), compared=beside)
    try:
        page.write(report, out)
    except (NedsError, OSError) as error:
        report = msgspec.structs.replace(report, page_unwritten=str(error))
    return report


def refuse(order: Order) -> None:
    """Raise `ConfigError` where the output cannot be written, or would replace what it is made from; `DataError` where
    there is no such session."""
    out = Path(order.out)
    if order.session and not Path(order.session).exists():
        raise DataError(f"recording {order.session} does not exist; check the path of --session")
    refuse_foreign(out)
    for what, path in (("--from", order.base), ("--session", order.session)):
        if path and out.exists() and Path(path).exists() and out.samefile(path):
            raise ConfigError(f"--out {out} is the file of {what}; give another name")


def prepared(order: Order) -> tuple[CalibrateConfig, Base | None]:
    """The configuration and the base. Raises a `NedsError` where they do not fit, whatever the session."""
    config = toml.load(Path(order.config), CalibrateConfig) if order.config else CalibrateConfig()
    base = bases.read(Path(order.base)) if order.base else None
    if base is not None:
        _refuse_other(base.parents[0], order)
    config = updates.of_rows(config) if order.update else config
    stages.refuse(config, base)
    return config, base


def _checked(made: Checkpoint, order: Order) -> Checkpoint:
    """The base as a checkpoint."""
    _refuse_other(made.sha, order)
    return made


def _refuse_other(sha: str, order: Order) -> None:
    """Raise `CheckpointError` where the base's file is another than the one that is meant."""
    if order.base_sha not in ("", sha):
        raise CheckpointError(
            f"{order.base} is no longer the file that the run decodes with ({sha[:12]}, not {order.base_sha[:12]}); "
            "put that one back and start the update again"
        )


def judge(fitted: fits.Fitted) -> judges.Judgement:
    """Judge what a file of the fitted checkpoint holds."""
    with tempfile.TemporaryDirectory(prefix="neds-rt-") as folder:
        path = Path(folder) / "candidate.safetensors"
        checkpoint.save(fitted.made, path)
        return judges.judge(checkpoint.load(path), fitted.parts.judge, fitted.temperatures)


def gated(judged: judges.Judgement, task: fits.Task) -> Checkpoint:
    """The checkpoint that was judged, its tensors untouched, with its gate in the header."""
    made = judged.made
    gate = Gate(
        session=task.parts.fit.name,
        session_sha=task.recording_sha,
        unit_map_sha=made.header.unit_map_sha,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        offers=judged.offers,
        parents=task.base.parents if task.base else (),
    )
    return replace(made, header=msgspec.structs.replace(made.header, gate=gate))
