"""Who may import whom. A module that needs another entry here needs a reason first."""

from __future__ import annotations

import ast
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("runtime", "kernels", "neds_core", "calibration", "benchmarks")

OURS = {
    "kernels": {"kernels"},
    "neds_core": {"neds_core"},
    "runtime": {"runtime", "kernels", "neds_core"},
    "calibration": {"calibration", "neds_core", "runtime"},
    "benchmarks": set(PACKAGES),
}
THIRD = {
    "kernels": {"torch", "numpy"},
    "neds_core": {"torch", "numpy", "msgspec", "safetensors"},
    "runtime": {"torch", "numpy", "pylsl", "zmq", "msgspec", "mcap", "hdrh"},
    "calibration": {"torch", "numpy"},
    "benchmarks": {"torch", "numpy", "msgspec", "hdrh", "sklearn", "psutil"},
}
# More for these files only (fnmatch: * crosses folders).
CLI = ("runtime/cli/main.py", "runtime/cmd_*.py")
EXTRA = {
    "kernels/triton_*.py": {"triton"},
    "kernels/numba_*.py": {"numba", "llvmlite"},  # llvmlite is numba's own
    "neds_core/io/*.py": {"h5py", "pynwb", "pyxdf", "one"},
    "runtime/core/binning.py": {"numba"},
    "runtime/views/terminal.py": {"typer", "rich"},
    **{pattern: {"typer", "rich"} for pattern in CLI},
    "benchmarks/figures.py": {"matplotlib"},
    "benchmarks/cost/full_forward.py": {"onnxruntime"},
    "benchmarks/studies/region_figures.py": {"matplotlib", "umap"},
    "benchmarks/accuracy/tune.py": {"optuna"},
    "benchmarks/accuracy/peers/poyo_plus.py": {"torch_brain"},
}
LAZY_IN_CLI = {"calibration", "benchmarks"}
# What a client copies: these and nothing else beside the standard library.
CLIENT = ("runtime/client.py", "runtime/wire.py")
FOR_CLIENT = ("zmq", "msgspec", "runtime.wire")


def imports(path: str, source: str) -> list[tuple[str, int, bool]]:
    """Every import in a module: (dotted name, line, whether it is inside a function)."""
    found: list[tuple[str, int, bool]] = []
    package = path.split("/")[:-1]

    def visit(node: ast.AST, lazy: bool) -> None:
        match node:
            case ast.Import():
                found.extend((alias.name, node.lineno, lazy) for alias in node.names)
            case ast.ImportFrom():
                base = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*base, *([node.module] if node.module else [])])
                found.extend((f"{module}.{alias.name}", node.lineno, lazy) for alias in node.names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                found.append((name, node.lineno, lazy))
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source, path), lazy=False)
    return found


def violations(path: str, source: str) -> list[str]:
    """Imports of one module, named by its path from the root, that its layer does not allow."""
    folder = path.split("/")[0]
    allowed = OURS[folder] | THIRD[folder]
    for pattern, more in EXTRA.items():
        if fnmatch(path, pattern):
            allowed = allowed | more
    in_cli = any(fnmatch(path, pattern) for pattern in CLI)

    def permitted(name: str, lazy: bool) -> bool:
        top = name.split(".")[0]
        if top in sys.stdlib_module_names:
            return True
        if path in CLIENT:
            return any(name == own or name.startswith(f"{own}.") for own in FOR_CLIENT)
        return top in allowed or (in_cli and lazy and top in LAZY_IN_CLI)

    return [f"{path}:{line} imports {name}" for name, line, lazy in imports(path, source) if not permitted(name, lazy)]


def test_every_module_keeps_to_its_layer() -> None:
    """No module imports what its folder may not."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

    found = [v for p in paths for v in violations(p.relative_to(ROOT).as_posix(), p.read_text())]

    assert len(paths) >= len(PACKAGES)
    assert found == []


def test_runtime_package_is_empty() -> None:
    """Importing `runtime.client` must not import anything else of ours."""
    assert (ROOT / "runtime" / "__init__.py").read_text() == ""


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kernels/reference.py", "import neds_core"),
        ("kernels/reference.py", "import triton"),
        ("kernels/triton_attention.py", "import numba"),
        ("neds_core/model/model.py", "from kernels import reference"),
        ("neds_core/model/model.py", "def f():\n    import runtime.wire"),
        ("neds_core/data/session.py", "import h5py"),
        ("neds_core/train/loop.py", "from rich.progress import track"),
        ("runtime/core/pipeline.py", "import rich"),
        ("runtime/core/pipeline.py", "import numba.core"),
        ("runtime/core/pipeline.py", "def f():\n    from calibration import judge"),
        ("runtime/core/pipeline.py", "import importlib\nimportlib.import_module('benchmarks.latency')"),
        ("runtime/core/pipeline.py", "from .. import benchmarks"),
        ("runtime/cli/bench.py", "import benchmarks.latency"),
        ("runtime/cli/bench.py", "if True:\n    from benchmarks import latency"),
        ("runtime/client.py", "import numpy"),
        ("runtime/client.py", "from runtime import pipeline"),
        ("runtime/client.py", "from neds_core.errors import NedsError"),
        ("runtime/wire.py", "from . import layout"),
        ("calibration/judge.py", "import benchmarks"),
        ("calibration/judge.py", "import zmq"),
        ("benchmarks/latency.py", "import matplotlib.pyplot as plt"),
        ("benchmarks/latency.py", "import tests"),
        ("runtime/core/pipeline.py", "import not_heard_of"),
    ],
)
def test_checker_catches(path: str, source: str) -> None:
    """Each of these breaks one rule."""
    assert len(violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kernels/triton_attention.py", "import triton.language as tl\nfrom kernels import reference"),
        ("kernels/cpu/step.py", "from numba import njit"),
        ("neds_core/io/nwb.py", "import h5py\nfrom neds_core.data.session import Session"),
        ("runtime/core/binning.py", "import numba"),
        ("runtime/views/terminal.py", "from rich.live import Live"),
        ("runtime/cli/bench.py", "import typer\ndef f():\n    from benchmarks import latency"),
        ("runtime/client.py", "import json, zmq, msgspec\nfrom runtime.wire import Decode\nfrom runtime import wire"),
        ("calibration/judge.py", "import torch\nfrom runtime.core.pipeline import Pipeline"),
        ("benchmarks/figures.py", "from matplotlib import pyplot"),
        ("benchmarks/latency.py", "import hdrh.histogram, psutil, sklearn\nimport calibration"),
    ],
)
def test_checker_allows(path: str, source: str) -> None:
    """Each of these is what the table is for."""
    assert violations(path, source) == []
