"""A calibration as a process of its own: what it leaves behind when it is done, stopped or killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from calibration import command, process
from calibration.command import Order
from calibration.fitting import base as bases
from calibration.report import Report
from neds_core import checkpoint
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import CheckpointError, ConfigError, DataError
from neds_core.files import sha256
from neds_core.stopping import Stopped
from neds_core.train.log import Silent
from tests.calibration.conftest import TINY

BROUGHT = Path(__file__).parents[2] / "examples" / "bci-monkey-20131218" / "online-decoder-block1.safetensors"


@pytest.fixture
def order(session: Session, base_path: Path, tmp_path: Path) -> Order:
    """The planted session on a base, to a file that holds an earlier calibration."""
    session_file.save(session, tmp_path / "session.npz")
    (tmp_path / "calibrate.toml").write_text(TINY, encoding="utf-8")
    out = tmp_path / "today.safetensors"
    out.write_bytes(base_path.read_bytes())
    return Order(str(tmp_path / "session.npz"), str(base_path), str(tmp_path / "calibrate.toml"), str(out))


def files(order: Order) -> dict[Path, str]:
    """What must not change: the session, the base and the earlier output."""
    return {Path(p): sha256(Path(p)) for p in (order.session, order.base, order.out)}


class At(Silent):
    """Does something when a stage begins."""

    def __init__(self, stage: str, then: Callable[[], None]) -> None:
        self.at, self.then, self.heard = stage, then, []

    def stage(self, name: str) -> None:
        """A stage."""
        self.heard.append(name)
        if name == self.at:
            self.then()


def children() -> list[int]:
    """Processes that this one started and that have not ended."""
    return [int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]


def test_a_calibration_in_a_child_is_written_with_its_gate(order: Order) -> None:
    """Stages are heard in order, and the report is of the file."""
    shown = At("", lambda: None)

    found = process.run(order, shown)

    assert isinstance(found, Report)
    assert shown.heard[0] == "linear decoders"
    assert shown.heard[-1] == "judge"
    made = checkpoint.load(Path(order.out))
    assert found.checkpoint_sha == made.sha
    assert made.header.gate is not None
    assert made.header.gate.passed == found.passed
    assert made.header.gate.session_sha == sha256(Path(order.session))
    assert made.header.gate.parents == (sha256(Path(order.base)),)
    assert not list(Path(order.out).parent.glob("*.partial"))
    assert bases.read(Path(order.out)).parents == (made.sha, sha256(Path(order.base)))  # of the next calibration
    assert "data:image/png;base64," in Path(order.out).with_suffix(".html").read_text(encoding="utf-8")
    assert {"today.traces.png", "today.units.png"} <= {p.name for p in Path(order.out).parent.glob("today.*.png")}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["linear decoders", "spikes alone", "rows and read-outs", "everything", "judge"])
def test_kill_9_leaves_everything_as_it_was(order: Order, stage: str) -> None:
    before, there = files(order), set(children())

    def kill() -> None:
        (child,) = set(children()) - there
        os.kill(child, signal.SIGKILL)

    with pytest.raises(DataError, match=r"ended before it was done \(signal 9\); nothing is written"):
        process.run(order, At(stage, kill))

    assert files(order) == before
    checkpoint.load(Path(order.out))


def test_a_signal_ends_the_child_and_writes_nothing(order: Order) -> None:
    """Ctrl-C comes to the parent alone, as an exception."""
    before, there = files(order), set(children())

    def stop() -> None:
        raise Stopped(signal.SIGINT)

    with pytest.raises(Stopped):
        process.run(order, At("start", stop))

    assert set(children()) == there
    assert files(order) == before
    assert not list(Path(order.out).parent.glob("*.partial"))


def test_a_refusal_comes_back_as_what_it_was(order: Order, tmp_path: Path) -> None:
    (tmp_path / "calibrate.toml").write_text("[readouts]\nstep = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        process.run(order, Silent())


@pytest.mark.parametrize(
    ("change", "error", "why"),
    [
        ({"out": "session"}, ConfigError, "exists and is no checkpoint"),
        ({"out": "base"}, ConfigError, "is the file of --from; give another name"),
        ({"base": "session"}, CheckpointError, "not a safetensors file"),
        ({"session": "base"}, DataError, "base.safetensors"),
    ],
)
def test_files_in_the_wrong_place_are_refused(
    order: Order, change: dict[str, str], error: type[Exception], why: str
) -> None:
    before = files(order)
    given = {k: getattr(order, k) for k in ("session", "base", "config", "out")}
    wrong = Order(**given | {k: given[v] for k, v in change.items()})

    with pytest.raises(error, match=why):
        command.run(wrong, Silent())

    assert files(order) == before


def test_an_update_is_of_the_file_that_runs_and_compared_before_anything_is_written(order: Order) -> None:
    before = files(order)
    with pytest.raises(CheckpointError, match=r"base.safetensors is no longer the file that the run decodes with"):
        command.run(replace(order, update=True, base_sha="0" * 64), Silent())
    with pytest.raises(ConfigError, match="decoder 'nonsense' is not known"):
        command.run(replace(order, update=True, base_sha=sha256(Path(order.base)), decoder="nonsense"), Silent())
    assert files(order) == before


def test_a_page_that_cannot_be_written_does_not_undo_the_checkpoint(order: Order) -> None:
    """It is written and judged; the report says that there is no page."""
    page = Path(order.out).with_suffix(".html")
    page.mkdir()
    found = command.run(order, Silent())
    assert found.checkpoint_sha == sha256(Path(order.out))
    assert found.page_unwritten.startswith(f"{page} cannot be written (")


def test_a_decoder_that_was_brought_is_nothing_to_start_from(order: Order) -> None:
    with pytest.raises(CheckpointError, match="is a decoder that was brought, so it has no network to start from"):
        command.prepared(replace(order, base=str(BROUGHT)))
