"""`--budget p99=10ms,miss=1e-4`: what a measurement has to keep to."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from neds_core.errors import ConfigError
from runtime.core.latency import PERCENTILES

OF = "edge_to_pub_ms"
TIMES = (*PERCENTILES, "max")
OVER_FLOOR = ("p50", "p99")  # that the floor has
UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
HELP = (
    "p50, p90, p99, p99.9 and max of edge_to_pub_ms (10ms, 500us; p50 and p99 also floor+1ms), and miss, the share of "
    "missed deadlines (1e-4)"
)
TIME = re.compile(r"(floor\+)?([0-9]+\.?[0-9]*(?:e-?[0-9]+)?)(us|ms|s)")


class Limit(NamedTuple):
    """At most so much: ms, or a share for `miss`. over_floor: more than the floor of this machine."""

    most: float
    over_floor: bool = False


def parse(text: str) -> dict[str, Limit]:
    """Limits by name. Raises `ConfigError` with the remedy."""
    found: dict[str, Limit] = {}
    for part in text.split(","):
        name, equals, limit = (piece.strip() for piece in part.partition("="))
        if not equals or (name != "miss" and name not in TIMES):
            raise ConfigError(f"--budget {text}: {part.strip()!r} is no limit; give {HELP}")
        found[name] = _share(text, limit) if name == "miss" else _time(text, name, limit)
    return found


def _time(text: str, name: str, limit: str) -> Limit:
    found = TIME.fullmatch(limit)
    if found is None:
        raise ConfigError(
            f"--budget {text}: {name} = {limit!r} is no time; give a number with us, ms or s, such as 10ms or floor+1ms"
        )
    if found[1] and name not in OVER_FLOOR:
        raise ConfigError(f"--budget {text}: the floor has no {name}; give a time such as 10ms")
    return Limit(float(found[2]) * UNITS_MS[found[3]], bool(found[1]))


def _share(text: str, limit: str) -> Limit:
    try:
        found = float(limit)
    except ValueError:
        found = -1.0
    if not 0.0 <= found <= 1.0:
        raise ConfigError(f"--budget {text}: miss = {limit!r} is no share; give a number from 0 to 1, such as 1e-4")
    return Limit(found)


def miss_share(result: dict[str, Any]) -> float:
    """Missed deadlines of all scheduled tokens."""
    return result["deadline_misses"] / max(1, result["scheduled"])


def broken(limits: dict[str, Limit], result: dict[str, Any]) -> str:
    """One sentence of what broke the budget, '' = nothing did. A measurement without a sample breaks it."""
    said = []
    for name, limit in limits.items():
        if name == "miss":
            share, missed, of = miss_share(result), result["deadline_misses"], result["scheduled"]
            if not of or share > limit.most:
                why = ", ".join(f"{n} {stage}" for stage, n in result["miss_stages"].items())
                said.append(
                    f"{missed} of {of} deadlines were missed ({share:.2g}, the budget is {limit.most:g}"
                    f"{f'; in {why}' if why else ''})"
                )
            continue
        floor = result["floor_ms"][name] if limit.over_floor else 0.0
        if (found := result[OF][name]) is None or found > limit.most + floor:
            over = f"the floor {floor:g} and {limit.most:g} ms" if limit.over_floor else f"{limit.most:g} ms"
            said.append(f"{name} of {OF} is {found} (the budget is {over})")
    return f"budget broken: {' and '.join(said)}" if said else ""
