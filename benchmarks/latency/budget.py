"""`--budget p99=10ms,miss=1e-4`: what a measurement has to keep to."""

from __future__ import annotations

import re
from typing import Any

from neds_core.errors import ConfigError
from runtime.core.latency import PERCENTILES

OF = "edge_to_pub_ms"
TIMES = (*PERCENTILES, "max")
UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
HELP = "p50, p90, p99, p99.9 and max of edge_to_pub_ms (10ms, 500us), and miss, the share of missed deadlines (1e-4)"


def parse(text: str) -> dict[str, float]:
    """Limits by name: times in ms, `miss` a share. Raises `ConfigError` with the remedy."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, limit = (piece.strip() for piece in part.partition("="))
        if not equals or (name != "miss" and name not in TIMES):
            raise ConfigError(f"--budget {text}: {part.strip()!r} is no limit; give {HELP}")
        found[name] = _share(text, limit) if name == "miss" else _ms(text, name, limit)
    return found


def _ms(text: str, name: str, limit: str) -> float:
    found = re.fullmatch(r"([0-9.]+(?:e-?[0-9]+)?)(us|ms|s)", limit)
    try:
        return float(found[1]) * UNITS_MS[found[2]] if found else _refused(text, name, limit)
    except ValueError:
        return _refused(text, name, limit)


def _refused(text: str, name: str, limit: str) -> float:
    raise ConfigError(f"--budget {text}: {name} = {limit!r} is no time; give a number with us, ms or s, such as 10ms")


def _share(text: str, limit: str) -> float:
    try:
        found = float(limit)
    except ValueError:
        found = -1.0
    if not 0.0 <= found <= 1.0:
        raise ConfigError(f"--budget {text}: miss = {limit!r} is no share; give a number from 0 to 1, such as 1e-4")
    return found


def miss_share(result: dict[str, Any]) -> float:
    """Missed deadlines of all scheduled tokens."""
    return result["deadline_misses"] / max(1, result["scheduled"])


def broken(limits: dict[str, float], result: dict[str, Any]) -> str:
    """One sentence of what broke the budget, '' = nothing did. A measurement without a sample breaks it."""
    said = []
    for name, limit in limits.items():
        if name == "miss":
            share, missed, of = miss_share(result), result["deadline_misses"], result["scheduled"]
            if not of or share > limit:
                why = ", ".join(f"{n} {stage}" for stage, n in result["miss_stages"].items())
                said.append(
                    f"{missed} of {of} deadlines were missed ({share:.2g}, the budget is {limit:g}"
                    f"{f'; in {why}' if why else ''})"
                )
        elif (found := result[OF][name]) is None or found > limit:
            said.append(f"{name} of {OF} is {found} (the budget is {limit:g})")
    return f"budget broken: {' and '.join(said)}" if said else ""
