"""`neds-rt client`: the Python client as one file, made from its sources, for programs without neds-rt."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.output import note

MADE = "# Made by `neds-rt client`"
HEAD = f"""{MADE} of neds-rt {{version}}, from runtime/wire.py and runtime/client.py; make it anew, do not edit it.
# Python 3.11 or newer with pyzmq and msgspec: python -m pip install pyzmq msgspec
"""
THIRD = ("msgspec", "zmq")


def client(
    out: Annotated[Path, typer.Option(help="file to write")] = Path("neds_client.py"),
) -> None:
    """Write the Python client as one file that needs pyzmq and msgspec alone.

    A file that this command has written is replaced; any other is refused.
    """
    from neds_core.errors import ConfigError
    from neds_core.files import unwritten, whole

    try:
        made_here = not out.exists() or out.read_bytes().startswith(MADE.encode())
    except OSError as error:
        raise unwritten(out, error) from None
    if not made_here:
        raise ConfigError(f"{out} is not a client that this command has written; name another file with --out")
    with whole(out) as partial:
        partial.write_text(one_file(), encoding="utf-8")
    note(f"wrote {out}; it needs pyzmq and msgspec alone")


def one_file() -> str:
    """The text of the client: the definitions of `runtime.wire`, then those of `runtime.client`, each as it stands."""
    from runtime import client as reader, wire

    about, parts, imports = "", [], set()
    for module in (wire, reader):
        source = inspect.getsource(module)
        tree = ast.parse(source)
        heads = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        imports |= {ast.unparse(node) for node in heads if not _is_ours(node)}
        parts.append("\n".join(source.splitlines()[heads[-1].end_lineno or 0 :]).strip("\n"))
        about = ast.get_docstring(tree, clean=False) or about
    own = re.sub(r"\bwire\.(?=\w)", "", parts[1])  # what was another module's is this one's
    standard = sorted(line for line in imports if line.split()[1] not in THIRD)
    third = sorted(imports - set(standard))
    head = HEAD.format(version=_version())
    top = "\n".join(["from __future__ import annotations", "", *standard, "", *third])
    return f'{head}"""{about}"""\n\n{top}\n\n{parts[0]}\n\n\n{own}\n'


def _is_ours(node: ast.Import | ast.ImportFrom) -> bool:
    """Whether an import is of this package, or the one that every file begins with."""
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("runtime", "__future__")


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("neds-rt")
    except metadata.PackageNotFoundError:
        return "from a source tree"
