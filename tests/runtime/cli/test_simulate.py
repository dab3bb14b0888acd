"""`neds-rt simulate closed-loop`: what makes no sense is one sentence, before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = ("simulate", "closed-loop")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--decoder", "kalman"), "--decoder 'kalman' cannot be simulated; choose from ridge, neds, oracle"),
        (("--quick", "--delay-ms", -5), "--delay-ms -5: not between 0 and 1000; give ms to add to the run's own"),
        (("--seeds", 1, "--seeds", 1), "--seeds: [1, 1] is empty or names one twice; give each once"),
        (("--effector", "tail"), "--effector 'tail' is not known; choose one of cursor, wheel"),
        (
            ("--trials", 3),
            "--trials 3: 12 trials over all delays are too few to calibrate on again; give 8 or more, or --no-refit",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(fails: Callable[..., str], given: tuple[object, ...], said: str) -> None:
    assert fails(*COMMAND, *given) == said


def test_a_file_of_other_results_is_refused(fails: Callable[..., str], tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"skill": 1}\n')
    assert f"{other}, line 1: no block of a simulation" in fails(*COMMAND, "--out", other)


def test_a_folder_is_no_file_of_results(fails: Callable[..., str], tmp_path: Path) -> None:
    said = fails(*COMMAND, "--out", tmp_path)
    assert said == f"--out {tmp_path} cannot be read (Is a directory); name a file, not a folder"
