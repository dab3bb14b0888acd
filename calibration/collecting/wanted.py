"""The behaviours that a collection wants: as the base was trained, or as the streams declare themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from neds_core import checkpoint
from neds_core.data.checks.spec import check_spec, check_width
from neds_core.data.session import BehaviourSpec
from neds_core.errors import ConfigError, DataError, StreamError
from neds_core.train import many
from runtime.config import RigConfig
from runtime.core.words import quoted
from runtime.io.lsl_description import Declared

BIN_MS = 20.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What a base asks for: outputs and bin width; path '' = no base, the width is an option's."""

    specs: tuple[BehaviourSpec, ...]
    bin_ns: int
    path: str = ""


def base_of(path: Path | None, bin_ms: float | None) -> Asked:
    """The base: a checkpoint of one recording, a trunk of many, or None, with bins of `bin_ms` (`BIN_MS` if not given).

    Raises `CheckpointError`, and `ConfigError` for a width that is none or not the base's.
    """
    base = _read(path) if path is not None else Asked((), round(BIN_MS * 1e6))
    if bin_ms is None:
        return base
    bin_ns = round(bin_ms * 1e6) if 0 < bin_ms < 1e9 else 0
    try:
        check_width(bin_ns)
    except DataError:
        raise ConfigError(f"--bin-ms {bin_ms:g}: no width of bins; give 1 to 10000") from None
    if path is not None and bin_ns != base.bin_ns:
        raise ConfigError(
            f"--bin-ms {bin_ms:g}: the base was trained on bins of {base.bin_ns * 1e-6:g} ms; leave --bin-ms out"
        )
    return Asked(base.specs, bin_ns, base.path)


def _read(path: Path) -> Asked:
    if many.is_one(path):
        trunk = many.load(path)
        return Asked(trunk.model.specs, trunk.header.bin_ns, str(path))
    made = checkpoint.load(path)
    return Asked(made.specs, made.header.bin_ns, str(path))


def refuse(config: RigConfig, base: tuple[BehaviourSpec, ...]) -> None:
    """Refuse a rig that cannot give what is wanted, before it is connected. base: outputs of the base, () = no base.

    Raises `ConfigError` or `DataError`.
    """
    given, markers = config.input.behaviours, config.input.markers
    if not given and not markers:
        raise ConfigError(
            "input.behaviours: no stream is named, and input.markers neither, so there is nothing to learn; name the "
            "streams of what the animal does"
        )
    for spec in base:
        if spec.kind == "continuous" and spec.name not in given:
            raise ConfigError(
                f"input.behaviours: the base decodes {spec.name}, and no stream is named for it; add "
                f'{spec.name} = "STREAM", or leave --from out'
            )
        if spec.kind == "class" and not (markers and config.bins.use_markers):
            raise ConfigError(
                f"input.markers: the base decodes {spec.name}, whose labels come with markers; name their stream and "
                "leave bins.use_markers on"
            )
    for name in given:
        try:
            check_spec(BehaviourSpec(name, "continuous"))
        except DataError as error:
            raise DataError(f"input.behaviours: {error}") from None
        if any(spec.name == name and spec.kind == "class" for spec in base):
            raise ConfigError(f"input.behaviours: {name} is a class of the base and comes with markers; take it out")


def specs(
    base: tuple[BehaviourSpec, ...], said: Mapping[str, Declared], streams: Mapping[str, str]
) -> tuple[tuple[BehaviourSpec, ...], list[str]]:
    """What is collected: the base's outputs first, then what else is measured; and what was taken on trust, in words.

    said, streams: what each behaviour's stream declares, and its name. Raises `StreamError` where a stream says that
    it is something else than the base was trained on.
    """
    found, notes = [], []
    for spec in base:
        if spec.kind == "continuous":
            notes += _compared(spec, said[spec.name], streams[spec.name])
        found.append(replace(spec, lead_ms=0.0))  # a lead is the decoder's: what is recorded is of its own bin
    for name, declared in said.items():
        if all(spec.name != name for spec in base):
            texts = {key: value for key, value in declared._asdict().items() if value is not None}
            found.append(replace(BehaviourSpec(name, "continuous"), **texts))
            if not declared.unit:
                notes.append(f"{name}: stream {quoted(streams[name])} declares no unit; the session has none")
    return tuple(found), notes


def _compared(spec: BehaviourSpec, said: Declared, stream: str) -> list[str]:
    """Refuse what is declared otherwise; note what is not declared."""
    silent = []
    for key, theirs in said._asdict().items():
        ours = getattr(spec, key)
        if theirs in ("", None):
            silent += [key] if ours else []
        elif theirs != ours:
            raise StreamError(
                f"stream {quoted(stream)} declares {key} {theirs!r} for {spec.name}, and the base was trained on "
                f"{ours!r}; send it as the base was trained, or leave --from out"
            )
    if not silent:
        return []
    return [f"{spec.name}: stream {quoted(stream)} does not declare {', '.join(silent)}; taken to be as in the base"]
