"""XDF files of LabRecorder: our spike streams with their unit table, our markers, and behaviours.

What the streams look like is in docs/lsl.md; the file format is https://github.com/sccn/xdf/wiki/Specifications. Stamps
are those of the samples, moved by the clock offsets that the recorder measured, and never smoothed.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neds_core.data.session import UnitTable
from neds_core.errors import DataError
from neds_core.io.formats import xdf_chunks
from neds_core.io.formats.given import refuse_useless
from neds_core.io.formats.xdf_markers import trials_of
from neds_core.io.importing import spikes
from neds_core.io.importing.found import Found, Trace
from neds_core.io.importing.options import Options

MODULUS = 2**31 - 1  # of the spikes that a keep-alive counts
SILENT_S = 0.3  # without a sample, though keep-alives are declared: nothing was recorded
MOST_CHANNELS, MOST_HZ = 32, 2000.0  # of a behaviour; beyond that it is a recording of signals
WANTED = {"schema": "1", "layout": "events_unit", "clock": "lsl", "stamp": "spike", "id_base": "0"}
SAID = ("unit", "sign", "filter", "filter_delay_ms", "future_ms")  # of a channel, beside its label


def suits(path: Path) -> bool:
    """Whether it is an XDF file."""
    return path.is_file() and path.suffix.lower() in (".xdf", xdf_chunks.PACKED)


def read(path: Path, options: Options) -> Found:
    """The one spike stream, the markers and all behaviours. Raises `DataError` and `ConfigError` with the remedy."""
    refuse_useless(path, options, "stamps of XDF are seconds")
    streams, notes = _streams(path)
    stream = _one([s for s in streams if _block(s)], "spikes", path, streams, options)
    units = _units(path, stream)
    spikes.kept(np.zeros(0, np.str_), options.quality, str(path))  # no stream says how good a unit is
    t_s, unit, observed_s = _spikes(path, stream, len(units), notes)
    traces = _traces(path, [s for s in streams if s is not stream and _format(s) != "string"], notes)
    marked = options.names.get("markers", "")
    texts = [_texts(s) for s in streams if _format(s) == "string"]
    trials = trials_of(path, texts, marked, options.bin_ns, notes)
    return Found(
        name=path.stem, format="XDF", t_s=t_s, unit=unit, units=units, traces=traces, trials=trials,
        observed_s=observed_s, notes=tuple(notes),
        clock="times are seconds of the recording computer's LSL clock, by the clock offsets in the file",
    )  # fmt: skip


# --- the file ---


class _Errors(logging.Handler):
    """What the library says of a damaged file, instead of on stderr."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def _heard() -> Iterator[list[str]]:
    logger, handler = logging.getLogger("pyxdf"), _Errors()
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield handler.said
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _streams(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Every stream as pyxdf gives it, and what there is to say of them."""
    pyxdf, notes = spikes.library("pyxdf", "xdf"), []
    whole, size = xdf_chunks.whole(path)
    if whole < size:
        notes.append(f"the recording was cut off: the last {size - whole} bytes are no whole chunk and are left out")
    try:
        with _heard() as errors, xdf_chunks.opened(path) as file:
            source = file if whole == size else io.BytesIO(file.read(whole))
            streams, _ = pyxdf.load_xdf(source, dejitter_timestamps=False, on_chunk=_no_signals)
    except Exception as error:  # of many kinds: it trusts the file
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}); copy it again") from None
    if errors:
        raise DataError(f"{path} is damaged ({errors[0]}); copy it again from the recorder")
    for stream in streams:
        _refuse_fewer(path, stream)
        if _is_signal(stream):
            notes.append(
                f"stream {_name(stream)!r} ({_text(stream['info'], 'channel_count')} channels at "
                f"{_text(stream['info'], 'nominal_srate')} Hz) is left out: signals are no behaviour"
            )
        elif (resets := len(stream["info"].get("clock_segments") or ()) - 1) > 0:
            notes.append(f"the clock of stream {_name(stream)!r} was set {resets} times; check what lies around it")
    if whole == size and streams and not any("footer" in s for s in streams):
        notes.append("the recording was cut off: no stream has a footer")
    return [s for s in streams if not _is_signal(s)], notes


def _no_signals(values: Any, stamps: np.ndarray, stream: dict[str, Any], _: int) -> tuple[Any, np.ndarray, Any]:
    """Keeps nothing of signals, which may be larger than the memory."""
    return (values[:0], stamps[:0], stream) if _is_signal(stream) else (values, stamps, stream)


def _is_signal(stream: dict[str, Any]) -> bool:
    wide = int(_text(stream["info"], "channel_count")) > MOST_CHANNELS
    fast = float(_text(stream["info"], "nominal_srate") or 0.0) > MOST_HZ
    return _format(stream) != "string" and (wide or fast) and not _block(stream)


def _refuse_fewer(path: Path, stream: dict[str, Any]) -> None:
    """The footer counts the samples; fewer are a damaged file."""
    told = _text((stream.get("footer") or {}).get("info") or {}, "sample_count")
    n = len(stream["time_stamps"])
    if told.isdigit() and int(told) > n and not _is_signal(stream):
        raise DataError(f"{path}: stream {_name(stream)!r} has {n} of the {told} samples of its footer; copy it again")
    if not np.isfinite(stream["time_stamps"]).all():
        raise DataError(f"{path}: stream {_name(stream)!r} has stamps that are no numbers; record it again")


# --- what a stream says of itself ---


def _child(node: Any, *keys: str) -> dict[str, list[Any]]:
    """The first element below elements of these names; empty where one is not there."""
    for key in keys:
        node = (node.get(key) or [None])[0] if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _text(node: dict[str, list[Any]], key: str) -> str:
    """The text of an element below; '' where there is none."""
    found = (node.get(key) or [""])[0]
    return found.strip() if isinstance(found, str) else ""


def _name(stream: dict[str, Any]) -> str:
    return _text(stream["info"], "name")


def _format(stream: dict[str, Any]) -> str:
    return _text(stream["info"], "channel_format")


def _block(stream: dict[str, Any]) -> dict[str, list[Any]]:
    """What makes a stream one of spikes; behaviours and markers say their source alone."""
    block = _child(stream["info"], "desc", "neds_rt")
    return block if "layout" in block or "unit_map_sha256" in block else {}


def _texts(stream: dict[str, Any]) -> tuple[str, np.ndarray, list[str]]:
    """Name, stamps (n,) and texts of a string stream."""
    return _name(stream), stream["time_stamps"], [row[0] for row in stream["time_series"]]


def _one(
    found: list[dict[str, Any]], role: str, path: Path, streams: list[dict[str, Any]], options: Options
) -> dict[str, Any]:
    """The stream that plays a part, by its name where there are more."""
    wanted = options.names.get(role, "")
    found = [s for s in found if not wanted or _name(s) == wanted]
    if not found:
        there = ", ".join(repr(_name(s)) for s in streams) or "none"
        called = f" {wanted!r}" if wanted else ""
        raise DataError(
            f"{path} has no spike stream{called} that says its units (streams: {there}); "
            "the sender has to describe them as docs/lsl.md shows"
        )
    if len(found) > 1:
        there = ", ".join(repr(_name(s)) for s in found)
        raise DataError(f"{path} has {len(found)} spike streams ({there}); say which with --name {role}=STREAM")
    return found[0]


def _units(path: Path, stream: dict[str, Any]) -> UnitTable:
    """The table of the description, with the hash that it declares."""
    block, name = _block(stream), f"{path}: stream {_name(stream)!r}"
    for key, value in WANTED.items():
        if _text(block, key) != value:
            raise DataError(f"{name} declares {key} {_text(block, key)!r}, not {value!r} (docs/lsl.md)")
    if (_format(stream), _text(stream["info"], "channel_count")) != ("int32", "1"):
        raise DataError(f"{name} is no stream of one int32 channel (docs/lsl.md)")
    rows = [row if isinstance(row, dict) else {} for row in _child(block, "units").get("unit", [])]
    if not rows:
        raise DataError(f"{name} sends no table of its units; its sender has to send one (docs/lsl.md)")
    table = [(_text(r, "source_id"), _text(r, "region"), _text(r, "depth_um")) for r in rows]
    digest = hashlib.sha256("\n".join("\t".join((i, r, d or "nan")) for i, r, d in table).encode()).hexdigest()
    if all(depth for _, _, depth in table) and digest != _text(block, "unit_map_sha256"):
        raise DataError(f"{name} declares another unit_map_sha256 than its table of units has; correct the sender")
    try:
        ids, depth = np.array([int(i) for i, _, _ in table]), np.array([float(d or "nan") for _, _, d in table])
    except ValueError as error:
        raise DataError(f"{name} has units whose source_id or depth_um is no number ({error}); send numbers") from None
    return UnitTable(ids, np.array([r for _, r, _ in table], dtype=np.str_), depth.astype(np.float32))


# --- samples ---


def _spikes(
    path: Path, stream: dict[str, Any], n_units: int, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """t_s (n,) sorted, unit (n,) int32, and when the stream was there (K, 2)."""
    stamps, values = np.asarray(stream["time_stamps"], np.float64), stream["time_series"][:, 0].astype(np.int64)
    is_spike = (values >= 0) & (values < n_units)
    if not is_spike.any():
        raise DataError(f"{path}: stream {_name(stream)!r} has no spikes; record while the sender runs")
    negative = values < 0
    keeps = _text(_block(stream), "keep_alive") == "1" and _counts(values, is_spike, notes)
    if strange := int((~is_spike & ~(negative & keeps)).sum()):
        notes.append(f"{strange} samples are of no unit of the table and are left out")
    order = np.argsort(stamps[is_spike], kind="stable")
    t_s, unit = stamps[is_spike][order], values[is_spike][order].astype(np.int32)
    stamps = np.sort(stamps)
    gaps = np.flatnonzero(np.diff(stamps) > SILENT_S) if keeps else np.zeros(0, np.int64)
    if len(gaps):
        notes.append(f"the spikes were away {len(gaps)} times for more than {SILENT_S:g} s; nothing is taken there")
    return t_s, unit, np.stack([stamps[np.r_[0, gaps + 1]], stamps[np.r_[gaps, len(stamps) - 1]]], axis=1)


def _counts(values: np.ndarray, is_spike: np.ndarray, notes: list[str]) -> bool:
    """Whether negative samples, in the order of the file, count the spikes sent; says how many of those are missing."""
    at = np.flatnonzero(values < 0)
    received = np.cumsum(is_spike)[at]
    steps = (np.diff(-1 - values[at] - received) + MODULUS // 2) % MODULUS - MODULUS // 2
    if len(at) < 2 or (steps < 0).any():
        notes.append(f"{len(at)} negative samples are no keep-alives, though the stream declares them")
        return False
    if lost := int(steps.sum()):
        notes.append(f"{lost} spikes that the sender counted are not in the file")
    return True


def _traces(path: Path, streams: list[dict[str, Any]], notes: list[str]) -> tuple[Trace, ...]:
    """Every channel of every stream of numbers; where two have one name, the stream's stands before it."""
    found = [(_name(stream), trace) for stream in streams for trace in _channels(stream, notes)]
    n = Counter(trace.name for _, trace in found)
    traces = [replace(t, name=f"{stream}_{t.name}") if n[t.name] > 1 else t for stream, t in found]
    name, most = next(iter(Counter(trace.name for trace in traces).most_common(1)), ("", 0))
    if most > 1:
        raise DataError(f"{path} has the behaviour {name!r} in {most} streams; record one of them")
    return tuple(traces)


def _channels(stream: dict[str, Any], notes: list[str]) -> Iterator[Trace]:
    """The channels of one stream, by their labels."""
    t_s, values = np.asarray(stream["time_stamps"], np.float64), stream["time_series"]
    if not len(t_s):
        notes.append(f"stream {_name(stream)!r} has no samples")
        return
    order = np.argsort(t_s, kind="stable")
    said = _child(stream["info"], "desc", "channels").get("channel", [])
    for c in range(values.shape[1]):
        of = said[c] if c < len(said) and isinstance(said[c], dict) else {}
        name = _text(of, "label") or (_name(stream) if values.shape[1] == 1 else f"{_name(stream)}_{c}")
        unit, sign, filtered, delay, future = (_text(of, key) for key in SAID)
        try:
            ms = float(delay or 0.0), float(future or 0.0)
        except ValueError:
            raise DataError(
                f"channel {name!r} declares {delay!r} and {future!r} ms of its filter; send numbers"
            ) from None
        yield Trace(name, t_s[order], values[order, c].astype(np.float64), unit, "", sign, filtered, *ms)
