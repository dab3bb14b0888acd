"""What a decoder keeps when it is never reset: `python -m benchmarks.studies.pauses RECORDING CHECKPOINT...`.

R2 on the validation part, streamed with markers (cold from each segment's start) and without (through the gaps between
segments, also where a run would start cold after them). For checkpoints that have not seen it: of a training with
`fit.refit = false`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.intervals import words
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import lead, session_file
from neds_core.data.session import Session
from neds_core.errors import CheckpointError
from neds_core.linear import baseline
from neds_core.scores import r2 as scores, tasks
from runtime.core.timeline import timeline
from runtime.engines.layout import layout
from runtime.live import offline

DECODERS = ("neds", "ridge")


@dataclass(frozen=True, slots=True)
class Score:
    """R2 of one output by one decoder, and without - with markers, a paired 95 % interval over segments."""

    output: str
    decoder: str
    markers: float
    no_markers: float
    difference: Mapping[str, float]


def values(made: Checkpoint, part: Session, decoder: str, markers: bool) -> np.ndarray:
    """(n, V) values on the bins of the part's segments, as a run decodes them."""
    log = offline.stream(made, part, decoder, markers=markers, silence=False)
    starts = [segment.start_ns // part.bin_ns for segment in timeline(part)]
    lengths = np.diff(part.segments)[:, 0]
    return log.values[np.concatenate([np.arange(at, at + n) for at, n in zip(starts, lengths, strict=True)])]


def score(made: Checkpoint, session: Session) -> list[Score]:
    """Every trace by NEDS and by a ridge of the same bank and penalty, fitted on the training part alone.

    Raises `CheckpointError` for a checkpoint that was trained on the validation part.
    """
    tasks.refuse_other_units(made, session)
    if made.header.config.fit.refit:
        raise CheckpointError(f"{made.header.name} was trained on the validation part too; train it with refit = false")
    parts = lead.split(session, lead.of(made.specs))
    part, bins = parts.validation, parts.validation.bins()
    of = made.header.linear
    linear = {
        s.name: baseline.refit(parts.train, s, made.scalers, of[s.name].bank, of[s.name].penalty) for s in made.specs
    }
    fair, trial, found = replace(made, linear=linear), part.segment_of(bins), []
    for decoder in DECODERS:
        each = {markers: values(fair, part, decoder, markers) for markers in (True, False)}
        for spec in (s for s in made.specs if s.kind == "continuous"):
            column, y = layout(made).columns[spec.name].start, part.values[spec.name][bins]
            known = np.isfinite(y) & part.valid[bins]
            with_, without = (each[markers][known, column] for markers in (True, False))
            value, low, high = scores.paired_interval(y[known], [without], with_, trial[known])
            difference = {"value": value, "low": low, "high": high}
            kept = scores.r2(y[known], with_), scores.r2(y[known], without)
            found.append(Score(spec.name, decoder, kept[0], kept[1], difference))
    return found


def main() -> None:
    """Command line of `python -m benchmarks.studies.pauses`."""
    parser = argparse.ArgumentParser(description="R2 on the validation part with and without markers")
    parser.add_argument("recording", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    given = parser.parse_args()
    session = session_file.load(given.recording)
    for path in given.checkpoints:
        print(path.name)
        for row in score(checkpoints.load(path), session):
            print(
                f"  {row.output:<24}{row.decoder:<7}with markers {row.markers:.3f}, without {row.no_markers:.3f}, "
                f"difference {words(row.difference, '+')}"
            )


if __name__ == "__main__":
    main()
