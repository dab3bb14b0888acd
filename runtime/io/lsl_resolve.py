"""Finding LSL streams: discovery settings, streams by name, and what to set where one is not seen."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable

import msgspec
import pylsl

from neds_core.errors import StreamError
from runtime.core.words import listed, plain, quoted
from runtime.io import lsl_settings
from runtime.start import command

REPLAY_SESSION = "neds-rt-replay"
INTEGERS = (pylsl.cf_int8, pylsl.cf_int16, pylsl.cf_int32, pylsl.cf_int64)
FORMATS = {  # as pylsl and LabRecorder call them
    pylsl.cf_float32: "float32", pylsl.cf_double64: "double64", pylsl.cf_string: "string", pylsl.cf_int8: "int8",
    pylsl.cf_int16: "int16", pylsl.cf_int32: "int32", pylsl.cf_int64: "int64",
}  # fmt: skip
NUMBERS = (pylsl.cf_float32, pylsl.cf_double64, *INTEGERS)
LIST_S = 1.0  # for a list of the streams that are there
DESCRIBE_S = 5.0
RESOLVE_S = 1.5  # of one search: three rounds of liblsl's questions
Watch = Callable[[], None]  # called between two looks; raises where another has no use
TWIN_S = 0.7  # liblsl asks every sender only half a second after the first has answered


def configure(session_id: str, resolve_scope: str, known_peers: tuple[str, ...] = ()) -> None:
    """Set liblsl's discovery for this process. Must come before the first LSL call. Raises `ConfigError`."""
    pylsl.set_config_content(lsl_settings.merged(session_id, resolve_scope, known_peers))


def library() -> str:
    """The version of the native library, as liblsl counts it. No LSL call: `configure` may still come."""
    return str(pylsl.library_version())


def unwatched() -> None:
    """Nothing to look after between two looks."""


def resolve(name: str, wait_s: float, source_id: str = "", watch: Watch = unwatched) -> pylsl.StreamInfo:
    """The first stream found with this name (see `refuse_twins`). Raises `StreamError` if there is none."""
    info = _find(_predicate(name, source_id), wait_s, watch)
    if info is None:
        raise StreamError(_missing(name, wait_s, source_id))
    if not info.source_id():
        raise StreamError(
            f"stream {quoted(name)} has no source_id, so LSL could not find it again; set one in its sender"
        )
    return info


def find(name: str, wait_s: float, source_id: str = "") -> pylsl.StreamInfo | None:
    """The first stream found with this name, None where there is none."""
    return _find(_predicate(name, source_id), wait_s, unwatched)


def _find(predicate: str, wait_s: float, watch: Watch) -> pylsl.StreamInfo | None:
    deadline, found = time.monotonic() + wait_s, []
    while not found and (left := deadline - time.monotonic()) > 0:  # in slices: a signal is heard between two of them
        watch()
        found = pylsl.resolve_bypred(predicate, minimum=1, timeout=min(left, RESOLVE_S))
    return found[0] if found else None


def _missing(name: str, wait_s: float, source_id: str) -> str:
    """What to do about a stream that is not there, and what is there instead."""
    seen = pylsl.resolve_streams(LIST_S)
    others = sorted({i.source_id() for i in seen if i.name() == name})
    if others and source_id:
        return (
            f"stream {quoted(name)} comes from source_id {listed(others)}, not {quoted(source_id)}; "
            "correct input.spikes_source_id or leave it out"
        )
    sentence = f"stream {quoted(name)} was not found in {wait_s:g} s; start its sender or raise input.wait_s"
    names = sorted({i.name() for i in seen})
    return f"{sentence}; streams seen here: {listed(names)}" if names else sentence


def stranger(name: str, source_id: str, uid: str) -> str:
    """Why a sender that has come back is not connected again, and what to do; '' = it has not come back.

    uid: of the sender that was followed.
    """
    seen = pylsl.resolve_bypred(_predicate(name, ""), minimum=2, timeout=RESOLVE_S)
    same = [i for i in seen if i.source_id() == source_id]
    if same and "'" in name + source_id and all(i.uid() != uid for i in same):
        return (
            f"stream {quoted(name)} came back, and LSL does not connect again to a name with an apostrophe: "
            "restart the run"
        )
    others = sorted({i.source_id() for i in seen} - {source_id})
    if not others or same:
        return ""
    return (
        f"stream {quoted(name)} came back from source_id {listed(others)}; this run follows {quoted(source_id)}: "
        "restart the run, and give the sender one source_id for good"
    )


def resolve_text(name: str, wait_s: float, watch: Watch = unwatched) -> pylsl.StreamInfo:
    """A stream of one channel of text (see `resolve`)."""
    info = resolve(name, wait_s, watch=watch)
    if info.channel_format() != pylsl.cf_string:
        raise StreamError(f"stream {quoted(name)} sends {FORMATS[info.channel_format()]}; send string (JSON markers)")
    if info.channel_count() != 1:
        raise StreamError(f"stream {quoted(name)} has {info.channel_count()} channels; send one channel of string")
    return info


def resolve_number(
    name: str, wait_s: float, output: str, watch: Watch = unwatched
) -> tuple[pylsl.StreamInfo, int]:  # fmt: skip
    """A stream of numbers (see `resolve`) and the channel of one output.

    name: of the stream, or STREAM:LABEL for one channel of it. Without a label the stream's only channel, or the
    channel whose label is the output's name.
    """
    whole, colon, label = name.rpartition(":")
    info = _find(_either(_predicate(n, "") for n in ((name, whole) if colon else (name,))), wait_s, watch)
    if info is None:
        raise StreamError(_missing(whole or name, wait_s, ""))
    if not info.source_id():
        resolve(info.name(), wait_s)  # refused
    if info.channel_format() not in NUMBERS:
        sent = FORMATS[info.channel_format()]
        raise StreamError(f"stream {quoted(info.name())} sends {sent}; name a stream of numbers (float32)")
    if info.name() != name:
        return info, _channel(info, label, output)
    return info, 0 if info.channel_count() == 1 else _channel(info, output, output)


def _channel(info: pylsl.StreamInfo, label: str, output: str) -> int:
    """The channel with this label."""
    labels = channel_labels(pylsl.StreamInlet(info).info(DESCRIBE_S))
    if labels.count(label) == 1:
        return labels.index(label)
    name, count = plain(info.name()), info.channel_count()
    if not any(labels):
        raise StreamError(
            f"stream {quoted(name)} has {count} channels without labels; label them in its sender (docs/lsl.md)"
        )
    raise StreamError(
        f"stream {quoted(name)} has the channels {listed(labels)}, not one {quoted(label)}; name one of them under "
        f"input.behaviours: {output} = {quoted(f'{name}:{labels[0]}')}"
    )


def channel_labels(info: pylsl.StreamInfo) -> list[str]:
    """Labels of a stream's channels as its description has them, '' where there is none."""
    labels, channel = [], info.desc().child("channels").child("channel")
    while not channel.empty() and len(labels) < info.channel_count():
        labels.append(channel.child_value("label"))
        channel = channel.next_sibling("channel")
    return labels + [""] * (info.channel_count() - len(labels))


def refuse_twins(wanted: dict[str, str], spikes: str) -> None:
    """Raise `StreamError` where two streams go by one name. wanted: name -> source_id, or '' for any.

    spikes: the one name that a source_id can be set for.
    """
    either = _either(_predicate(name, source_id) for name, source_id in wanted.items())
    found = {i.uid(): i for i in pylsl.resolve_bypred(either, minimum=len(wanted) + 1, timeout=TWIN_S)}.values()
    for name in wanted:
        twins = [i for i in found if i.name() == name]
        if len(twins) > 1:
            senders = sorted(f"{plain(i.hostname())} ({plain(i.source_id())})" for i in twins)
            ids = [i.source_id() for i in twins]
            raise StreamError(
                f"{len(twins)} streams are called {quoted(name)}: {', '.join(senders)}; stop all but one, or "
                f"{_distinguish(name == spikes, sorted(i for i in ids if i and ids.count(i) == 1))}"
            )


def _distinguish(is_spikes: bool, alone: list[str]) -> str:
    """What to do about streams of one name that are all needed. alone: the source_ids that only one of them has."""
    if not is_spikes:
        return "give each its own name in its sender and in rig.toml"
    if not alone:
        return "give each its own source_id in its sender and set input.spikes_source_id"
    return f"set input.spikes_source_id to {' or '.join(map(quoted, alone))}"


def _predicate(name: str, source_id: str) -> str:
    return f"name={_literal(name)}" + (f" and source_id={_literal(source_id)}" if source_id else "")


def _either(predicates: Iterable[str]) -> str:
    """Any of them. liblsl adds "session_id='...' and" in front, which binds closer than "or"."""
    return f"({' or '.join(f'({predicate})' for predicate in predicates)})"


def _literal(text: str) -> str:
    """A text in XPath, which has no escapes: between the quotes that it lacks, or in pieces."""
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    pieces = [f"'{piece}'" for piece in text.split("'")]
    return f"concat({f', {chr(34)}{chr(39)}{chr(34)}, '.join(pieces)})"


def where_else(missing: str, name: str, session_id: str, wait_s: float = 3.0) -> str:
    """The sentence `missing` on a stream that this machine lacks, with what to set so that it is seen; where it is a
    replay or made up, that alone.

    Discovery is fixed for a process by its first LSL call, so another process looks.
    """
    for scope, session in (("link", session_id), ("machine", REPLAY_SESSION)):
        if session == session_id and scope == "machine":
            continue
        hosts = _hosts(command("runtime.io.lsl_resolve", name, scope, session, wait_s), wait_s)
        if hosts and session == REPLAY_SESSION:
            return f"stream {quoted(name)} is there as a replay or a made-up stream; add --allow-replay to take it"
        if hosts:
            return f'{missing}; {", ".join(hosts)} offers it on the link; set lsl.resolve_scope = "link"'
    return missing


def _hosts(look: list[str], wait_s: float) -> list[str]:
    """What a look elsewhere found: host names as JSON on its last line. None where it failed: it is a hint."""
    try:
        done = subprocess.run(look, stdin=subprocess.DEVNULL, capture_output=True, timeout=wait_s + 20, check=True)
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=list[str])
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError, IndexError):
        return []


def _look(name: str, scope: str, session_id: str, wait_s: str) -> None:
    configure(session_id, scope)
    found = pylsl.resolve_bypred(_predicate(name, ""), minimum=1, timeout=float(wait_s))
    print(msgspec.json.encode(sorted({info.hostname() for info in found})).decode())


if __name__ == "__main__":
    _look(*sys.argv[1:5])
