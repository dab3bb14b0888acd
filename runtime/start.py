"""How a process of ours begins: with our own code alone.

`python -P runtime/start.py MODULE ARGUMENTS` runs a module as `python -m` does, but imports nothing from the folder
that the user stands in: what lies there (a random.py, a queue.py, another kernels/) is the user's.
"""

import sys  # nothing else up here: under `python -m` the current folder is still searched first

PACKAGES = ("runtime", "kernels", "neds_core", "calibration", "benchmarks")


def keep_to_ours() -> None:
    """Search the current folder no longer, and take our packages from where this file lies.

    Modules are found through their package, so that place need not stay on the path: a checkout is often the current
    folder itself.
    """
    if not sys.flags.safe_path:
        del sys.path[0]
    import contextlib
    import importlib
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    for name in PACKAGES:
        with contextlib.suppress(ImportError):  # `refuse_foreign_packages` says which is missing
            importlib.import_module(name)
    del sys.path[0]


def command(module: str, *arguments: object) -> list[str]:
    """The command line of a process that runs a module of ours from this same place."""
    return [sys.executable, "-P", __file__, module, *map(str, arguments)]


def called(name: str, folder: str = ".") -> str:
    """What somebody in `folder` types to start "neds-rt" or "python" of the environment that runs this, for a shell.

    The bare name where the search path has that very program, else its path: relative below the folder that holds the
    environment, as in .venv/bin/neds-rt. Without an installed neds-rt it is started through this file.
    """
    import os
    import shlex
    import shutil
    from pathlib import Path

    own = shutil.which(name, path=str(Path(sys.executable).parent))
    if own is None:
        return shlex.quote(sys.executable) if name == "python" else shlex.join(command("runtime.cli"))
    there = shutil.which(name)
    if there is not None and Path(there).absolute() == Path(own):
        return name
    holder = Path(sys.prefix).parent
    near = sys.prefix != sys.base_prefix and holder != holder.parent and Path(own).is_relative_to(holder)
    if near and Path(folder).resolve().is_relative_to(holder):
        own = os.path.relpath(own, Path(folder).resolve())
    return shlex.quote(own)


if __name__ == "__main__":
    keep_to_ours()
    import runpy

    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
