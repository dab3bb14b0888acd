"""A TOML file with every key of a struct: its value, and behind it what it is for."""

from __future__ import annotations

from typing import Any

from msgspec import NODEFAULT, Struct, inspect

from neds_core.toml import written

COLUMN = 40  # where what a key is for begins


def commented(kind: type[Struct], said: dict[str, str], values: dict[str, Any], off: dict[str, Any]) -> str:
    """Every key below `kind`, dotted: at its value in `values`, else at its default, with `said` behind it.

    off: keys that are left unset, each with the value that it may have; a line that begins with # sets it. A key whose
    value is a table has its lines there, name -> value.
    """
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return "\n".join(_table(described, "", said, values, off)).strip("\n") + "\n"


def _table(
    struct: inspect.StructType, at: str, said: dict[str, str], values: dict[str, Any], off: dict[str, Any]
) -> list[str]:  # fmt: skip
    """Lines of one table and of those below it; TOML has a table's own keys before the tables in it."""
    own, below = [], []
    for field in struct.fields:
        key, found = field.encode_name, field.type
        name = f"{at}.{key}" if at else key
        if isinstance(found, inspect.StructType):
            below += ["", *_table(found, name, said, values, off)]
        elif isinstance(found, inspect.DictType):
            below += ["", _line(f"[{name}]", said[name])]
            below += [f"# {_set(key, value)}" for key, value in off.get(name, {}).items()]
        elif name in off and isinstance(off[name], list):
            below += _stages(name, off[name], said)
        elif name in off:
            own.append(_line(f"# {_set(key, off[name])}", said[name]))
        else:
            own.append(_line(_set(key, values[name] if name in values else _default(field)), said[name]))
    return [*([f"[{at}]"] if at else []), *own, *below]


def _stages(name: str, tables: list[dict[str, Any]], said: dict[str, str]) -> list[str]:
    """A list of tables, left unset."""
    lines = []
    for table in tables:
        lines += ["", _line(f"# [[{name}]]", said[name])]
        lines += [_line(f"# {_set(key, value)}", said[f"{name}.{key}"]) for key, value in table.items()]
    return lines


def _default(field: inspect.Field) -> Any:
    """The default of a key. `KeyError` for one that has none and no value."""
    if field.default_factory is not NODEFAULT:
        return field.default_factory()
    if field.default is NODEFAULT or field.default is None:
        raise KeyError(f"{field.encode_name} needs a value")
    return field.default


def _set(key: str, value: Any) -> str:
    return written({key: value}).strip()


def _line(text: str, said: str) -> str:
    """What a key is for behind it, or above it where it is long."""
    return f"{text.ljust(COLUMN)}# {said}" if len(text) < COLUMN else f"# {said}:\n{text}"
