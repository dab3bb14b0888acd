"""README and pages are held to the code: length, links, commands and their options, modules to run."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from runtime.cli.commands import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("README.md")])
each_page = pytest.mark.parametrize("page", PAGES, ids=[p.relative_to(ROOT).as_posix() for p in PAGES])


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links of a page that lead nowhere."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        goal = (page.parent / name).resolve() if name else page
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            found.append(link)
    return found


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("link", ["gone.md", "docs/rig.md#no-such-heading", "#no-such-heading"])
def test_a_broken_link_is_found(link: str) -> None:
    assert broken_links(ROOT / "README.md", f"[there]({link})") == [link]


def code(text: str) -> list[str]:
    """What a page shows as code: the lines of its blocks (continued ones joined) and its inline spans."""
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    rest = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return lines + re.findall(r"`([^`]+)`", rest)


def commands(text: str) -> list[list[str]]:
    """The words after each `neds-rt` in the code of a page, up to the end of the command."""
    found = []
    for span in code(text):
        for part in re.split(r"&&|[;|#]", span):
            words = part.split()
            starts = [i for i, word in enumerate(words) if word.rsplit("/", 1)[-1] == "neds-rt"]
            found += [words[i + 1 :] for i in starts if i + 1 < len(words)]
    return found


@cache
def command_line() -> Any:
    """All commands with their options."""
    return typer.main.get_command(app)


def unknown(words: list[str]) -> str:
    """What the command line does not know of a command; empty where it knows all."""
    command, words = command_line(), list(words)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in command.commands:
            return name
        command = command.commands[name]
    known = {o for param in command.params for o in (*param.opts, *param.secondary_opts)} | {"--help"}
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    return " ".join(option for option in options if option not in known)


@each_page
def test_every_command_exists_with_its_options(page: Path) -> None:
    shown = commands(page.read_text(encoding="utf-8"))
    assert [(words, unknown(words)) for words in shown if unknown(words)] == []


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`neds-rt runn`", "runn"),
        ("`.venv/bin/neds-rt run rig.toml --headles`", "--headles"),
        ("```\nneds-rt bench \\\n  kernel\n```", "kernel"),
        ("`neds-rt bench kernels --quick`", ""),
    ],
)
def test_a_wrong_command_is_found(text: str, missing: str) -> None:
    (words,) = commands(text)
    assert unknown(words) == missing


@each_page
def test_every_module_to_run_exists(page: Path) -> None:
    text = " ".join(code(page.read_text(encoding="utf-8")))
    modules = set(re.findall(r"-m ((?:runtime|kernels|neds_core|calibration|benchmarks)[\w.]*)", text))
    assert {name for name in modules if importlib.util.find_spec(name) is None} == set()
