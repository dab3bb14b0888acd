"""One format for what a measurement leaves: a JSON object, a table for the terminal, PNGs, and a page with all of them.

A report is a dict with `schema`, `kind`, `created`, `command` and `machine`, and whatever its kind adds.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import machine
from neds_core.errors import ConfigError, DataError
from neds_core.files import make_folder, whole

SCHEMA = 1
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}
pre{background:#fafafa;border:1px solid #eee;padding:.8em;white-space:pre-wrap;font-size:13px;line-height:1.35}
img{max-width:100%}table{border-collapse:collapse}
td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:left}"""

Report = dict[str, Any]


def begun(kind: str) -> Report:
    """The part that all kinds share."""
    return {
        "schema": SCHEMA,
        "kind": kind,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["neds-rt", *sys.argv[1:]]),
        "machine": machine.fingerprint(),
    }


def of(kind: str, found: dict[str, Any]) -> Report:
    """A report of what a measurement gave; what that says of its machine is kept beside the fingerprint."""
    report = begun(kind)
    return report | found | {"machine": found.get("machine", {}) | report["machine"]}


def check_path(option: str, path: Path | None) -> None:
    """Refuse what can hold no report before anything is measured, None = none is asked for. Raises `ConfigError`."""
    if path is not None and path.suffix != ".json":
        raise ConfigError(f"{option} {path}: is no .json; give FILE.json, its page and pictures lie beside it")
    if path is not None and not path.absolute().parent.is_dir():
        raise ConfigError(f"{option} {path}: its folder does not exist; make it first")


def write(report: Report, lines: Iterable[str], path: Path, pictures: dict[str, Path] | None = None) -> None:
    """Write a report as FILE.json, and its page beside it as FILE.html."""
    save(report, path)
    page(report, lines, pictures or {}, path.with_suffix(".html"))


def save(report: Report, path: Path) -> None:
    """Write a report as JSON. Raises `ConfigError` where it cannot be written."""
    make_folder(path.parent)
    with whole(path) as partial:
        partial.write_bytes(msgspec.json.encode(report) + b"\n")


def load(path: Path) -> Report:
    """Read what `save` wrote. Raises `DataError` where it is none, or of another schema."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no report ({error}); give one that neds-rt bench wrote with --out") from None
    if not isinstance(found, dict) or "kind" not in found or found.get("schema") is None:
        raise DataError(f"{path} is no report; give one that neds-rt bench wrote with --out")
    if found["schema"] != SCHEMA:
        raise DataError(
            f"{path} is a report of schema {found['schema']}, this version reads {SCHEMA}; measure again, or read it "
            "with the version that wrote it"
        )
    return found


def page(report: Report, lines: Iterable[str], pictures: dict[str, Path], path: Path) -> None:
    """Write one HTML page that loads nothing: the table, the pictures (title -> PNG) and the machine."""
    title = f"neds-rt bench {report['kind']}, {report['created']}"
    parts = [
        f"<h1>{escape(title)}</h1><p><code>{escape(report['command'])}</code></p>",
        f"<pre>{escape(chr(10).join(lines))}</pre>",
        *(f"<h2>{escape(name)}</h2>{_embedded(png, name)}" for name, png in pictures.items()),
        f"<h2>Machine</h2>{_table(report['machine'])}",
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    with whole(path) as partial:
        partial.write_text(
            f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n',
            encoding="utf-8",
        )


def _embedded(png: Path, name: str) -> str:
    data = base64.b64encode(png.read_bytes()).decode()
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'


def _table(facts: dict[str, Any]) -> str:
    rows = []
    for name, value in facts.items():
        said = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        rows.append(f"<tr><td>{escape(name)}</td><td>{escape(said)}</td></tr>")
    return f"<table>{''.join(rows)}</table>"
