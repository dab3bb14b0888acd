"""`make bench`: the short suite of this machine, beside what it gave the last time.

`python -m benchmarks.latency.watch` takes under 5 minutes and belongs on a quiet machine. Exit 3: it is worse.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from benchmarks import machine, report
from benchmarks.cost import kernels
from benchmarks.latency import bench, compare, figures, words
from benchmarks.latency.bench import Asked
from neds_core.errors import NedsError
from neds_core.files import make_folder
from runtime import config as rigs
from runtime.cli.demo import demo
from runtime.cli.output import note

SECONDS, LAUNCHES = 60.0, 3
RESULTS, RUNS = machine.ROOT / "benchmarks" / "results", machine.ROOT / "runs"


def name() -> str:
    """A file name for this machine: its processor and cores."""
    found = machine.describe()
    cpu = re.sub(r"\(r\)|\(tm\)|processor|cpu|@.*", " ", str(found["cpu"]).lower())
    return "-".join(["latency", *re.findall(r"[a-z0-9]+", cpu), f"{found['cores']}-cores"])


def suite() -> report.Report:
    """The demo, paced, and the headline of a step's cost."""
    found = bench.paced(Asked(rigs.load(demo() / "rig.toml"), seconds=SECONDS, launches=LAUNCHES), note)
    note("the cost of a step")
    cost = kernels.run(quick=True)
    return found | {"kernels": {key: cost[key] for key in ("headline", "gate")}}


def judge(found: report.Report, last: Path, runs: Path) -> int:
    """Compare with the last result and print; a result that is no worse takes its place. Returns the exit code."""
    worse = False
    if not last.exists():
        print(f"the first result of this machine: {last}")
    elif different := compare.unlike(before := report.load(last), found):
        print(f"not compared with {last.name}, which is unlike: {'; '.join(different)}")
    else:
        changes = compare.compare(before, found)
        print("\n".join(compare.lines(before, found, changes)))
        worse = bool(compare.worse(changes))
    kept = runs / last.name if worse else last
    report.save(found, kept)
    print(f"wrote {kept}")
    if worse:
        print(f"if it is to be so: cp {kept} {last}")
    return 3 if worse else 0


def main() -> int:
    """Measure, write the page, compare."""
    make_folder(RUNS)
    found = suite()
    pictures = figures.draw(found, RUNS / name())
    report.page(found, words.lines(found), pictures, RUNS / f"{name()}.html")
    print("\n".join(words.lines(found)))
    top = found["kernels"]["headline"]
    print(f"a step at 5 layers: {top['p50_ms']} ms, {top['ratio_to_floor']} times its floor")
    return judge(found, RESULTS / f"{name()}.json", RUNS)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NedsError as error:
        note(f"neds-rt: {error}")
        sys.exit(2)
