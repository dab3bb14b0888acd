"""One format for what a measurement leaves: a JSON object, a table for the terminal, PNGs, and a page with all of them.

A report is a dict with `schema`, `kind`, `created`, `command` and `machine`, and whatever its kind adds.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import machine
from neds_core.errors import ConfigError, DataError
from neds_core.files import make_folder, unwritten, whole

SCHEMA = 1
NUMBER = r"[-+]?[\d.]+( \[.+\])?|\[[-+\d., ]+\]"  # a cell that stands at the right: a number, an interval, or both
STYLE = """:root{color-scheme:light dark;--ink:#1d1f21;--soft:#5d6166;--line:#d9dbde;--back:#fff;--card:#f5f6f7}
@media(prefers-color-scheme:dark){:root{--ink:#e4e6e8;--soft:#a3a8ae;--line:#3b4046;--back:#17191c;--card:#22262a}}
body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:var(--ink);
background:var(--back)}h1{font-size:1.6em;margin-bottom:.2em}h2{font-size:1.2em;margin:1.8em 0 .5em;padding-top:.6em;
border-top:1px solid var(--line)}p.soft,small{color:var(--soft)}code{font-size:13px}
pre{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.8em;white-space:pre-wrap;
overflow-wrap:anywhere;font-size:13px;line-height:1.4}
img{max-width:100%;background:#fff;border-radius:6px;display:block;margin:.5em 0}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:0 1em}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:.5em 0}
td,th{padding:.2em .8em;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td:first-child{min-width:9em}summary{cursor:pointer;color:var(--soft)}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}"""
MARK = '<meta name="generator" content="neds-rt">'  # of every page of ours

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
    parts = [
        f"<p><code>{escape(report['command'])}</code></p>",
        text(lines),
        *(f"<h2>{escape(name)}</h2>{picture(png.read_bytes(), name)}" for name, png in pictures.items()),
        f"<h2>Machine</h2>{facts(report['machine'])}",
    ]
    with whole(path) as partial:
        html = document(f"neds-rt bench {report['kind']}, {report['created']}", parts)
        partial.write_text(html, encoding="utf-8")


def document(title: str, parts: Iterable[str]) -> str:
    """A page of HTML that loads nothing, readable in light and dark; parts: pieces of HTML below the title."""
    head = f'<meta charset="utf-8">{MARK}<title>{escape(title)}</title><style>{STYLE}</style>'
    body = f"<h1>{escape(title)}</h1>{''.join(parts)}"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def refuse_page(path: Path) -> None:
    """Raise `ConfigError` where a page may not be written to `path`: it is no .html, or another's file."""
    if path.suffix != ".html":
        raise ConfigError(f"--report {path}: is no .html; give FILE.html")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--report {path}: its folder does not exist; make it first")
    try:
        foreign = path.exists() and MARK.encode() not in path.read_bytes()[:1000]
    except OSError as error:
        raise unwritten(path, error) from None
    if foreign:
        raise ConfigError(f"{path} exists and is no report of neds-rt; name another with --report, or move it")


def text(lines: Iterable[str]) -> str:
    """Lines as they were printed."""
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def picture(png: bytes, name: str) -> str:
    """A picture inside the page."""
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; numbers and intervals stand at the right."""
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{cells}</tr>{body}</table></div>'


def _cell(said: str) -> str:
    number = ' class="n"' if re.fullmatch(NUMBER, said) else ""
    return f"<td{number}>{escape(said)}</td>"


def facts(found: dict[str, Any]) -> str:
    """Names and values, a row each."""
    rows = []
    for name, value in found.items():
        said = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        rows.append(f"<tr><td>{escape(name)}</td><td>{escape(said)}</td></tr>")
    return f"<table>{''.join(rows)}</table>"
