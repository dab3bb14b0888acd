"""Cost of a step against band, units and layers, drawn from what `neds-rt bench kernels --json` printed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.cost.kernel_sweep import FLOOR, STEP, points
from benchmarks.figures import BLACK, BLUE, RED, canvas

LABELS = {"band": "band W (bins)", "units": "units U (spikes held)", "layers": "layers L"}


def draw(result: dict[str, Any], out: Path) -> None:
    """One panel a factor: p50 and p99 in ms, the other factors as in the headline."""
    with canvas(out, 10, 3.2, ncols=len(LABELS)) as (_, axes):
        for each, (factor, label) in zip(axes, LABELS.items(), strict=True):
            found = points(result["sweep"], result["headline_size"], factor)
            for name, colour in (("p50", RED), ("p99", BLUE)):
                each.plot([v for v, _ in found], [ms[name] for _, ms in found], "o-", ms=4, color=colour, label=name)
            each.set(xlim=(0, None), ylim=(0, None), xlabel=label)
            each.set_title(f"slope {result['slopes'][STEP][factor]:.2f} (1 = linear)", fontsize="medium")
        read = points(result["sweep"], result["headline_size"], "layers", FLOOR)
        axes[-1].plot([v for v, _ in read], [ms["p50"] for _, ms in read], "o--", ms=4, color=BLACK, label="floor, p50")
        axes[-1].legend(frameon=False)
        axes[0].set_ylabel("one step, float32 (ms)")
        axes[0].legend(frameon=False)


def main() -> None:
    """Command line of `python -m benchmarks.cost.kernel_figures`."""
    parser = argparse.ArgumentParser(description="draw the cost of a step against band, units and layers")
    parser.add_argument("result", type=Path, help="JSON of neds-rt bench kernels --json, without --quick")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    draw(msgspec.json.decode(given.result.read_bytes()), given.out)


if __name__ == "__main__":
    main()
