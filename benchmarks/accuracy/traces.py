"""Decoded over measured behaviour of the held-out part: `python -m benchmarks.accuracy.traces`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks import figures
from benchmarks.accuracy.shown import MOST_SEGMENTS
from neds_core import checkpoint as checkpoints
from neds_core.data import session as sessions, session_file
from runtime.engines.layout import layout
from runtime.live import offline
from runtime.scoring import truth


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
    starts = np.flatnonzero(np.diff(segment[shown])) + 1
    t_s = (truth.bins(part, log, rows)[shown] + 1) * (part.bin_ns * 1e-9)
    lines = {"measured": measured[shown], "neds": decoded[shown]}
    figures.traces(t_s, lines, starts, "held-out part, decoded from spikes", figures.labelled(part.spec(output)), out)


def main() -> None:
    """Command line of `python -m benchmarks.accuracy.traces`."""
    parser = argparse.ArgumentParser(description="draw decoded against measured behaviour of the held-out part")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--output", default="wheel_speed")
    parser.add_argument("--trials", type=int, default=MOST_SEGMENTS)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    decoded_against_measured(given.checkpoint, given.recording, given.output, given.trials, given.out)


if __name__ == "__main__":
    main()
