"""A calibration in a process of its own, out of the loop's way: `python -m calibration ORDER`, ORDER as JSON.

It says how it goes on stdout, a JSON object a line (see `Line`). Exit 0 done, 2 refused.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from neds_core.stopping import heard

NICENESS = 10


def step_aside() -> None:
    """Low priority, and one core of those that are allowed: a loop that is not pinned finds the others free."""
    with suppress(OSError, AttributeError):
        os.nice(NICENESS)
    with suppress(OSError, AttributeError):
        allowed = os.sched_getaffinity(0)
        if len(allowed) > 1:
            os.sched_setaffinity(0, {max(allowed)})


def main() -> None:
    """Calibrate what the order says."""
    with heard("neds-rt calibrate"):
        step_aside()
        import msgspec

        from calibration import command
        from calibration.process import Teller
        from neds_core.errors import NedsError

        teller = Teller(sys.stdout)
        try:
            teller.report(command.run(msgspec.json.decode(sys.argv[1], type=command.Order), teller))
        except NedsError as error:
            teller.refused(error)
            raise SystemExit(2) from None


if __name__ == "__main__":
    main()
