"""Options that several `neds-rt bench` commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="one JSON object as the last line")]
Out = Annotated[Path | None, typer.Option(help="JSON-lines file of finished rows; a later call goes on there")]
Report = Annotated[Path | None, typer.Option(help="FILE.json of the report; beside it FILE.html")]
Recording = Annotated[Path, typer.Argument(help="a Session.npz")]
Checkpoints = Annotated[list[Path], typer.Argument(help="one checkpoint for each training seed")]
Folder = Annotated[Path | None, typer.Argument(help="sessions as in examples/steinmetz2019/sessions")]
