"""What a training says of itself: a line a step beside the checkpoint, and whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Protocol, TextIO

import msgspec

from neds_core.checkpoint import tensors
from neds_core.errors import ConfigError
from neds_core.files import beside, unwritten, whole, without_ending

OWN = (".jsonl", ".state", ".refit", ".partial")  # endings of what lies beside a checkpoint


@dataclass(frozen=True, slots=True)
class Progress:
    """What `on_step` sees after each step."""

    step: int
    steps: int
    loss: float
    terms: dict[str, float]
    skill: float | None  # validation skill where it was measured at this step


OnStep = Callable[[Progress], None]


class Show(Protocol):
    """Whoever shows a training: each stage by its name, then its steps (or fits), and lines that are said of it."""

    def stage(self, name: str) -> None: ...

    def tick(self, done: int, total: int) -> None: ...

    def say(self, line: str) -> None: ...

    def step(self, progress: Progress) -> None: ...


class Silent:
    """Shows nothing."""

    def stage(self, name: str) -> None:
        """Nothing."""

    def tick(self, done: int, total: int) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""

    def step(self, progress: Progress) -> None:
        """Nothing."""


class Lines:
    """Shows a training as lines of text, each given to `write`; None = print."""

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self.write = write or partial(print, flush=True)

    def stage(self, name: str) -> None:
        """A new stage."""
        self.write(name)

    def tick(self, done: int, total: int) -> None:
        """Fits of the linear search: a line for each tenth of them."""
        if done * 10 // total > (done - 1) * 10 // total:
            self.write(f"fit {done}/{total}")

    def say(self, line: str) -> None:
        """A line as it is."""
        self.write(line)

    def step(self, progress: Progress) -> None:
        """A step; said where skill was measured."""
        if progress.skill is not None:
            at = f"step {progress.step}/{progress.steps}"
            self.write(f"{at} loss {progress.loss:.4f} skill {progress.skill:.4f}")


class Line(msgspec.Struct, frozen=True):
    """A line of the log: `Progress`, and the stage that the step is of."""

    stage: str
    step: int
    steps: int
    loss: float
    terms: dict[str, float]
    skill: float | None


def refuse_taken(out: Path) -> None:
    """Raise `ConfigError` where a training to `out`, its log or its states would overwrite or share another's file."""
    tensors.refuse_foreign(out)
    ending = without_ending(out).suffix
    if ending in OWN:
        raise ConfigError(f"--out {out}: {ending} is the ending of a file beside a checkpoint; give another name")
    log, own = beside(out, ".jsonl"), without_ending(out)
    other = own if out != own else beside(out, ".safetensors")
    if tensors.is_ours(other):
        raise ConfigError(f"--out {out}: {log} is the log of {other}; give another name, or move that checkpoint")
    if log.is_dir() or (log.exists() and log.read_bytes()[:10] not in (b"", b'{"stage":"')):
        raise ConfigError(f"{log} exists and is no log of a training; move it, or give another --out")


class Log:
    """One JSON line a step, there before the step's state is; what it is told is shown too.

    A training that goes on joins its lines to those of the steps before, and one that makes no step
    leaves the file as it is.
    """

    def __init__(self, path: Path, show: Show) -> None:
        self.path, self.show, self.name = path, show, ""
        self.file: TextIO | None = None

    def stage(self, name: str) -> None:
        """A new stage of the training."""
        self.name = name
        self.show.stage(name)

    def tick(self, done: int, total: int) -> None:
        """Fits of the linear search; they have no place in the file."""
        self.show.tick(done, total)

    def say(self, line: str) -> None:
        """A line for people; it has no place in the file."""
        self.show.say(line)

    def step(self, progress: Progress) -> None:
        """One step of the optimiser."""
        if self.file is None:
            self.file = self._open(progress.step)
        terms, skill = progress.terms, progress.skill
        line = Line(self.name, progress.step, progress.steps, progress.loss, terms, skill)
        try:
            self.file.write(msgspec.json.encode(line).decode() + "\n")
        except OSError as error:
            raise unwritten(self.path, error) from None
        self.show.step(progress)

    def _open(self, step: int) -> TextIO:
        """The file with the lines of an earlier run up to `step` of this stage; a line that a crash cut is not kept."""

        def before(line: str) -> bool:
            try:
                found = msgspec.json.decode(line, type=Line)
            except msgspec.DecodeError:
                return False
            return line.endswith("\n") and (found.stage != self.name or found.step < step)

        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        with whole(self.path) as partial:
            partial.write_text("".join(takewhile(before, lines)), encoding="utf-8")
        try:
            return self.path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise unwritten(self.path, error) from None

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            with suppress(OSError):  # a line that did not go out has been said
                self.file.close()
