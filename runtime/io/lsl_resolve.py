"""Finding LSL streams: discovery settings, streams by name, and what to set where one is not seen."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import msgspec
import pylsl

from neds_core.errors import StreamError
from runtime.io import lsl_settings
from runtime.start import command

REPLAY_SESSION = "neds-rt-replay"
INTEGERS = (pylsl.cf_int8, pylsl.cf_int16, pylsl.cf_int32, pylsl.cf_int64)
RESOLVE_S = 1.5  # of one search: three rounds of liblsl's questions
TWIN_S = 0.7  # liblsl asks every sender only half a second after the first has answered


def configure(session_id: str, resolve_scope: str, known_peers: tuple[str, ...] = ()) -> None:
    """Set liblsl's discovery for this process. Must come before the first LSL call. Raises `ConfigError`."""
    pylsl.set_config_content(lsl_settings.merged(session_id, resolve_scope, known_peers))


def resolve(
    name: str, wait_s: float, source_id: str = "", watch: Callable[[], None] = lambda: None
) -> pylsl.StreamInfo:
    """The first stream found with this name (see `refuse_twins`). Raises `StreamError` if there is none.

    watch: called between two looks, raises where another has no use.
    """
    deadline, found = time.monotonic() + wait_s, []
    while not found and (left := deadline - time.monotonic()) > 0:  # in slices: a signal is heard between two of them
        watch()
        found = pylsl.resolve_bypred(_predicate(name, source_id), minimum=1, timeout=min(left, RESOLVE_S))
    if not found:
        raise StreamError(f"stream {name!r} was not found in {wait_s:g} s; start its sender or raise input.wait_s")
    if not found[0].source_id():
        raise StreamError(f"stream {name!r} has no source_id, so LSL could not find it again; set one in its sender")
    return found[0]


def resolve_text(name: str, wait_s: float) -> pylsl.StreamInfo:
    """A stream of one channel of text (see `resolve`)."""
    return _one_channel(resolve(name, wait_s), "text", (pylsl.cf_string,))


def resolve_number(name: str, wait_s: float) -> pylsl.StreamInfo:
    """A stream of one channel of numbers (see `resolve`)."""
    return _one_channel(resolve(name, wait_s), "numbers", (pylsl.cf_float32, pylsl.cf_double64, *INTEGERS))


def _one_channel(info: pylsl.StreamInfo, kind: str, formats: tuple[int, ...]) -> pylsl.StreamInfo:
    if info.channel_count() != 1 or info.channel_format() not in formats:
        raise StreamError(f"stream {info.name()!r} is not one channel of {kind}; name a stream that is")
    return info


def refuse_twins(wanted: dict[str, str]) -> None:
    """Raise `StreamError` where two streams go by one name. wanted: name -> source_id, or '' for any."""
    either = " or ".join(f"({_predicate(name, source_id)})" for name, source_id in wanted.items())
    found = {i.uid(): i for i in pylsl.resolve_bypred(either, minimum=len(wanted) + 1, timeout=TWIN_S)}.values()
    for name in wanted:
        senders = sorted(f"{i.hostname()} ({i.source_id()})" for i in found if i.name() == name)
        if len(senders) > 1:
            raise StreamError(
                f"{len(senders)} streams are called {name!r}: {', '.join(senders)}; "
                "stop all but one, or set input.spikes_source_id"
            )


def _predicate(name: str, source_id: str) -> str:
    return f"name='{name}'" + (f" and source_id='{source_id}'" if source_id else "")


def where_else(name: str, session_id: str, wait_s: float = 3.0) -> str:
    """What to set so that a stream missing on this machine is seen, or '' if it is nowhere near.

    Discovery is fixed for a process by its first LSL call, so another process looks.
    """
    for scope, session in (("link", session_id), ("machine", REPLAY_SESSION)):
        if session == session_id and scope == "machine":
            continue
        hosts = _hosts(command("runtime.io.lsl_resolve", name, scope, session, wait_s), wait_s)
        if hosts and session == REPLAY_SESSION:
            return "`neds-rt play` offers it; add --allow-replay"
        if hosts:
            return f'{", ".join(hosts)} offers it on the link; set lsl.resolve_scope = "link"'
    return ""


def _hosts(look: list[str], wait_s: float) -> list[str]:
    """What a look elsewhere found: host names as JSON on its last line. None where it failed: it is a hint."""
    try:
        done = subprocess.run(look, stdin=subprocess.DEVNULL, capture_output=True, timeout=wait_s + 20, check=True)
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=list[str])
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError, IndexError):
        return []


def _look(name: str, scope: str, session_id: str, wait_s: str) -> None:
    configure(session_id, scope)
    found = pylsl.resolve_byprop("name", name, minimum=1, timeout=float(wait_s))
    print(msgspec.json.encode(sorted({info.hostname() for info in found})).decode())


if __name__ == "__main__":
    _look(*sys.argv[1:5])
