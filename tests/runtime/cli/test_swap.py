"""`neds-rt swap` and `neds-rt rollback`: what they say and how they end, against a socket that answers as told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from runtime.io.control import Answer, Control, Freeze, Request, Rollback, Running, State, Swap, Waiting

SHA = "5" * 64


def running(exchanges: int, sha: str = "a" * 64, waiting: Waiting | None = None, why: str = "") -> Running:
    return Running("r", "neds", "m", sha, 7, why, True, exchanges, "", 0, "c", waiting)


class Told:
    """Answers in the order in which they were prepared; what was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[Request] = []

    def answer(self, request: Request) -> Answer:
        self.asked.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def rig(make_rig: Callable[..., Path], told: Told) -> Iterator[Path]:
    with Control(0) as control:
        control.serve(told.answer, lambda: None)
        yield make_rig(control=f"port = {control.port}")


def test_it_waits_until_the_loop_has_taken_over(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], rig: Path, told: Told, rig_home: Path
) -> None:
    waits = Waiting("swap", "new", SHA)
    told.answers = [
        Answer(True, "new takes over as soon as the next segment starts", running=running(0, waiting=waits)),
        Answer(True, "", running=running(0, waiting=waits)), Answer(True, "", running=running(1, SHA, why="swap")),
    ]  # fmt: skip
    assert call("swap", rig, rig_home / "tiny.safetensors", "--now", "--force", "--json") == 0
    out, err = capsys.readouterr()
    assert msgspec.json.decode(out.splitlines()[-1])["said"] == "m (555555555555) decodes from bin 7 on (swap)"
    assert err == "new takes over as soon as the next segment starts\n"
    first = told.asked[0]
    assert isinstance(first, Swap)
    assert (first.path, first.swap_at, first.force) == (str(rig_home / "tiny.safetensors"), "now", True)
    assert told.asked[1:] == [State(), State()]


@pytest.mark.parametrize(
    ("answer", "code"),
    [(Answer(True, "done"), 0), (Answer(False, "no; do this"), 2), (Answer(False, "no gate has passed", True), 3)],
    ids=["done", "refused", "gate"],
)
def test_how_it_ends_says_what_came_of_it(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], rig: Path, told: Told, answer: Answer, code: int
) -> None:
    told.answers = [answer]
    assert call("rollback", rig) == code
    out, err = capsys.readouterr()
    assert (out, err) == ((f"{answer.said}\n", "") if code == 0 else ("", f"neds-rt: {answer.said}\n"))
    assert told.asked == [Rollback()]


@pytest.mark.parametrize(("options", "on"), [((), True), (("--off",), False)])
def test_a_run_is_frozen_and_thawed(
    call: Callable[..., int], rig: Path, told: Told, options: tuple[str, ...], on: bool
) -> None:
    told.answers = [Answer(True, "done")]
    assert call("freeze", rig, *options) == 0
    assert told.asked == [Freeze(on)]


def test_one_that_is_dropped_or_waits_too_long_is_said(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], rig: Path, told: Told
) -> None:
    waits = Answer(True, "soon", running=running(0, waiting=Waiting("rollback", "old", SHA)))
    told.answers = [waits, Answer(True, "", running=running(0))]
    assert call("rollback", rig) == 2
    assert "old was dropped before it took over" in capsys.readouterr().err
    told.answers = [waits]
    assert call("rollback", rig, "--wait", 0.5) == 2
    assert "old still waits after 0.5 s and takes over later" in capsys.readouterr().err


def test_a_rig_without_a_port_and_a_file_that_is_not_there_are_said(
    fails: Callable[..., str], make_rig: Callable[..., Path], tmp_path: Path
) -> None:
    assert "control.port is not set, so its runs take no requests; set it" in fails("rollback", make_rig())
    assert "control.port is 0: give the printed address" in fails("rollback", make_rig(control="port = 0"))
    rig = make_rig(control="port = 1")
    assert "gone cannot be read (No such file" in fails("swap", rig, tmp_path / "gone")
    assert "no run answers at tcp://127.0.0.1:1 within 0.1 s" in fails("rollback", rig, "--wait", 0.1)
    assert "--wait -1.0: is no duration" in fails("rollback", rig, "--wait", -1.0)
