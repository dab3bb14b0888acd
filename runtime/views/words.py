"""Lines of words for a view: what a run says of itself, in pieces that flow into the width that there is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from rich.text import Text

from runtime.views.look import AMBER, MODES, Look, share_of_misses, tone_of_latency, tone_of_misses
from runtime.wire import Flag

NONE = "—"
LOSSES = {
    "late", "lost", "dropped", "quarantined", "out", "superseded", "invalid", "bad", "misses", "jumps", "resent",
    "unended", "held",
}  # fmt: skip


def number(value: float | None, digits: int = 1) -> str:
    """A value as it is shown; a dash where there is none."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def plain(words: object) -> str:
    """Words from outside on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(words)).split())


def styled(words: str, style: str = "") -> Text:
    """Words in a style that ends with them, whatever is appended."""
    return Text(no_wrap=True).append(words, style)


def said(name: str, value: object, style: str = "", after: str = "") -> Text:
    """`name value`: the name dim, the value bright or in a colour."""
    return styled(f"{name} ", "dim").append(plain(value), style).append(after, "dim")


def cut(text: Text, width: int, *, pad: bool = False) -> Text:
    """The text in `width` cells, an ellipsis where it is longer."""
    text.truncate(max(1, width), overflow="ellipsis", pad=pad)
    return text


def flow(pieces: Iterable[Text], width: int, gap: int = 3) -> list[Text]:
    """Pieces side by side, in as many lines as they need; one that is wider than a line is cut."""
    lines: list[Text] = []
    for piece in pieces:
        if lines and lines[-1].cell_len + gap + piece.cell_len <= width:
            lines[-1].append(" " * gap).append_text(piece)
        else:
            lines.append(cut(piece.copy(), width))
    return lines


def wrapped(sentence: str, width: int, style: str) -> list[Text]:
    """A sentence over as many lines as it needs, each of the whole width in its colour."""
    lines, line, width = [], "", max(1, width)
    for word in plain(sentence).split(" "):
        while styled(word).cell_len > width:  # one word wider than a line
            lines += [line] if line else []
            head = styled(word)
            head.truncate(width, overflow="crop")
            line, word = "", word[len(head.plain.rstrip()) or 1 :]
            lines.append(head.plain)
        if line and styled(f"{line} {word}").cell_len > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [cut(Text(each, style), width, pad=True) for each in [*lines, *([line] if line else [])]]


def badge(word: str, colour: str) -> Text:
    """A word on a ground of its colour."""
    return styled(f" {word} ", f"bold {'black' if colour in (AMBER, 'white', 'green') else 'white'} on {colour}")


def state_of(look: Look) -> list[Text]:
    """Mode, state and rig."""
    state = styled("state ", "dim").append_text(badge(look.word or NONE, look.tone))
    return [badge(look.mode, MODES[look.mode]), state, said("rig", look.shown.rig)]


def timing(look: Look) -> list[Text]:
    """Latency and misses of the last minute; amber and red, and in words."""
    status = look.status
    budget_ms = status.budget_ms if status else 0.0
    recent = status.edge_to_pub_ms if status else {}
    over = [name for name in ("p50", "p99", "max") if tone_of_latency(recent.get(name), budget_ms) == AMBER]
    pieces = [
        said(f"edge to pub {name}" if name == "p50" else name, number(recent.get(name)), AMBER if name in over else "")
        for name in ("p50", "p99", "max")
    ]
    pieces[-1].append(" ms", "dim")
    share = share_of_misses(look)
    misses = said("misses", NONE if status is None else status.misses_last_minute)
    if status is not None and status.misses_last_minute:
        tone = tone_of_misses(status.misses_last_minute, share)
        misses = said("misses", status.misses_last_minute, f"bold {tone}")
        misses.append("" if share is None else f" ({100 * share:.1f} %)", tone)
    budget = said("budget", f"{budget_ms:.0f} ms" if status else NONE)
    if over:
        budget.append(f" ({', '.join(over)} over)", AMBER)
    return [*pieces, misses, budget]


def flags(look: Look) -> list[Text]:
    """Flags of the newest message; trial and marker."""
    decode, status = look.decode, look.status
    names = [flag.name or "" for flag in Flag if decode and decode.flags & flag]
    marker = (status.last_marker if status else "") or NONE
    segment = NONE if status is None or status.segment is None else status.segment
    style = "" if not names or names == ["IDLE"] else AMBER
    return [said("flags", " ".join(names) or NONE, style), said("segment", segment), said("marker", marker)]


def losses(look: Look) -> list[Text]:
    """What was lost, of each kind above 0."""
    if look.status is None:
        return [said("losses", NONE)]
    found = [(key, n) for key, n in look.status.counters.items() if n > 0 and LOSSES & set(key.split("_"))]
    first = styled("losses", "dim") if found else said("losses", "none")
    return [first, *(said(_called(key), n, f"bold {AMBER}") for key, n in found)]


def counts(look: Look) -> list[Text]:
    """Counters that are no losses; of other kinds than spikes and tokens those above 0."""
    counters = look.status.counters if look.status else {}
    kept = [(key, n) for key, n in counters.items() if not LOSSES & set(key.split("_"))]
    pieces, rest = [], [(key, n) for key, n in kept if n > 0 and key.partition("_")[0] not in ("spikes", "tokens")]
    for kind in ("spikes", "tokens"):
        found = [(key.partition("_")[2], n) for key, n in kept if key.startswith(f"{kind}_")]
        pieces += [said(_called(name if i else f"{kind}_{name}"), n) for i, (name, n) in enumerate(found)]
    return [*pieces, *(said(_called(key), n) for key, n in rest)] or [said("counters", NONE)]


def _called(counter: str) -> str:
    return plain(counter.replace("_", " "))


def decoder(look: Look) -> list[Text]:
    """What decodes: all of it stands in the messages."""
    known, model = look.shown.decode or look.shown.status, look.shown.status
    name = f"{model.model} {model.model_sha[:8]}, {age(model.model_created, look.shown.now)}" if model else NONE
    return [
        said("decoder", known.decoder if known else NONE),
        said("engine", known.engine if known else NONE),
        said("model", name),
    ]


def inputs(look: Look) -> list[Text]:
    """What comes in."""
    status = look.status
    return [
        said("units", f"{status.units_seen}/{status.units_expected}" if status else NONE),
        said("population", f"{status.population_rate_hz:.0f} Hz" if status else NONE),
    ]


def newest(look: Look) -> list[Text]:
    """Times of the newest message, and what this view left out."""
    decode, shown = look.decode, look.shown
    return [
        said("edge to pub now", f"{number(decode.edge_to_pub_ms if decode else None)} ms"),
        said("infer", f"{number(decode.infer_ms if decode else None)} ms"),
        said("newest spike", f"{number(decode.age_ms if decode else None)} ms"),
        said("view skipped", shown.missed),
        *([said("too old", shown.refused, AMBER)] if shown.refused else []),
    ]


def age(created: str, now: datetime) -> str:
    """Age of a time stamp in ISO 8601 in its largest whole unit."""
    try:
        then = datetime.fromisoformat(created)
    except ValueError:
        return "of unknown age"
    seconds = (now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} old"
    return "new"
