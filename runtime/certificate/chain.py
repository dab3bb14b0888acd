"""What a certificate is of: checkpoint, configuration, environment and code, as values that can be compared."""

from __future__ import annotations

import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from neds_core.errors import ConfigError
from neds_core.files import sha256
from runtime.certificate import surroundings
from runtime.config import RigConfig
from runtime.io import system

PACKAGES = ("runtime", "kernels", "neds_core", "calibration")  # whose code a run may execute
VERSIONS = (
    "neds-rt", "torch", "triton", "numpy", "numba", "llvmlite", "pylsl", "pyzmq", "msgspec", "safetensors",
    "hdrhistogram",
)  # fmt: skip
ELSEWHERE = ("checkpoint", "certificate")  # keys whose file counts, not its place; and what asks for the certificate
PATHS = ("score.recording", "control.log")
DIGITS = 16  # of a file's SHA-256
ABSENT = "not there"


class Chain(Struct, frozen=True):
    """checkpoint: SHA-256 of its file. config: dotted key -> value, defaults included. environment: name -> what the
    system is and grants. code: file of ours -> the beginning of its SHA-256."""

    checkpoint: str
    config: dict[str, Any]
    environment: dict[str, str]
    code: dict[str, str]


def of(config: RigConfig, home: Path) -> Chain:
    """The chain as it is now. config: with absolute paths; home: the folder of its file.

    Raises `ConfigError` where the checkpoint cannot be read.
    """
    try:
        checkpoint = sha256(Path(config.checkpoint))
    except OSError as error:
        raise ConfigError(
            f"checkpoint: {config.checkpoint} cannot be read ({error.strerror or error}); check the path"
        ) from None
    return Chain(checkpoint, settings(config, home), environment(config.engine.device), code())


def settings(config: RigConfig, home: Path) -> dict[str, Any]:
    """Every value of a configuration by its dotted key; paths start from `home` where they lie below it."""
    found = _flat(msgspec.to_builtins(config), "")
    for name in ELSEWHERE:
        del found[name]
    for name in PATHS:
        path = Path(found[name])
        found[name] = path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)
    return msgspec.json.decode(msgspec.json.encode(found))  # as it will be read again: no tuples


def _flat(tree: dict[str, Any], at: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{at}{name}.") if isinstance(value, dict) else {f"{at}{name}": value}
    return found


def environment(device: str = "cpu") -> dict[str, str]:
    """Processor, cores that may be used, kernel, governor, what is granted to the loop, versions, and surroundings.

    device: cpu | cuda, what decodes.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0
    return {
        "cpu": system.cpu(), "cores": str(cores), "kernel": f"{platform.system()} {platform.release()}",
        "governor": system.governor(), "scheduling": system.granted(), "python": platform.python_version(),
        **system.installed(VERSIONS), **surroundings.found(device),
    }  # fmt: skip


def code() -> dict[str, str]:
    """Every Python file of our packages, wherever they are installed."""
    found = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ConfigError(f"the package {name!r} of neds-rt is not there; install neds-rt again")
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            found[f"{name}/{path.relative_to(root).as_posix()}"] = sha256(path)[:DIGITS]
    return found


def changed(before: Chain, now: Chain) -> list[str]:
    """What differs, each in a few words; nothing where all is as it was."""
    said = []
    if before.checkpoint != now.checkpoint:
        said.append(f"the checkpoint was {before.checkpoint[:12]}, is {now.checkpoint[:12]}")
    for was, values in ((before.config, now.config), (before.environment, now.environment)):
        said += [f"{n} was {_value(was, n)}, is {_value(values, n)}" for n in _different(was, values)]
    for name in _different(before.code, now.code):
        how = "is new" if name not in before.code else "is gone" if name not in now.code else "has changed"
        said.append(f"{name} {how}")
    return said


def ran(chain: Chain, scheduling: str, checkpoint: str) -> list[str]:
    """What a run was otherwise than the chain says. scheduling: what its loop was granted once it asked; checkpoint:
    SHA-256 of what it loaded."""
    said, certified = [], chain.environment["scheduling"]
    if scheduling != certified:
        said.append(f"scheduling is {certified} in the chain, and the loop was granted {scheduling}")
    if checkpoint != chain.checkpoint:
        said.append(f"the checkpoint is {chain.checkpoint[:12]} in the chain, and {checkpoint[:12]} was loaded")
    return said


def _different(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    names = dict.fromkeys([*before, *now])
    return [n for n in names if (n in before) != (n in now) or before[n] != now[n]]


def _value(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return ABSENT
    value = values[name]
    return value if isinstance(value, str) and value else msgspec.json.encode(value).decode()
