"""TOML to a tree of frozen structs, where an unknown key is refused with the nearest known one; and back."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec
from msgspec import Struct

from neds_core.errors import ConfigError

LONGEST = 60  # characters of a wrong value that are shown
Tree = TypeVar("Tree", bound=Struct)


def _known_keys(kind: Any, path: list[str]) -> list[str]:
    """Field names of the struct that lies at `path` below `kind`."""
    for name in path:
        kind = next((f.type for f in msgspec.structs.fields(kind) if f.encode_name == name), kind)
        args = [a for a in get_args(kind) if isinstance(a, type) and issubclass(a, Struct)]
        kind = args[0] if args else kind
    is_struct = isinstance(kind, type) and issubclass(kind, Struct)
    return [f.encode_name for f in msgspec.structs.fields(kind)] if is_struct else []


def _value(tree: Any, where: str, said: str) -> str:
    """What stands at a path such as `.linear.lags[0]`, as a sentence ends with it; '' where it was said already."""
    for step in re.findall(r"[^.\[\]`]+", where):
        try:
            tree = tree[int(step) if isinstance(tree, list) else step]
        except (LookupError, TypeError, ValueError):
            return ""
    shown = repr(tree[:LONGEST] if isinstance(tree, str) else tree)
    return f" {shown}" if isinstance(tree, str | int | float) and shown not in said else ""


def parse(text: str, kind: type[Tree], origin: str) -> Tree:
    """Build `kind` from TOML text; every fault is one `ConfigError` sentence with its key path."""
    return convert(_tables(text, origin), kind, origin)


def _tables(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin}: not valid TOML ({error}); correct that line") from None
    except RecursionError:
        raise ConfigError(f"{origin}: its tables or lists are nested too deeply; correct it") from None


def convert(tree: dict[str, Any], kind: type[Tree], origin: str) -> Tree:
    """Build `kind` from a tree of tables; every fault is one `ConfigError` sentence with its key path."""
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        message = str(error)
    body, _, where = message.partition(" - at `$")
    keys = [k for k in re.split(r"[.\[\]`]+", where) if k and k != "..." and not k.isdigit()]
    dotted = ".".join(keys)
    unknown = re.search(r"unknown field `(.+?)`", body)
    if unknown:
        near = difflib.get_close_matches(unknown[1], _known_keys(kind, keys), n=1, cutoff=0.4)
        known = ", ".join(_known_keys(kind, keys))
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {known}"
        raise ConfigError(f"{origin}: {'.'.join([*keys, unknown[1]])}: unknown key, {hint}")
    missing = re.search(r"missing required field `(.+?)`", body)
    if missing:
        raise ConfigError(f"{origin}: {'.'.join([*keys, missing[1]])}: required key is missing; add it")
    fault = f"{body[:1].lower()}{body[1:]}; correct the value{_value(tree, where, body)}"
    raise ConfigError(f"{origin}: {dotted}: {fault}" if dotted else f"{origin}: {fault}")


def load(path: Path, kind: type[Tree]) -> Tree:
    """Read and check a TOML file (see `parse`)."""
    return convert(tree(path), kind, str(path))


def tree(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, their keys not checked. Raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors put a byte order mark in front
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text in UTF-8 (UTF-16, perhaps); save it as UTF-8") from None
    return _tables(text, str(path))


def written(tree: dict[str, Any], at: str = "") -> str:
    """A tree of tables, as `msgspec.to_builtins` gives it, as TOML; what is None is left out. at: the table's own name.

    Raises `ValueError` for a value that TOML has not.
    """
    lines = [f"{_key(k)} = {_said(v)}" for k, v in tree.items() if not isinstance(v, dict) and v is not None]
    if at and (lines or not tree):
        lines.insert(0, f"[{at}]")
    below = {f"{at}.{_key(k)}" if at else _key(k): v for k, v in tree.items() if isinstance(v, dict)}
    return "\n".join(["\n".join(lines), *(written(v, name) for name, v in below.items())]) + "\n"


def _key(name: str) -> str:
    """A key as it may stand: bare, or quoted where it holds a space, a dot, or what is no ASCII."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _quoted(text: str) -> str:
    """A basic string: JSON's escapes, without pairs of surrogates, and DEL, which only TOML forbids."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _said(value: Any) -> str:
    """A value on one line."""
    match value:
        case str():
            return _quoted(value)
        case bool() | int():
            return json.dumps(value)
        case float():
            return repr(value)  # also inf and nan, which JSON spells otherwise
        case list() | tuple():
            return f"[{', '.join(map(_said, value))}]"
        case dict():
            pairs = (f"{_key(k)} = {_said(v)}" for k, v in value.items() if v is not None)
            return f"{{{', '.join(pairs)}}}"
    raise ValueError(f"TOML has no {type(value).__name__}")
