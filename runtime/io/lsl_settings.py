"""liblsl's settings of this process: those of the lab's own lsl_api.cfg, and over them what the rig says."""

from __future__ import annotations

import configparser
import contextlib
import os
import sys
from pathlib import Path

from neds_core.errors import ConfigError

PLACES = ("lsl_api.cfg", "~/lsl_api/lsl_api.cfg", "/etc/lsl_api/lsl_api.cfg")  # where liblsl looks, in this order
PORT_RANGE = 256  # liblsl's own 32 are used up by 16 outlets on a machine; the next cannot be found
UNLESS_GIVEN = {"ports": {"PortRange": str(PORT_RANGE)}, "log": {"level": "-3"}}

Sections = dict[str, dict[str, str]]


def merged(session_id: str, resolve_scope: str, known_peers: tuple[str, ...]) -> str:
    """What liblsl is to read. Says on stderr which keys of a lab's file are overridden.

    Setting anything keeps liblsl from reading that file, so it is read here. Raises `ConfigError` where it cannot be.
    """
    ours: Sections = {"multicast": {"ResolveScope": resolve_scope}, "lab": {"SessionID": session_id}}
    peers = known_peers or (("127.0.0.1",) if resolve_scope == "machine" else ())
    if peers:
        ours["lab"]["KnownPeers"] = f"{{{', '.join(peers)}}}"
    path = lab_file()
    theirs = read(path) if path is not None else {}
    changed = [
        f"{section}.{key} = {theirs[section][key]} (here {value})"
        for section, keys in ours.items()
        for key, value in keys.items()
        if section in theirs and _plain(theirs[section].get(key, value)) != _plain(value)
    ]
    if changed:
        print(
            f"{path}: overridden by [lsl] of rig.toml, or by the session of a replay: {', '.join(changed)}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    layers = (UNLESS_GIVEN, theirs, ours)
    sections: Sections = {name: {} for layer in layers for name in layer}
    for layer in layers:
        for name, keys in layer.items():
            sections[name] |= keys
    return "".join(f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()) for name, keys in sections.items())


def lab_file() -> Path | None:
    """The file that liblsl would read, None where there is none."""
    for name in (os.environ.get("LSLAPICFG", ""), *PLACES):
        with contextlib.suppress(RuntimeError, OSError):  # no home
            path = Path(name).expanduser()
            if name and path.is_file():
                return path
    return None


def read(path: Path) -> Sections:
    """The sections of a lab's file. Raises `ConfigError` where it cannot be read."""
    parser = configparser.ConfigParser(
        interpolation=None, strict=False, delimiters=("=",), comment_prefixes=(";", "#"), default_section=""
    )
    parser.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]: keys keep their capitals
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeError, configparser.Error) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read ({why}); correct it, or name another in LSLAPICFG") from None
    return {name: dict(parser[name]) for name in parser.sections()}


def _plain(value: str) -> str:
    return value.replace(" ", "").lower().strip("{}")
