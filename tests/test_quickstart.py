"""examples/quickstart.py and the notebook with the same cells: both run, and the notebook has no outputs.

`.venv/bin/python tests/test_quickstart.py` writes the notebook anew from the script.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib import image

ROOT = Path(__file__).parents[1]
SCRIPT, NOTEBOOK = ROOT / "examples" / "quickstart.py", ROOT / "examples" / "quickstart.ipynb"


def notebook(text: str) -> dict[str, Any]:
    """The notebook of a script whose cells begin with `# %%`, those of text with `# %% [markdown]`; nothing has run."""
    cells = []
    for number, block in enumerate(text.split("# %%")[1:]):
        head, _, body = block.partition("\n")
        is_text = head.strip() == "[markdown]"
        lines = body.strip("\n").splitlines()
        if is_text:
            lines = [line.removeprefix("#").removeprefix(" ") for line in lines]
        source = [f"{line}\n" for line in lines[:-1]] + lines[-1:]
        cell: dict[str, Any] = {"cell_type": "markdown" if is_text else "code", "id": f"cell-{number}", "metadata": {}}
        cells.append(cell | {"source": source} | ({} if is_text else {"execution_count": None, "outputs": []}))
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": python}, "nbformat": 4, "nbformat_minor": 5}


def written(text: str) -> str:
    """The notebook's file."""
    return json.dumps(notebook(text), indent=1, ensure_ascii=False) + "\n"


def environment() -> dict[str, str]:
    """This checkout's packages, one thread, no display."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


def check(shown: str, folder: Path) -> None:
    """What both print and draw."""
    assert "449 units" in shown
    assert "wheel_speed: R2 NEDS 0." in shown
    assert "NEDS minus ridge" in shown
    assert image.imread(folder / "quickstart.png")[..., :3].std() > 0.05


def test_the_script_and_the_notebook_have_the_same_cells() -> None:
    """All of them, and the notebook is committed as it is before it runs."""
    assert NOTEBOOK.read_text(encoding="utf-8") == written(SCRIPT.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_script_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, timeout=200, cwd=tmp_path, env=environment()
    )
    assert done.returncode == 0, done.stderr
    check(done.stdout, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of jupyter's libraries
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel of this Python; the figure is shown, too."""
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    read = nbformat.read(NOTEBOOK, as_version=4)

    nbclient.NotebookClient(read, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [out for cell in read.cells if cell.cell_type == "code" for out in cell.outputs]
    assert any("image/png" in out.get("data", {}) for out in outputs)
    check("".join(out.get("text", "") for out in outputs), tmp_path)


if __name__ == "__main__":
    NOTEBOOK.write_text(written(SCRIPT.read_text(encoding="utf-8")), encoding="utf-8")
