"""The report of a calibration as one HTML page: it loads nothing, so it can be mailed and kept."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import numpy as np

from calibration import report as reports
from calibration.judge import Judgement
from calibration.report import Report
from neds_core import judging
from neds_core.judged import Offer

WIDTH, HEIGHT, PAD = 760, 150, 8
SHOWN = 600  # bins of a trace that are drawn
COLOURS = {"PASS": "#1a7f37", "RIDGE": "#0b6e99", "NEED": "#9a6700", "REFUSE": "#b3261e"}
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:800px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}b.word{color:#fff;padding:.1em .5em;border-radius:.3em}
svg{background:#fafafa;border:1px solid #eee}small{color:#555}"""


def html(found: Report, judgement: Judgement) -> str:
    """The page: verdicts, scores, traces of the judging part, stages, lag curves, and what the text report says."""
    parts = [
        f"<h1>Calibration of {escape(found.session)}</h1>",
        f"<p>Gate <b>{'passed' if found.passed else 'not passed'}</b>. Checkpoint {escape(found.checkpoint)}, base "
        f"{escape(found.base) or 'none'}, {found.seconds:.0f} s.</p>",
        *(_output(name, offer, judgement) for name, offer in found.offers.items()),
        *(f"<h2>{escape(name)}</h2><p>Not judged: its labels are inferred.</p>" for name in found.not_judged),
        "<h2>Stages</h2>",
        _stages(found),
        *_lags(found),
        "<h2>As text</h2><pre>" + escape("\n".join(reports.lines(found))) + "</pre>",
    ]
    title = f"<title>Calibration of {escape(found.session)}</title>"
    head = f'<meta charset="utf-8">{title}<style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _output(name: str, offer: Offer, judgement: Judgement) -> str:
    more = f" {offer.n_more} more" if offer.word == "NEED" else ""
    word = f'<b class="word" style="background:{COLOURS[offer.word]}">{offer.word}{more}</b>'
    rows = "".join(
        f'<tr><td>{k}</td><td class="n">{s.value:.3f}</td><td class="n">'
        f"{'' if s.low is None or s.high is None else f'{s.low:.3f} to {s.high:.3f}'}</td></tr>"
        for k, s in offer.scores.items()
    )
    table = f"<table><tr><th>decoder</th><th>{offer.measure}</th><th>95 % interval</th></tr>{rows}</table>"
    where = f"<small>{offer.n} segments or blocks that nothing was fitted or chosen on</small>"
    return f"<h2>{escape(name)} {word}</h2><p>{escape(offer.reason)}.</p>{table}{where}{_trace(name, offer, judgement)}"


def _trace(name: str, offer: Offer, judgement: Judgement) -> str:
    """What was measured and what the decoder of the offer said, over the first bins of the judging part."""
    target = judgement.said.target[name]
    if judgement.said.neds[name].ndim != 2:  # a class has no trace
        return ""
    share = np.array([judgement.made.header.blend[name]])
    spread = judgement.made.header.verdicts[name].spread.get(offer.decoder)
    value = judging.values(judgement.said, name, share)[offer.decoder][:SHOWN]
    lines = {"#999": target[:SHOWN].astype(float), COLOURS[offer.word]: value}
    band = None if spread is None else 1.96 * spread.constant
    said = f"grey: measured; coloured: {offer.decoder}" + ("; band: 95 % by the selecting part" if band else "")
    return f"<p>{_svg(lines, band)}<br><small>{said}; trials stand side by side</small></p>"


def _svg(lines: dict[str, np.ndarray], band: float | None = None, x: np.ndarray | None = None) -> str:
    """Lines (n,) by colour, NaN = a gap; band: half width about the last of them."""
    known = np.concatenate([v[np.isfinite(v)] for v in lines.values()])
    low, high = float(known.min()), float(known.max())
    n = max(len(v) for v in lines.values())
    at = np.arange(n) if x is None else x

    def place(i: int, v: float) -> str:
        across = PAD + (at[i] - at[0]) / max(float(at[-1] - at[0]), 1e-9) * (WIDTH - 2 * PAD)
        return f"{across:.1f},{PAD + (high - v) / max(high - low, 1e-9) * (HEIGHT - 2 * PAD):.1f}"

    def path(values: np.ndarray) -> Iterator[str]:
        pen = "M"
        for i, v in enumerate(values):
            if np.isfinite(v):
                yield f"{pen}{place(i, float(v))}"
            pen = "L" if np.isfinite(v) else "M"

    drawn = []
    if band is not None:
        middle = list(lines.values())[-1]
        edge = [place(i, v + band) for i, v in enumerate(middle)]
        edge += [place(i, middle[i] - band) for i in reversed(range(len(middle)))]
        drawn.append(f'<polygon points="{" ".join(edge)}" fill="#000" opacity="0.08"/>')
    drawn += [f'<path d="{"".join(path(v))}" fill="none" stroke="{c}"/>' for c, v in lines.items()]
    return f'<svg width="{WIDTH}" height="{HEIGHT}" role="img">{"".join(drawn)}</svg>'


def _stages(found: Report) -> str:
    rows = "".join(
        f'<tr><td>{escape(s.name)}</td><td class="n">{s.seconds:.1f}</td><td class="n">'
        f"{'' if s.skill is None else f'{s.skill:.3f}'}</td></tr>"
        for s in found.stages
    )
    return f"<table><tr><th>stage</th><th>seconds</th><th>skill on the selecting part</th></tr>{rows}</table>"


def _lags(found: Report) -> Iterator[str]:
    """R2 of each trace against its lag."""
    for name, curve in found.lags.items():
        r2 = np.array([np.nan if v is None else v for v in curve.r2])
        if np.isfinite(r2).any():
            lag = np.array(curve.lag_ms)
            yield f"<h2>{escape(name)} against the spikes</h2><p>{_svg({'#0b6e99': r2}, x=lag)}<br><small>R2 on the "
            yield f"fitting part, the trace moved by {lag[0]:.0f} to {lag[-1]:.0f} ms; largest {np.nanmax(r2):.2f} at "
            yield f"{lag[int(np.nanargmax(r2))]:.0f} ms</small></p>"
