"""Markers of a task as trials: JSON in a string stream, `segment_start` and `segment_end` (docs/lsl.md).

A trial is what a run decodes of it: all bins from that of its first marker to that of its last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from neds_core.errors import DataError
from neds_core.io.importing.found import Trials

START, END = "segment_start", "segment_end"


class Marker(Struct, frozen=True):
    """What a marker says; fields that we do not know are passed over."""

    event: str
    segment: int | float = -1
    labels: dict[str, Any] = {}
    stands: dict[str, float] = {}
    stimulated: bool = False


def trials_of(
    path: Path, streams: list[tuple[str, np.ndarray, list[str]]], wanted: str, bin_ns: int, notes: list[str]
) -> Trials | None:
    """The segments of the one stream of markers; streams: name, stamps (n,), texts. None where none is of ours.

    wanted: the name of the stream where there are more.
    """
    ours = []
    for name, stamps, texts in streams:
        marks, bad = _read(stamps, texts)
        if (not wanted or name == wanted) and any(mark.event in (START, END) for _, mark in marks):
            ours.append((name, marks, bad))
        else:
            notes.append(f"stream {name!r} holds no markers of segments and is left out")
    if not ours:
        return None
    if len(ours) > 1:
        there = ", ".join(repr(name) for name, _, _ in ours)
        raise DataError(f"{path} has {len(ours)} streams of markers ({there}); say which with --name markers=STREAM")
    ((name, marks, bad),) = ours
    if bad:
        notes.append(f"{bad} markers of stream {name!r} cannot be read and are left out")
    pairs = _pairs(marks, notes)
    first, last = (
        np.rint(np.array([pair[k][0] for pair in pairs], np.float64) * 1e9).astype(np.int64) // bin_ns for k in (0, 1)
    )
    stop = np.minimum(last + 1, np.r_[first[1:], np.iinfo(np.int64).max])  # a bin of two belongs to the one that begins
    start_s, stop_s = first * bin_ns * 1e-9, stop * bin_ns * 1e-9
    return Trials(start_s, stop_s, _columns([(start[1], stop[1]) for start, stop in pairs]))


def _read(stamps: np.ndarray, texts: list[str]) -> tuple[list[tuple[float, Marker]], int]:
    """Markers with their stamps, in time order, and how many samples are none."""
    decoder, marks = msgspec.json.Decoder(Marker), []
    for t, text in zip(stamps.tolist(), texts, strict=True):
        try:
            marks.append((t, decoder.decode(text)))
        except (msgspec.MsgspecError, RecursionError):
            continue
    return sorted(marks, key=lambda mark: (mark[0], mark[1].event == START)), len(texts) - len(marks)


def _pairs(
    marks: list[tuple[float, Marker]], notes: list[str]
) -> list[tuple[tuple[float, Marker], tuple[float, Marker]]]:
    """Each start with the end of its segment; what has no partner is counted."""
    pairs, begun, alone = [], None, 0
    for mark in marks:
        if mark[1].event == START:
            alone += begun is not None
            begun = mark
        elif mark[1].event == END:
            if begun is None or begun[1].segment != mark[1].segment:
                alone += 1
                continue
            pairs.append((begun, mark))
            begun = None
    alone += begun is not None
    if alone:
        notes.append(f"{alone} markers begin or end a segment without the other; they are left out")
    return pairs


def _columns(pairs: list[tuple[Marker, Marker]]) -> dict[str, np.ndarray]:
    """The segment's number, its labels, where its outputs stood, and whether it was stimulated."""
    labels = [{**start.labels, **stop.labels} for start, stop in pairs]
    found = {"segment": np.array([float(start.segment) for start, _ in pairs], np.float64)}
    if any(mark.stimulated for pair in pairs for mark in pair):
        found["stimulated"] = np.array([float(a.stimulated or b.stimulated) for a, b in pairs], np.float64)
    for name in dict.fromkeys(name for row in labels for name in row):
        found[name] = _column([row.get(name) for row in labels])
    for name in dict.fromkeys(name for start, _ in pairs for name in start.stands):
        found[f"stands_{name}"] = np.array([start.stands.get(name, np.nan) for start, _ in pairs], np.float64)
    return found


def _column(values: list[Any]) -> np.ndarray:
    """Numbers where all are numbers (NaN = not said), else texts ('' = not said)."""
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return np.array([np.nan if value is None else float(value) for value in values], np.float64)
    return np.array([_word(value) for value in values], dtype=np.str_)


def _word(value: Any) -> str:
    """A label as text; what can be no label is ''."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else ""
