"""A value with its 95 % interval, in words."""

from __future__ import annotations

from collections.abc import Mapping


def words(found: Mapping[str, float], sign: str = "", digits: int = 3) -> str:
    """found: "value", "low" and "high"; `sign` "+" shows the sign of differences."""
    value, low, high = (f"{found[key]:{sign}.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
