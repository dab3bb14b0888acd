"""A report's page in a real browser: it shows its pictures and asks for nothing beside itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import report
from benchmarks.latency import figures, sweep
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import session_file
from neds_core.data.session import Session
from runtime.cli import commands

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
    "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
ALLOWED = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # what a page that loads nothing needs
# Another page of the same address looks into the report: the report itself has no script.
PROBE = """<!doctype html><title>probe</title><iframe src="report.html" width="1000" height="900"></iframe>
<script>window.onload = () => {
  const inside = document.querySelector("iframe").contentWindow, page = inside.document
  document.body.textContent = "FOUND" + JSON.stringify({
    images: [...page.images].map(i => [i.naturalWidth, i.naturalHeight, i.clientWidth, i.alt]),
    resources: inside.performance.getEntriesByType("resource").map(r => r.name.slice(0, 200)),
    wide: page.documentElement.scrollWidth, text: page.body.innerText.length}) + "END"
}</script>"""


class Logging(SimpleHTTPRequestHandler):
    """Notes every request. The browser is told to refuse whatever the report loads, and to tell of it here."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def do_POST(self) -> None:
        self.asked.append(self.path)
        self.send_error(204)

    def end_headers(self) -> None:
        if self.path == "/report.html":
            self.send_header("Content-Security-Policy", f"{ALLOWED}; report-uri /refused")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Serves tmp_path on the loopback: its address, and what was asked of it."""
    handler = type("Handler", (Logging,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path))) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"127.0.0.1:{found.server_address[1]}", handler.asked
        found.shutdown()
        thread.join()


def row(load: str, ms: float) -> sweep.Row:
    """A line of a table."""
    times = dict.fromkeys(("p50", "p99", "max"), ms)
    return {
        "load": load, "units": ms, "edge_to_pub_ms": times, "infer_ms": times, "budget_ms": 20.0, "broken": ms > 20.0,
        "miss_share_at_most": 1.0, "deadline_misses": 0, "scheduled": 1, "stage": "wait",
    }  # fmt: skip


def opened(folder: Path, server: tuple[str, list[str]]) -> dict[str, Any]:
    """What a browser sees of folder/report.html. It may ask for nothing beside the page, and nothing is cut off."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser is installed; one of {', '.join(BROWSERS)} would do")
    (folder / "probe.html").write_text(PROBE, encoding="utf-8")
    address, asked = server
    line = [
        browser, *QUIET, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", "--dump-dom",
        f"http://{address}/probe.html",
    ]  # fmt: skip
    shown = subprocess.run(line, capture_output=True, text=True, timeout=300, check=True).stdout
    inside = re.search("FOUND(.*)END", shown)
    assert inside is not None, shown
    seen = json.loads(unescape(inside[1]))
    assert all(width > 100 and height > 100 and shown > 100 for width, height, shown, _ in seen["images"])
    assert all(name.startswith("data:") for name in seen["resources"])
    assert seen["text"] > 500
    assert seen["wide"] <= 1000  # nothing is cut off at the side
    assert set(asked) <= {"/probe.html", "/report.html", "/favicon.ico"}
    return seen


def test_the_page_shows_its_pictures_and_asks_for_nothing_else(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    rows = [row("100 units", 1.0), row("2,000 <units>", 30.0)]
    found = sweep.finished({"units": rows, "conditions": rows}, 1.0, {})
    out = tmp_path / "report.json"
    report.write(found, sweep.lines(found), out, figures.draw(found, out.with_suffix("")))

    assert [alt for *_, alt in opened(tmp_path, server)["images"]] == ["Cost against load"]


def test_the_page_of_evaluate_does_too(
    make_checkpoint: Callable[..., Checkpoint], session: Session, tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    session_file.save(session, tmp_path / "session.npz")
    checkpoints.save(make_checkpoint(), tmp_path / "tiny.safetensors")
    files = [str(tmp_path / name) for name in ("session.npz", "tiny.safetensors")]
    done = CliRunner().invoke(commands.app, ["evaluate", *files, "--report", str(tmp_path / "report.html")])
    assert done.exit_code == 0, done.output

    names = {alt for *_, alt in opened(tmp_path, server)["images"]}
    assert {"wheel_speed-traces", "wheel_speed-delay", "choice-confusion", "rates of the units"} < names
