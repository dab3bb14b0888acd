"""What a recording says of itself in words and numbers: names, texts, the width of its bins, behaviours."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import numpy as np

from neds_core.data.session import AMBIGUOUS, BIN_NS_LEAST, BIN_NS_MOST, BehaviourSpec
from neds_core.errors import DataError

NAME_MOST = 100  # characters of a behaviour's name, which is an entry of a zip file and a key of messages


def check_width(bin_ns: int) -> None:
    """Refuse a width of bins that no rig has."""
    if not BIN_NS_LEAST <= bin_ns <= BIN_NS_MOST:
        raise DataError(
            f"bin_ns is {bin_ns}, not a width between {BIN_NS_LEAST} (1 ms) and {BIN_NS_MOST} (10 s); "
            "give it in nanoseconds"
        )


def check_spec(spec: BehaviourSpec) -> None:
    """Refuse a behaviour that no recording may hold, by its name or by what it says of itself: `DataError`."""
    check_names("behaviour", [spec.name])
    _check_content(spec)


def is_plain(text: str) -> bool:
    """Whether a text has no line ends, control characters or half characters."""
    return not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)


def check_text(key: str, text: str) -> None:
    """Refuse a text with line ends or control characters: `DataError`."""
    if not is_plain(text):
        raise DataError(f"{key} is {text[:60]!r}, with a line end or control character; take it out")


def check_names(what: str, names: Iterable[str]) -> None:
    """Names that can be keys of files, configurations, messages and modules; each once."""
    seen: set[str] = set()
    for name in names:
        if fault := _fault_of_name(name):
            raise DataError(f"{what} name {name[:NAME_MOST]!r} {fault}; write it as cursor_vel_x")
        if name in seen:
            raise DataError(f"{what} name {name!r} is there twice; name them apart")
        if name == "spikes":
            raise DataError(f"{what} name 'spikes' is that of the counts; give it another")
        seen.add(name)


def _fault_of_name(name: str) -> str:
    """What is wrong with a name, empty where nothing is."""
    if not name:
        return "is empty"
    if len(name) > NAME_MOST:
        return f"has {len(name)} characters, {NAME_MOST} at most"
    if not is_plain(name) or name != name.strip():
        return "has a line end, a control character or a space at its end"
    return "has a dot or slash" if set(name) & set("./\\") else ""


def _check_content(spec: BehaviourSpec) -> None:
    """A behaviour names a quantity, and its classes and contrasts fit together."""
    if spec.name in AMBIGUOUS:
        raise DataError(f"behaviour {spec.name!r} does not name a quantity; say {AMBIGUOUS[spec.name]}")
    for key in ("unit", "sign", "filter", "labels_note", "group"):
        check_text(f"{key} of {spec.name}", getattr(spec, key))
    for text in (*spec.classes, *spec.contrasts):
        check_text(f"a class or contrast of {spec.name}", text)
    if not np.isfinite(spec.filter_delay_ms):
        raise DataError(f"filter_delay_ms of {spec.name} is {spec.filter_delay_ms}; give a number")
    if not 0.0 <= spec.future_ms < np.inf:
        raise DataError(f"future_ms of {spec.name} is {spec.future_ms}; give a number of 0 or more")
    if spec.lead_ms:
        raise DataError(
            f"lead_ms of {spec.name} is {spec.lead_ms:g}; give what was measured in each bin, and set it to 0"
        )
    if spec.kind == "class" and (len(set(spec.classes)) < max(2, len(spec.classes)) or "" in spec.classes):
        raise DataError(f"{spec.name} has the classes {list(spec.classes)}; give at least two, each another name")
    for name, (one, other) in spec.contrasts.items():
        if strange := sorted({*one, *other} - set(spec.classes)):
            raise DataError(f"a contrast of {spec.name} asks for {strange[0]!r}, none of its classes; convert again")
        if not one or not other or set(one) & set(other):
            raise DataError(f"contrast {name!r} of {spec.name} needs two sides that share no class; correct it")
