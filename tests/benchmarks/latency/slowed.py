"""`neds-rt` with a sleep hidden in one stage of a real run, for the test that has to find it.

`python slowed.py STAGE EVERY MS ARGUMENTS...`: every EVERY-th call of that stage sleeps for MS.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

STAGES = {
    "infer": ("runtime.engines.stream", "StreamEngine", "step"),
    "send": ("runtime.io.publish", "Publisher", "send"),
    "after": ("runtime.live.messages", "Messages", "note"),
}


def sleepy(call: Callable[..., Any], every: int, ms: float) -> Callable[..., Any]:
    """The same call, which sleeps now and then."""
    calls = 0

    def slowed(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % every == 0:
            time.sleep(ms * 1e-3)
        return call(*given, **named)

    return slowed


def main() -> None:
    stage, every, ms = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    sys.argv = ["neds-rt", *sys.argv[4:]]
    module, owner, name = STAGES[stage]
    kind = getattr(importlib.import_module(module), owner)
    setattr(kind, name, sleepy(getattr(kind, name), every, ms))
    from runtime.cli.main import main as neds_rt

    neds_rt()


if __name__ == "__main__":
    main()
