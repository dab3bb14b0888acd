"""`neds-rt export`: a session or the log of a run, as NWB or as pynapple's objects."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtime.cli.options import taking
from runtime.cli.output import note

if TYPE_CHECKING:
    from neds_core.io.nwb import Origin, Subject
    from runtime.cli.export.of_log import Taken

UNKNOWN = "unknown"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EXAMPLE = "2026-01-31T14:03:00+01:00"


class Form(StrEnum):
    """What is written."""

    NWB = "nwb"
    PYNAPPLE = "pynapple"


@dataclass(frozen=True, slots=True)
class Given:
    """The options of `neds-rt export`."""

    source: Annotated[Path, typer.Argument(help="a session (.npz, .nwb of neds-rt) or a log of neds-rt run --save-log")]
    out: Annotated[Path, typer.Option(help="FILE.nwb; with --to pynapple a folder")]
    to: Annotated[Form | None, typer.Option(help="nwb, which an --out of .nwb is without it, or pynapple")] = None
    start: Annotated[
        str | None, typer.Option(help=f"when bin 0 began, such as {EXAMPLE}, or {UNKNOWN}; NWB has to say it")
    ] = None
    checkpoint: Annotated[
        Path | None, typer.Option(help="of a run whose log names no units, where it no longer lies where the log says")
    ] = None
    markers: Annotated[bool, typer.Option(help="of a run: segments are the trials of its markers")] = True
    subject: Annotated[str, typer.Option(help="the animal's name, for NWB")] = ""
    species: Annotated[str, typer.Option(help="in Latin, such as Mus musculus, for NWB")] = ""
    sex: Annotated[str, typer.Option(help="M, F, O or U, for NWB")] = ""
    age: Annotated[str, typer.Option(help="as ISO 8601, such as P90D, for NWB")] = ""
    force: Annotated[bool, typer.Option("--force", help="write over what is there")] = False


@taking(Given)
def export(given: Given) -> None:
    """Write a session or a run as NWB, or as pynapple's objects, a file each."""
    from neds_core.io.nwb import Subject

    form = _form(given)
    subject = Subject(given.subject, given.species, given.sex, given.age)
    subject.refuse()
    start = None if given.start is None else start_ns(given.start)
    taken = _taken(given)
    for each in taken.notes:
        note(each)
    if form is Form.PYNAPPLE:
        _to_pynapple(given, taken)
    else:
        _to_nwb(given, taken, _origin(given, taken, subject, start))


def _form(given: Given) -> Form:
    """What is written. Raises `ConfigError` where `--out` does not fit, and where a file is there."""
    from neds_core.errors import ConfigError

    out, suffix = given.out, given.out.suffix.lower()
    form = given.to or (Form.NWB if suffix == ".nwb" else None)
    if form is None or (form is Form.NWB and suffix != ".nwb"):
        raise ConfigError(f"--out {out} does not end in .nwb; give FILE.nwb, or a folder with --to pynapple")
    if form is Form.NWB:
        if given.source.suffix.lower() == ".nwb":
            raise ConfigError(f"{given.source} is NWB already; --to pynapple makes pynapple's objects of it")
        if out.exists() and (out.is_dir() or not given.force):
            raise ConfigError(f"--out {out} is there already; name another file, or give --force to write over it")
        return form
    if suffix in (".nwb", ".npz") or out.is_file():
        raise ConfigError(f"--out {out}: --to pynapple writes several files; name a folder")
    words = ("start", "subject", "species", "sex", "age")
    if said := next((word for word in words if getattr(given, word)), None):
        raise ConfigError(f"--{said} is for NWB, and pynapple's files have no place for it; leave it out")
    return form


def start_ns(text: str) -> tuple[int, bool]:
    """`--start` in ns since 1970, and whether that is known. Raises `ConfigError` for what is no time with a zone."""
    from neds_core.errors import ConfigError

    if text == UNKNOWN:
        return 0, False
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--start {text!r} is no time as ISO 8601 writes it; give {EXAMPLE}, or {UNKNOWN}") from None
    if moment.tzinfo is None:
        raise ConfigError(f"--start {text!r} does not say its time zone; write it as {EXAMPLE}, or with Z for UTC")
    if moment > datetime.now(UTC) + timedelta(days=1):
        raise ConfigError(f"--start {text!r} is in the future; give the time at which bin 0 began")
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000, True


def _taken(given: Given) -> Taken:
    """The source. Raises `DataError` for what is neither a session nor a log."""
    from neds_core.errors import DataError
    from neds_core.io import recording
    from runtime.cli.export.of_log import Taken, taken
    from runtime.io import log_file

    path = given.source
    if path.suffix.lower() != ".nwb" and _is_log(path):
        return taken(log_file.load(path), path, given.checkpoint, markers=given.markers)
    if given.checkpoint is not None or not given.markers:
        raise DataError(f"{path} is no log of a run; --checkpoint and --no-markers are for those, leave them out")
    return Taken(recording.load(path))


def _is_log(path: Path) -> bool:
    """Whether a file is a log. Raises `DataError` where it is cut, or no file of ours."""
    from neds_core.errors import DataError
    from runtime.io.log_file import JSON

    if not path.exists():
        raise DataError(f"{path} does not exist; check the path")
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (OSError, zipfile.BadZipFile):
        names = []
    if f"{JSON}.npy" in names:
        return True
    if "header.npy" in names:
        return False
    raise DataError(f"{path} is cut short, or no session and no log of a run; copy it again, or give one of these")


def _origin(given: Given, taken: Taken, subject: Subject, start: tuple[int, bool] | None) -> Origin:
    """Where the session is from. Raises `ConfigError` where nobody says when it was."""
    from neds_core.errors import ConfigError
    from neds_core.io.nwb import Origin

    if start is None:
        if taken.start_ns is None:
            raise ConfigError(
                f"{given.source} does not say when it was recorded, and NWB has to; give --start {EXAMPLE} "
                f"(when bin 0 began), or --start {UNKNOWN}"
            )
        start = taken.start_ns, True
    more = {"exported_from": given.source.name, **(taken.more or {})}
    return Origin(start[0], subject, taken.versions or {}, more, start[1])


def _to_nwb(given: Given, taken: Taken, origin: Origin) -> None:
    from neds_core.files import make_folder
    from neds_core.io import nwb

    make_folder(given.out.parent)
    nwb.save(taken.session, given.out, origin, taken.run)
    moment = EPOCH + timedelta(microseconds=origin.start_utc_ns // 1000)
    began = f"bin 0 began at {moment.isoformat()}" if origin.start_known else "when bin 0 began is not known"
    note(f"{given.out} is written: {taken.session.size()}; {began}")


def _to_pynapple(given: Given, taken: Taken) -> None:
    from neds_core.errors import ConfigError
    from neds_core.files import make_folder
    from neds_core.io import pynapple_objects

    objects = pynapple_objects.of(taken.session, taken.run)
    places = {name: given.out / f"{name}.npz" for name in objects}
    if not given.force and (there := next((path for path in places.values() if path.exists()), None)):
        raise ConfigError(f"{there} is there already; name another folder, or give --force to write over it")
    others = (given.out / f"{name}.npz" for name in pynapple_objects.NAMES if name not in objects)
    if left := next((path for path in others if path.exists()), None):
        raise ConfigError(f"{left} is of another export, and this one writes none; delete it, or name another folder")
    make_folder(given.out)
    pynapple_objects.save(objects, given.out)
    note(f"{', '.join(path.name for path in places.values())} are written to {given.out}: {taken.session.size()}")
