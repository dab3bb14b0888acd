"""How calibration learns: `python -m benchmarks.studies.calibration --arm 3 [--out FILE.json]`.

Runs one arm, or goes on with it: every fit that is done is a line of `--cells`, and the table is made of what is there.
`--starts` compares ways to start the rows of new units instead.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.machine import describe
from benchmarks.studies.calibration import cells, starts, table
from benchmarks.studies.calibration.five import ARMS

RUNS = Path("runs")


def say(text: str) -> None:
    """A line at once."""
    print(text, flush=True)


def run(number: int, path: Path, trunks: Path, seconds: float) -> dict[str, Any]:
    """The result of one arm, with what could be computed in `seconds`."""
    arm = ARMS[number]()
    found = table.result(arm, cells.run(arm, path, trunks, seconds, say))
    print("\n".join(table.lines(found)))
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", type=int, choices=sorted(ARMS), default=3, help="which of the five")
    parser.add_argument("--starts", action="store_true", help="compare ways to start new rows instead")
    parser.add_argument(
        "--cells", type=Path, help="JSON lines of finished fits; runs/calibration-armN.jsonl if left out"
    )
    parser.add_argument("--trunks", type=Path, default=RUNS / "trunks", help="folder that keeps what is pre-trained")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no fit after so many")
    parser.add_argument("--out", type=Path, help="JSON to write")
    given = parser.parse_args()
    if given.starts:
        found = starts.run(say)
    else:
        path = given.cells or RUNS / f"calibration-arm{given.arm}.jsonl"
        found = run(given.arm, path, given.trunks, 60.0 * given.minutes)
    if given.out:
        found |= {"machine": describe()}
        given.out.write_bytes(msgspec.json.format(msgspec.json.encode(found, enc_hook=float), indent=1) + b"\n")


if __name__ == "__main__":
    main()
