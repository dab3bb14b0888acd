"""Decoded over measured behaviour of the held-out part: `python -m benchmarks.accuracy.traces`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks import figures
from neds_core import checkpoint as checkpoints
from neds_core.data import session as sessions, session_file
from runtime.engines.layout import layout
from runtime.live import offline
from runtime.scoring import truth

TRIALS = 20


def decoded_against_measured(checkpoint: Path, recording: Path, output: str, trials: int, out: Path) -> None:
    """Stream the held-out part and draw `output`, decoded and measured, over the first `trials` trials."""
    made = checkpoints.load(checkpoint)
    part = sessions.split(session_file.load(recording)).test
    log = offline.stream(made, part, "neds")
    rows = log.decoded_rows()
    measured = truth.recorded(part, log, rows).traces[output]
    decoded = log.values[rows, layout(made).columns[output].start]
    segment = log.segment[rows]
    shown = np.isin(segment, part.segment_ids[:trials])
    figures.traces(measured[shown], decoded[shown], segment[shown], part.bin_ns * 1e-9, part.spec(output), out)


def main() -> None:
    """Command line of `python -m benchmarks.accuracy.traces`."""
    parser = argparse.ArgumentParser(description="draw decoded against measured behaviour of the held-out part")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--output", default="wheel_speed")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    decoded_against_measured(given.checkpoint, given.recording, given.output, given.trials, given.out)


if __name__ == "__main__":
    main()
