"""`import.toml`: what was taken of a source, so that the same import can be made again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from neds_core import toml
from neds_core.errors import ConfigError
from neds_core.files import whole
from neds_core.io.importing.found import Found
from neds_core.io.importing.options import NONE, Options
from neds_core.io.importing.outputs import chosen

NAME = "import.toml"


class Recipe(Options, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of an import with its source and the session that it writes. Paths start from the file's folder."""

    source: str
    out: str

    @property
    def options(self) -> Options:
        """What is taken."""
        return Options(**{name: getattr(self, name) for name in Options.__struct_fields__})


def recipe(source: Path, out: Path, options: Options, found: Found) -> Recipe:
    """The recipe of an import, with the outputs that were taken by name; none where a session is taken as it is."""
    given: dict[str, Any] = {name: getattr(options, name) for name in Options.__struct_fields__}
    taken = () if found.session else tuple(map(str, chosen(found, options.outputs))) or (NONE,)
    bin_ms = None if found.session else options.bin_ns * 1e-6
    given |= {"source": str(source), "out": str(out), "outputs": taken, "bin_ms": bin_ms}
    return Recipe(**given)


def place(out: Path) -> Path:
    """Where the recipe of `out` lies: `NAME` beside it, with its name in front where that is of another session.

    Raises `ConfigError` where that one is of another as well.
    """
    for path in (out.parent / NAME, other := out.parent / f"{out.stem}.{NAME}"):
        if not path.is_file() or load(path).out == str(out.resolve()):
            return path
    raise ConfigError(f"{other} repeats the import of {load(other).out}; write {out.name} to another folder")


def save(made: Recipe, path: Path, comments: Iterable[str]) -> None:
    """Write a recipe with `comments` in front, a line each. Paths below its folder are written from there."""
    folder = path.parent.resolve()
    tree = msgspec.to_builtins(made)
    tree = {key: tree.pop(key) for key in ("source", "out")} | {
        key: v for key, v in tree.items() if v not in (None, (), {}, "")
    }
    for holder, key in ((tree, "source"), (tree, "out"), *((other, "file") for other in tree.get("behaviour", []))):
        holder[key] = _from(folder, holder[key])
    if made.also:
        tree["also"] = [_from(folder, each) for each in made.also]
    if (table := Path(made.trials)).is_file():
        tree["trials"] = _from(folder, str(table))
    text = "".join(f"# {line}\n" for line in comments) + toml.written(tree)
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def load(path: Path) -> Recipe:
    """Read a recipe; its paths become whole ones. Raises `ConfigError`."""
    found, folder = toml.load(path, Recipe), path.parent.resolve()
    behaviour = tuple(msgspec.structs.replace(other, file=str(folder / other.file)) for other in found.behaviour)
    trials = str(folder / found.trials) if found.trials and (folder / found.trials).is_file() else found.trials
    source, out, *also = (str(folder / each) for each in (found.source, found.out, *found.also))
    return msgspec.structs.replace(
        found, source=source, out=out, behaviour=behaviour, trials=trials, also=tuple(also)
    )  # fmt: skip


def _from(folder: Path, path: str) -> str:
    whole_path = Path(path).resolve()
    return str(whole_path.relative_to(folder)) if whole_path.is_relative_to(folder) else str(whole_path)
