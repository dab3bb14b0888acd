"""Who may import whom: packages, the rooms inside them, and no circle. A new entry needs a reason first."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("runtime", "kernels", "neds_core", "calibration", "benchmarks")

# --- between packages ---

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
    "runtime": {"numpy", "msgspec"},
    "calibration": {"torch", "numpy", "msgspec"},  # its configuration and reports are structs, as everywhere
    "benchmarks": {"torch", "numpy", "msgspec", "hdrh", "sklearn", "psutil"},
}
# More for these files only (fnmatch: * crosses folders).
EXTRA = {
    "kernels/gpu/*.py": {"triton"},
    "kernels/cpu/*.py": {"numba", "llvmlite"},  # llvmlite is numba's own
    "neds_core/io/*.py": {"h5py", "pynwb", "pyxdf", "one"},
    "runtime/core/latency.py": {"hdrh"},
    "runtime/engines/*.py": {"torch"},
    "runtime/io/lsl_*.py": {"pylsl"},
    "runtime/io/streams.py": {"pylsl"},
    "runtime/io/publish.py": {"zmq"},
    "runtime/io/control.py": {"zmq"},
    "runtime/io/mcap.py": {"mcap"},
    "runtime/live/wiring.py": {"torch"},
    "runtime/scoring/*.py": {"torch"},
    "runtime/views/*.py": {"rich", "zmq", "typer"},
    "runtime/cli/*.py": {"typer", "rich", "torch"},
    "calibration/drawings.py": {"matplotlib"},
    "benchmarks/figures.py": {"matplotlib"},
    "benchmarks/latency/*.py": {"pylsl", "zmq"},  # a floor of both, and a subscriber
    "benchmarks/*figures*.py": {"matplotlib"},
    "benchmarks/cost/full_forward.py": {"onnxruntime"},
    "benchmarks/latency/peers/ezmsg_pipeline.py": {"ezmsg"},
    "benchmarks/studies/region_figures.py": {"umap"},
    "benchmarks/accuracy/tune.py": {"optuna"},
    "benchmarks/accuracy/peers/poyo_plus.py": {"torch_brain"},
}
CLI = "runtime/cli/*.py"
LAZY_IN_CLI = {"calibration", "benchmarks"}

# --- between the rooms of a package: a room may import itself and those named ---

ROOMS = {
    "runtime": {
        "start": (),
        "children": ("start", "io"),
        "console": (),
        "wire": (),
        "config": ("wire",),
        "client": ("wire",),
        "core": ("wire", "config"),
        "engines": ("wire", "config", "core"),
        "io": ("start", "wire", "config", "core"),
        "live": ("wire", "config", "client", "core", "engines", "io"),
        "scoring": ("wire", "config", "core", "engines", "io", "live"),
        "views": ("console", "wire", "client"),
        "certificate": ("config", "core", "io", "scoring"),
        "cli": (
            "start",
            "children",
            "console",
            "wire",
            "config",
            "client",
            "core",
            "engines",
            "io",
            "live",
            "scoring",
            "views",
            "certificate",
        ),
    },
    "neds_core": {
        "errors": (),
        "config": (),
        "files": ("errors",),
        "stopping": (),
        "toml": ("errors",),
        "data": ("errors", "files"),
        "model": ("errors", "config", "data"),
        "linear": ("config", "data"),
        "official": ("errors", "config", "data", "model"),
        "parity": ("errors", "data", "model", "official"),
        "checkpoint": ("errors", "config", "data", "files", "linear", "model"),
        "scores": ("errors", "data", "linear", "model", "checkpoint"),
        "ensemble": ("errors", "checkpoint", "scores"),
        "train": (
            "errors",
            "stopping",
            "config",
            "files",
            "toml",
            "data",
            "model",
            "linear",
            "checkpoint",
            "ensemble",
            "scores",
            "io",  # a recording is read whatever its file
        ),
        "io": ("errors", "config", "data", "files", "toml", "linear", "model", "checkpoint", "official"),
        "public": (
            "errors",
            "config",
            "files",
            "toml",
            "data",
            "model",
            "linear",
            "checkpoint",
            "ensemble",
            "scores",
            "train",
            "io",
        ),
        "__init__": ("data", "public"),  # the calls at the top, each imported when it is used
    },
    "calibration": {
        "swap": (),
        "collecting": (),
        "fitting": (),
        "judge": (),
        "update": ("fitting", "judge"),
        "simulating": ("collecting",),
        "insight": ("fitting", "judge"),
        "report": ("fitting", "insight", "judge", "update"),
        "drawings": ("insight", "judge", "report"),
        "page": ("drawings", "report"),
        "command": ("fitting", "judge", "update", "report", "page"),
        "process": ("command", "report"),
        "rehearsal": ("swap", "command", "page", "report"),
        "__main__": ("fitting", "command", "process"),
    },
    "benchmarks": {
        "machine": (),
        "rows": (),
        "intervals": (),
        "recordings": (),
        "figures": (),
        "report": ("machine",),
        "latency": ("machine", "rows", "recordings", "figures", "report", "cost", "accuracy"),
        "cost": ("machine", "rows", "figures", "recordings", "accuracy"),
        "accuracy": ("machine", "rows", "intervals", "recordings", "figures", "report"),
        "studies": ("machine", "rows", "intervals", "recordings", "figures", "accuracy"),
    },
}
# What a pure room may use of the standard library: it is given its clock and its files.
PURE = "runtime/core/*.py"
PURE_STANDARD = {
    "__future__",
    "array",
    "bisect",
    "collections",
    "contextlib",
    "dataclasses",
    "enum",
    "itertools",
    "math",
    "typing",
}
# Outside `engines` and `scoring`, of these packages only what does not bring torch along.
LIGHT = {"neds_core.data.session", "neds_core.data.session_file", "neds_core.errors", "neds_core.toml"}
LIGHT_ROOMS = ("core", "io", "views", "client", "config", "wire")
# More of these packages for one file: how its code is compiled.
LIGHT_FOR = {f"runtime/core/{name}.py": {"kernels.cpu.jit"} for name in ("again", "binning", "health", "samples")}
# What a client copies: these and nothing else beside the standard library.
FOR_CLIENT = {"runtime/client.py": ("zmq", "runtime.wire", "msgspec"), "runtime/wire.py": ("msgspec",)}


@cache
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
            case ast.Call(func=ast.Name(id="open")):
                found.append(("io.open", node.lineno, lazy))
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source, path), lazy=False)
    return found


def room_of(parts: list[str]) -> str:
    """The room of a path or a dotted name in pieces: the folder under the package, or the file that lies in it."""
    return parts[1].removesuffix(".py") if len(parts) > 1 else ""


def allowed_third(path: str) -> set[str]:
    """Top-level names of other people's packages that a file may import."""
    extra = [more for pattern, more in EXTRA.items() if fnmatch(path, pattern)]
    return THIRD[path.split("/")[0]].union(*extra)


def permitted(path: str, name: str, lazy: bool) -> bool:
    """Whether one import of a file, named by its path from the root, is allowed."""
    parts, package = name.split("."), path.split("/")[0]
    top, room = parts[0], room_of(path.split("/"))
    if top in sys.stdlib_module_names:
        return top in PURE_STANDARD or not fnmatch(path, PURE)
    if path in FOR_CLIENT:
        return any(name == own or name.startswith(f"{own}.") for own in FOR_CLIENT[path])
    if top not in PACKAGES:
        return top in allowed_third(path)
    if package == "runtime" and room in LIGHT_ROOMS and top != "runtime":
        return any(name == own or name.startswith(f"{own}.") for own in LIGHT | LIGHT_FOR.get(path, set()))
    if top != package:
        return top in OURS[package] or (fnmatch(path, CLI) and lazy and top in LAZY_IN_CLI)
    rooms = ROOMS.get(package)
    return rooms is None or not room or room_of(parts) in (room, *rooms.get(room, ()))


def violations(path: str, source: str) -> list[str]:
    """Imports of one module that the tables do not allow."""
    return [f"{path}:{line} imports {n}" for n, line, lazy in imports(path, source) if not permitted(path, n, lazy)]


def tree() -> dict[str, str]:
    """Path -> source of every module of ours."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


def targets(path: str, source: str, files: Iterable[str]) -> set[str]:
    """The files of ours that a module imports, also inside functions."""
    known, found = set(files), set()
    for name, _, _ in imports(path, source):
        stem = name.replace(".", "/")
        parent = stem.rpartition("/")[0]
        for candidate in (f"{stem}.py", f"{stem}/__init__.py", f"{parent}.py", f"{parent}/__init__.py"):
            if candidate in known and candidate != path:
                found.add(candidate)
                break
    return found


def circles(files: dict[str, str]) -> list[list[str]]:
    """Sets of files that import one another, by Tarjan's strongly connected components."""
    graph = {path: sorted(targets(path, source, files)) for path, source in files.items()}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(path: str) -> None:
        index[path] = low[path] = len(index)
        stack.append(path)
        for other in graph[path]:
            if other not in index:
                visit(other)
                low[path] = min(low[path], low[other])
            elif other in stack:
                low[path] = min(low[path], index[other])
        if low[path] == index[path]:
            at = stack.index(path)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for path in graph:
        if path not in index:
            visit(path)
    return found


def test_every_module_keeps_to_its_room() -> None:
    """No module imports what its package or its room may not."""
    files = tree()
    assert len(files) > 100
    assert [v for path, source in files.items() for v in violations(path, source)] == []


def test_there_is_no_circle_of_files() -> None:
    """Not even through imports inside functions, nor among tests and examples."""
    more = [path for folder in ("tests", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert circles(tree() | {path.relative_to(ROOT).as_posix(): path.read_text() for path in more}) == []


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_is_in_the_table(package: str) -> None:
    names = {room_of(path.split("/")) for path in tree() if path.startswith(f"{package}/")}
    assert names | {"__init__"} == {*ROOMS[package], "__init__"}


def test_runtime_package_is_empty() -> None:
    """Importing `runtime.client` must not import anything else of ours."""
    assert (ROOT / "runtime" / "__init__.py").read_text() == ""


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kernels/reference.py", "import neds_core"),
        ("kernels/reference.py", "import triton"),
        ("kernels/gpu/window.py", "import numba"),
        ("neds_core/model/model.py", "from kernels import reference"),
        ("neds_core/model/model.py", "def f():\n    import runtime.wire"),
        ("neds_core/data/session.py", "import h5py"),
        ("neds_core/train/loop.py", "from rich.progress import track"),
        ("runtime/core/pipeline.py", "import rich"),
        ("runtime/core/pipeline.py", "import numba.core"),
        ("runtime/core/binning.py", "import numba"),
        ("runtime/core/pipeline.py", "from kernels.cpu.jit import jit"),
        ("runtime/core/pipeline.py", "import torch"),
        ("runtime/core/pipeline.py", "import pylsl"),
        ("runtime/core/pipeline.py", "import time"),
        ("runtime/core/pipeline.py", "import signal"),
        ("runtime/core/pipeline.py", "def f(path):\n    return open(path)"),
        ("runtime/core/pipeline.py", "def f():\n    from threading import Thread"),
        ("runtime/core/pipeline.py", "from neds_core.checkpoint import Checkpoint"),
        ("runtime/core/pipeline.py", "from runtime.engines import create"),
        ("runtime/core/pipeline.py", "from runtime import io"),
        ("runtime/core/pipeline.py", "def f():\n    from calibration import judge"),
        ("runtime/live/loop.py", "import importlib\nimportlib.import_module('benchmarks.latency')"),
        ("runtime/core/pipeline.py", "from ... import benchmarks"),
        ("runtime/engines/stream.py", "from runtime.io import publish"),
        ("runtime/io/publish.py", "from runtime.engines import create"),
        ("runtime/io/lsl_player.py", "from neds_core.model.model import NEDS"),
        ("runtime/io/publish.py", "from runtime.live import loop"),
        ("runtime/live/loop.py", "from runtime.scoring import score"),
        ("runtime/views/terminal.py", "from runtime.core import values"),
        ("runtime/views/terminal.py", "from runtime.config import RigConfig"),
        ("runtime/cli/bench.py", "import benchmarks.latency"),
        ("runtime/cli/bench.py", "if True:\n    from benchmarks import latency"),
        ("runtime/client.py", "import numpy"),
        ("runtime/client.py", "from runtime.core import pipeline"),
        ("runtime/client.py", "from neds_core.errors import NedsError"),
        ("runtime/wire.py", "from . import config"),
        ("neds_core/data/session.py", "from neds_core.model import model"),
        ("neds_core/model/model.py", "from neds_core.train import loop"),
        ("neds_core/scores/r2.py", "from neds_core.train.loop import fit"),
        ("benchmarks/accuracy/table.py", "from benchmarks.studies import transfer"),
        ("benchmarks/cost/kernels.py", "from benchmarks.studies import ablation"),
        ("calibration/judge.py", "import benchmarks"),
        ("calibration/judge.py", "import zmq"),
        ("benchmarks/cost/kernels.py", "import matplotlib.pyplot as plt"),
        ("benchmarks/cost/kernels.py", "import tests"),
        ("runtime/live/loop.py", "import not_heard_of"),
    ],
)
def test_checker_catches(path: str, source: str) -> None:
    """Each of these breaks one rule."""
    assert len(violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kernels/gpu/window.py", "import triton.language as tl\nfrom kernels import reference"),
        ("kernels/cpu/step.py", "from numba import njit"),
        ("neds_core/io/nwb.py", "import h5py\nfrom neds_core.data.session import Session"),
        ("runtime/core/binning.py", "from kernels.cpu.jit import jit"),
        ("runtime/core/run_log.py", "from neds_core.data.session import BehaviourSpec\nfrom runtime.wire import Flag"),
        ("runtime/views/terminal.py", "from rich.live import Live\nfrom runtime.client import Subscriber"),
        ("runtime/cli/bench.py", "import typer\ndef f():\n    from benchmarks import latency"),
        ("runtime/client.py", "import json, zmq, msgspec\nfrom runtime.wire import Decode\nfrom runtime import wire"),
        ("calibration/judge.py", "import torch\nfrom runtime.core.pipeline import Pipeline"),
        ("benchmarks/figures.py", "from matplotlib import pyplot"),
        ("benchmarks/cost/kernels.py", "import hdrh.histogram, psutil, sklearn\nimport calibration"),
    ],
)
def test_checker_allows(path: str, source: str) -> None:
    """Each of these is what the tables are for."""
    assert violations(path, source) == []


@pytest.mark.parametrize(
    "files",
    [
        {"a.py": "import b", "b.py": "import a"},
        {"a.py": "import b", "b.py": "def f():\n    from c import g", "c.py": "from a import f"},
        {"r/__init__.py": "", "r/a.py": "from r import b", "r/b.py": "from r.a import f"},
        {"r/__init__.py": "from r.a import f", "r/a.py": "from b import g", "b.py": "from r import f"},
    ],
)
def test_a_circle_is_found(files: dict[str, str]) -> None:
    assert circles(files) == [sorted(path for path, source in files.items() if source)]


def test_a_chain_is_no_circle() -> None:
    assert circles({"a.py": "import b, c", "b.py": "import c", "c.py": "import json"}) == []


# --- in a fresh process ---

HEAVY = ("torch", "numba", "triton", "matplotlib", "sklearn")
PLAYS = """
import sys
sys.argv = ["neds-rt", "play", "{recording}", "--wait", "0.1", "--session-id", "nobody"]
from runtime.cli.main import main
try:
    main()
except SystemExit as ended:
    assert ended.code == 2  # nobody connected
"""
HELPS = """
import sys
sys.argv = ["neds-rt", "--help"]
from runtime.cli.main import main
try:
    main()
except SystemExit as ended:
    assert ended.code == 0
"""
RECORDING = ROOT / "examples" / "rat-linear-track" / "session.npz"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        pytest.param(PLAYS.format(recording=RECORDING), (*HEAVY, "runtime.engines"), marks=pytest.mark.serial),
        (HELPS, (*HEAVY, "numpy", "pylsl", "zmq")),
        ("import runtime.client", (*HEAVY, "numpy", "pylsl", "neds_core", "kernels")),
        ("import runtime.core.pipeline, runtime.core.run_log, runtime.core.accounting", ("torch", "pylsl", "zmq")),
        ("import runtime.views.terminal", (*HEAVY, "pylsl", "neds_core", "runtime.core")),
    ],
    ids=["play", "help", "client", "core", "view"],
)
def test_a_light_command_loads_no_heavy_package(code: str, absent: tuple[str, ...]) -> None:
    """What is not needed is not loaded: a player shares its machine with the decoder."""
    check = f"\nimport sys\nprint('LOADED', *[name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED"
