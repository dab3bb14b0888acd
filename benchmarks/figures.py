"""Figures of measured results, each drawn from a file that a command wrote."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np

from neds_core import checkpoint as checkpoints, session as sessions
from runtime import replayed
from runtime.layout import layout

mpl.use("Agg")

from matplotlib import pyplot as plt


def decoded_against_measured(checkpoint: Path, recording: Path, output: str, trials: int, out: Path) -> None:
    """Stream the held-out part and draw `output`, decoded and measured, over the first `trials` trials."""
    made = checkpoints.load(checkpoint)
    part = sessions.split(sessions.load(recording)).test
    log = replayed.stream(made, part, "neds")
    rows = np.flatnonzero(~log.idle[: log.n])
    measured = replayed.truth(part, log, rows).traces[output]
    decoded = log.values[rows, layout(made).columns[output].start]
    segment = log.segment[rows]
    shown = np.isin(segment, part.segment_ids[:trials])
    t_s = np.arange(int(shown.sum())) * part.bin_ns * 1e-9
    figure, axes = plt.subplots(figsize=(10, 3), layout="constrained")
    axes.plot(t_s, measured[shown], color="0.55", lw=1.4, label="measured")
    axes.plot(t_s, decoded[shown], color="tab:red", lw=1.4, label="decoded from spikes")
    for start in np.flatnonzero(np.diff(segment[shown])):
        axes.axvline(t_s[start + 1], color="0.85", lw=0.8, zorder=0)
    axes.set_xlabel("time in held-out trials, joined (s)")
    axes.set_ylabel(f"{output} ({part.spec(output).unit})")
    axes.legend(frameon=False, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def main() -> None:
    """Command line of `python -m benchmarks.figures`."""
    parser = argparse.ArgumentParser(description="draw decoded against measured behaviour of the held-out part")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--output", default="wheel_speed")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    decoded_against_measured(given.checkpoint, given.recording, given.output, given.trials, given.out)


if __name__ == "__main__":
    main()
