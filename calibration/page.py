"""The report of a calibration as one HTML page that loads nothing, so it can be mailed; its figures beside it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from calibration import drawings, report as reports
from calibration.report import Report
from neds_core.checkpoint.judged import Offer
from neds_core.files import beside, whole
from runtime.io.chain import Link

COLOURS = {"PASS": "#1a7f37", "RIDGE": "#0b6e99", "NEED": "#9a6700", "REFUSE": "#b3261e"}
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:820px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}b.word{color:#fff;padding:.1em .5em;border-radius:.3em}
img{max-width:100%}small{color:#555}td.n small{white-space:nowrap}pre{white-space:pre-wrap}"""
FIGURES = ("traces", "learning", "units", "reliability", "lags")
TITLES = {
    "traces": "Traces", "learning": "Learning curves", "units": "Contribution of units",
    "reliability": "Reliability of probabilities", "lags": "Behaviour against the spikes",
}  # fmt: skip


def write(found: Report, out: Path, links: Sequence[Link] = ()) -> Path:
    """Write DECODER.html and its figures, DECODER.traces.png and so on, beside the checkpoint `out`; returns the page.

    links: of the chain of decoders, what the page says of exchanges. Figures of an earlier report are replaced.
    """
    pictures = {name: (caption, png) for name, caption, png in drawings.draw(found)}
    for name in FIGURES:
        path = beside(out, f".{name}.png")
        if name not in pictures:
            path.unlink(missing_ok=True)
            continue
        with whole(path) as partial:
            partial.write_bytes(pictures[name][1])
    page = beside(out, ".html")
    with whole(page) as partial:
        partial.write_text(html(found, pictures, links), encoding="utf-8")
    return page


def remove(out: Path) -> None:
    """Remove the page of a checkpoint and its figures."""
    for path in (beside(out, ".html"), *(beside(out, f".{name}.png") for name in FIGURES)):
        path.unlink(missing_ok=True)


def html(found: Report, pictures: dict[str, tuple[str, bytes]], links: Sequence[Link] = ()) -> str:
    """The page: verdicts with their scores, figures by name with their captions, stages, exchanges, and the text."""
    figures = (_figure(name, *pictures[name]) for name in FIGURES if name in pictures)
    parts = [
        f"<h1>Calibration of {escape(found.session)}</h1>",
        f"<p>Gate <b>{'passed' if found.passed else 'not passed'}</b>. Checkpoint {escape(found.checkpoint)}, base "
        f"{escape(found.base) or 'none'}, {found.seconds:.0f} s.</p>",
        "<h2>Verdicts</h2>",
        _verdicts(found),
        *(f"<p><b>{escape(name)}</b>: not judged, its labels are inferred.</p>" for name in found.not_judged),
        *figures,
        "<h2>Stages</h2>",
        _stages(found),
        *_exchanges(links),
        "<h2>As text</h2><pre>" + escape("\n".join(reports.lines(found))) + "</pre>",
    ]
    title = f"<title>Calibration of {escape(found.session)}</title>"
    head = f'<meta charset="utf-8">{title}<style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _verdicts(found: Report) -> str:
    """A row an output: the word, what is offered, the score of each decoder, and why."""
    names = "".join(f"<th>{name}</th>" for name in reports.ORDER)
    rows = "".join(_verdict(name, offer) for name, offer in found.offers.items())
    part = found.parts["judge"]
    where = f"Judging part: {part.segments} segments, {part.seconds:.0f} s, on which nothing was fitted or chosen"
    head = f"<tr><th>output</th><th>word</th><th>offered</th><th>score</th>{names}</tr>"
    return f"<table>{head}{rows}</table><small>{where}. In brackets: 95 % over trials or blocks.</small>"


def _verdict(name: str, offer: Offer) -> str:
    more = f" {offer.n_more} more" if offer.word == "NEED" else ""
    word = f'<b class="word" style="background:{COLOURS[offer.word]}">{offer.word}{more}</b>'
    offered = offer.decoder if offer.word in ("PASS", "RIDGE") else "nothing"
    scores = ""
    for decoder in reports.ORDER:
        score = offer.scores.get(decoder)
        value, _, limits = reports.score(score).partition(" ") if score else ("", "", "")
        scores += f'<td class="n">{value}<br><small>{limits}</small></td>'
    why = f'<tr><td></td><td colspan="{3 + len(reports.ORDER)}"><small>{escape(offer.reason)}</small></td></tr>'
    return f"<tr><td>{escape(name)}</td><td>{word}</td><td>{offered}</td><td>{offer.measure}</td>{scores}</tr>{why}"


def _figure(name: str, caption: str, png: bytes) -> str:
    data = b64encode(png).decode()
    image = f'<img alt="{escape(TITLES[name])}" src="data:image/png;base64,{data}">'
    return f"<h2>{TITLES[name]}</h2><p>{image}<br><small>{escape(caption)}</small></p>"


def _stages(found: Report) -> str:
    rows = "".join(
        f'<tr><td>{escape(s.name)}</td><td class="n">{s.seconds:.1f}</td><td class="n">'
        f"{'' if s.skill is None else f'{s.skill:.3f}'}</td></tr>"
        for s in found.stages
    )
    return f"<table><tr><th>stage</th><th>seconds</th><th>skill on the selecting part</th></tr>{rows}</table>"


def _exchanges(links: Sequence[Link]) -> Iterator[str]:
    """What was swapped and why, as the chain of decoders says."""
    if not links:
        return
    yield "<h2>What was swapped</h2><table><tr><th>time (UTC)</th><th>what</th><th>from bin</th><th>why</th></tr>"
    for link in links:
        what = f"{link.why}, {link.outcome}{', forced' if link.forced else ''}"
        bin_ = "" if link.token < 0 else str(link.token)
        yield f"<tr><td>{escape(link.time)}</td><td>{escape(what)}</td>"
        yield f'<td class="n">{bin_}</td><td>{escape(link.said)}</td></tr>'
    yield "</table>"
