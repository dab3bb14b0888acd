"""XDF files as LabRecorder writes them, chunk by chunk, and the streams of a playback."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pylsl

from neds_core.data.session import Session
from runtime.core.timeline import gap_bins, inside_ns, timeline
from runtime.io.lsl_description import Declared, describe, describe_channel
from runtime.io.unit_stream import KEEP_ALIVE_MODULUS

FORMATS = {"int32": "<i4", "float32": "<f4", "double64": "<f8", "int16": "<i2"}


@dataclass
class Stream:
    """Header as XML, stamps (n,) and values (n, channels) or texts; offsets: when and how far its clock was off, s."""

    xml: str
    stamps: np.ndarray
    values: np.ndarray | list[str]
    offsets: list[tuple[float, float]] = field(default_factory=list)

    @property
    def form(self) -> str:
        return self.xml.split("<channel_format>")[1].split("<")[0]


def write(path: Path, streams: list[Stream], footers: bool = True) -> Path:
    """Write whole chunks: headers, samples with offsets between them, footers."""
    parts = [b"XDF:", _chunk(1, b"<?xml version='1.0'?><info><version>1.0</version></info>")]
    for number, stream in enumerate(streams, 1):
        key = struct.pack("<I", number)
        parts.append(_chunk(2, key + stream.xml.encode()))
        parts += [_chunk(4, key + struct.pack("<dd", at, off)) for at, off in stream.offsets]
        parts += [_chunk(3, key + _samples(stream, rows)) for rows in _pieces(len(stream.stamps))]
    for number, stream in enumerate(streams, 1):
        text = f"<?xml version='1.0'?><info><sample_count>{len(stream.stamps)}</sample_count></info>"
        parts += [_chunk(6, struct.pack("<I", number) + text.encode())] if footers else []
    path.write_bytes(b"".join(parts))
    return path


def _pieces(n: int) -> list[slice]:
    return [slice(at, at + 500) for at in range(0, n, 500)]


def _chunk(tag: int, content: bytes) -> bytes:
    return b"\x04" + struct.pack("<I", len(content) + 2) + struct.pack("<H", tag) + content


def _samples(stream: Stream, rows: slice) -> bytes:
    stamps, values = stream.stamps[rows], stream.values[rows]
    parts = [b"\x04" + struct.pack("<I", len(stamps))]
    for stamp, value in zip(stamps, values, strict=True):
        parts.append(b"\x08" + struct.pack("<d", stamp))
        if isinstance(value, str):
            parts.append(b"\x04" + struct.pack("<I", len(value.encode())) + value.encode())
        else:
            parts.append(np.asarray(value, FORMATS[stream.form]).tobytes())
    return b"".join(parts)


def info(name: str, form: int, channels: int = 1, rate_hz: float = 0.0) -> pylsl.StreamInfo:
    """A stream's description, to be added to."""
    return pylsl.StreamInfo(name, "Test", channels, rate_hz, form, name)


def playback(session: Session, zero_ns: int) -> list[Stream]:
    """What `neds-rt play` sends of a session: spikes with keep-alives, markers, and each continuous behaviour."""
    bin_ns, plan = session.bin_ns, timeline(session)
    end = plan[-1].start_ns // bin_ns + plan[-1].n_bins + gap_bins(bin_ns)
    t_ns, unit = (np.concatenate([getattr(s, key) for s in plan]) for key in ("t_ns", "unit"))
    edges = np.arange(-25, end + 1) * bin_ns  # it begins before the first segment
    sent = np.searchsorted(t_ns, edges)
    at = np.r_[t_ns, edges]
    order = np.lexsort((np.arange(len(at)), at))
    values = np.r_[unit.astype(np.int64), -1 - sent % KEEP_ALIVE_MODULUS][order]
    described = info("rig-spikes", pylsl.cf_int32)
    describe(described, session.units, "replay", 300.0)
    streams = [Stream(described.as_xml(), (at[order] + zero_ns) * 1e-9, values[:, None])]
    marks: list[tuple[int, dict[str, object]]] = []
    for s in plan:
        begin, inside = zero_ns + s.start_ns, inside_ns(bin_ns)
        stop = begin + s.n_bins * bin_ns
        marks.append((begin + inside, {"event": "segment_start", "segment": s.number, "stands": s.stands}))
        marks.append((stop - inside, {"event": "segment_end", "segment": s.number, "labels": s.labels}))
    marks.append((marks[-1][0] + bin_ns, {"event": "recording_end"}))
    texts = [msgspec.json.encode(text).decode() for _, text in marks]
    streams.append(Stream(info("rig-markers", pylsl.cf_string).as_xml(), np.array([t for t, _ in marks]) * 1e-9, texts))
    rows = np.concatenate([np.arange(s.first_bin, s.first_bin + s.n_bins) for s in plan])
    begins = np.concatenate([zero_ns + s.start_ns + np.arange(s.n_bins) * bin_ns for s in plan])
    for spec in (each for each in session.specs if each.kind == "continuous"):
        described = info(f"rig-{spec.name}", pylsl.cf_float32, rate_hz=1e9 / bin_ns)
        describe_channel(described, spec.name, Declared(spec.unit, spec.sign, spec.filter, spec.filter_delay_ms))
        stamps = (begins + bin_ns - inside_ns(bin_ns)) * 1e-9
        streams.append(Stream(described.as_xml(), stamps, session.values[spec.name][rows][:, None]))
    return streams
