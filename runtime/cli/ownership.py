"""Refuse to start where another distribution owns one of neds-rt's top-level names."""

from __future__ import annotations

import importlib
import re
from importlib import metadata

from neds_core.errors import ConfigError

MARKED = ("kernels", "neds_core", "calibration", "benchmarks")  # runtime/__init__.py stays empty
NAMES = ("runtime", *MARKED)
REMEDY = "install neds-rt in a virtual environment of its own"

# First path component of a RECORD line: a package's folder, or a module's file.
_RECORDED = re.compile(rf'^"?({"|".join(NAMES)})(?:/|\.py,|\.[\w-]+\.(?:so|pyd),)', re.MULTILINE)


def refuse_foreign_packages() -> None:
    """Raise `ConfigError` if a top-level name of neds-rt is claimed, or provided, by another distribution."""
    for dist in metadata.distributions():
        for name in sorted(_claims(dist)):
            owner = dist.metadata["Name"]
            if re.sub(r"[-_.]+", "-", owner).lower() != "neds-rt":
                raise ConfigError(
                    f"the installed distribution {owner!r} also provides the package {name!r} of neds-rt; {REMEDY}"
                )
    for name in MARKED:
        try:
            module = importlib.import_module(name)
        except ImportError:
            raise ConfigError(f"the package {name!r} of neds-rt cannot be imported; {REMEDY}") from None
        if not getattr(module, "NEDS_RT", False):
            origin = getattr(module, "__file__", None) or name
            raise ConfigError(f"the package {name!r} comes from {origin}, which is not neds-rt's; {REMEDY}")


def _claims(dist: metadata.Distribution) -> set[str]:
    """Names of neds-rt that `dist` provides.

    The rule of `metadata.packages_distributions`, which parses every RECORD into paths and so takes ten times as
    long; here it is searched as text.
    """
    declared = dist.read_text("top_level.txt")
    if declared:
        return set(declared.split()) & set(NAMES)
    return set(_RECORDED.findall(dist.read_text("RECORD") or ""))
