"""`neds-rt import`: a recording as a lab has it, as a `Session.npz`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.cli.options import taking

if TYPE_CHECKING:
    from neds_core.data.session import Session
    from neds_core.io.importing.options import Options
    from neds_core.io.importing.recipe import Recipe

BEHAVIOUR = "behaviour."  # of roles in files of behaviour


@dataclass(frozen=True, slots=True)
class Given:
    """The options of `neds-rt import`."""

    source: Annotated[
        list[Path], typer.Argument(help="a file or folder with spikes, one for each probe; or an import.toml")
    ]
    out: Annotated[Path | None, typer.Option(help="session to write (.npz); import.toml is written beside it")] = None
    bin_ms: Annotated[float | None, typer.Option(help="width of a bin, 1 to 100 ms; 20 if not given")] = None
    outputs: Annotated[
        list[str] | None, typer.Option(help="NAME, NAME:HOW or NAME:HOW=AS, repeat for each; none: spikes alone")
    ] = None
    trials: Annotated[str | None, typer.Option(help="table of trials, in the source or a file; none: one stretch")] = (
        None
    )
    quality: Annotated[str | None, typer.Option(help="keep units of this label alone, such as good")] = None
    behaviour: Annotated[list[str] | None, typer.Option(help="a file with behaviour; repeat for each")] = None
    offset: Annotated[
        list[float] | None, typer.Option(help="seconds added to the times of each --behaviour, in their order")
    ] = None
    behaviour_rate_hz: Annotated[
        list[float] | None, typer.Option(help="samples a second of each --behaviour whose times are in samples")
    ] = None
    rate_hz: Annotated[float | None, typer.Option(help="samples a second, where spike times are in samples")] = None
    hold_s: Annotated[float | None, typer.Option(help="how long a sample stands for the behaviour; 1 if not given")] = (
        None
    )
    derivative_ms: Annotated[float | None, typer.Option(help="over how long a rate is taken; 100 if not given")] = None
    name: Annotated[
        list[str] | None,
        typer.Option(help="ROLE=NAME of a column or variable, such as time=t or behaviour.time=t; repeat for each"),
    ] = None


@taking(Given)
def import_session(given: Given) -> None:
    """Convert NWB, ALF, Phy, XDF, MATLAB, a table or a sorting to a Session.npz, and say what was found and taken.

    Exit code 3: the session is written, and its behaviour seems to be on another clock than its spikes.
    """
    from neds_core.data import session_file
    from neds_core.files import make_folder
    from neds_core.io.importing import recipe
    from runtime.cli.output import emit, note
    from runtime.start import called

    source, out, options = _what(given)
    beside = recipe.place(out)
    session, taken, found, made = _import(source, out, options)
    make_folder(out.parent)
    session_file.save(session, out)
    recipe.save(taken, beside, [f"neds-rt import {beside.name} repeats this import.", *found, *made])
    emit(None, lambda: made, as_json=False)
    note(f"{out} is written; {called('neds-rt')} import {beside} repeats the import")
    _judge_clocks(session, options)


def _judge_clocks(session: Session, options: Options) -> None:
    """Exit code 3 where behaviour and spikes do not seem to be on one clock."""
    from neds_core.data.checks import clocks
    from runtime.cli.output import note

    found = list(clocks.looks(session))
    wrong = [each for each in found if each.apart]
    for line in clocks.in_place(found) if found else [clocks.NONE]:
        note(f"clocks: {line}")
    for each in wrong:
        remedy = f"move its times by {-each.lag_s:+.1f} s"
        if len(options.behaviour) == 1:
            was = options.behaviour[0].offset_s
            remedy = f"give its true --offset, near {was - each.lag_s:.0f} (it was {was:g})"
        note(f"{each.told}: its clock seems to be another; {remedy}, or train on it as it is if you know why")
    if wrong:
        raise typer.Exit(3)


def _import(source: Path, out: Path, options: Options) -> tuple[Session, Recipe, list[str], list[str]]:
    """The session, its recipe, and the lines of what was found, which are printed at once, and of what was made.

    What was found is as large as the session, and is gone when this returns.
    """
    from neds_core.io.importing import load, recipe, told
    from neds_core.io.importing.grid import make
    from runtime.cli.output import emit

    found = load.find(source, options)
    lines = list(told.of_found(found))
    emit(None, lambda: lines, as_json=False)
    made = make(found, options)
    return made.session, recipe.recipe(source, out, options, found), lines, list(told.of_made(made, found))


def _what(given: Given) -> tuple[Path, Path, Options]:
    """Source, session and options: of the command line, or of the import.toml that it names."""
    from neds_core.errors import ConfigError
    from neds_core.io.importing import recipe

    source, also = given.source[0], given.source[1:]
    if source.suffix.lower() == ".toml":
        if also:
            raise ConfigError(f"{source} says what is taken; leave {also[0]} out, or write it there as also")
        said = [n for n in Given.__dataclass_fields__ if n not in ("source", "out") and getattr(given, n) is not None]
        if said:
            raise ConfigError(f"--{said[0].replace('_', '-')}: {source} says what is taken; change it there")
        known = recipe.load(source)
        out = given.out or Path(known.out)
        source, options = Path(known.source), known.options
    else:
        if given.out is None:
            raise ConfigError("--out is missing; name the session to write, such as --out session.npz")
        out, options = given.out, _options(given)
    if out.suffix != ".npz":
        raise ConfigError(f"--out {out} does not end in .npz; give a name that does")
    return source, out, options


def _options(given: Given) -> Options:
    """The options of the command line. Raises `ConfigError` for one that cannot be."""
    import msgspec

    from neds_core.errors import ConfigError
    from neds_core.io.importing.options import Options

    names = dict(map(_role, given.name or []))
    elsewhere = {role.removeprefix(BEHAVIOUR): name for role, name in names.items() if role.startswith(BEHAVIOUR)}
    behaviour: list[dict[str, Any]] = [{"file": file, "names": elsewhere} for file in given.behaviour or []]
    for option, key in (("offset", "offset_s"), ("behaviour_rate_hz", "rate_hz")):
        values = getattr(given, option) or []
        if len(values) > len(behaviour):
            said = f"--{option.replace('_', '-')} is there {len(values)} times and --behaviour {len(behaviour)}"
            raise ConfigError(f"{said}; give one for each")
        for other, value in zip(behaviour, values, strict=False):
            other[key] = value
    fields: dict[str, Any] = {
        "bin_ms": given.bin_ms, "outputs": given.outputs, "trials": given.trials, "quality": given.quality,
        "rate_hz": given.rate_hz, "also": tuple(map(str, given.source[1:])), "behaviour": behaviour,
        "hold_s": given.hold_s, "derivative_ms": given.derivative_ms,
        "names": {role: name for role, name in names.items() if not role.startswith(BEHAVIOUR)},
    }  # fmt: skip
    try:
        return msgspec.convert({key: value for key, value in fields.items() if value is not None}, Options)
    except msgspec.ValidationError as error:
        raise ConfigError(f"options of neds-rt import: {error}; correct the value") from None


def _role(text: str) -> tuple[str, str]:
    from neds_core.errors import ConfigError

    role, _, name = text.partition("=")
    if not role or not name:
        raise ConfigError(f"--name {text!r} is not ROLE=NAME; write for example time=spike_times")
    return role, name
