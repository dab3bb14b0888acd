"""`neds-rt`: signals are heard first, then everything else is imported."""

from __future__ import annotations

import sys

from neds_core.stopping import heard


def main() -> None:
    """Exit 0 done, 1 bug (traceback), 2 user error (one sentence on stderr), 3 a gate or budget failed.

    130, 143, 129: Ctrl-C, SIGTERM or a closed terminal ended it before it was done (one sentence on stderr).
    """
    words = sys.argv[1:2] if sys.argv[1:2] and sys.argv[1].isidentifier() else []
    with heard(" ".join(["neds-rt", *words])):
        from runtime.cli.commands import run_command

        run_command()
