"""`neds-rt` that keeps so many bytes of every bin, for the soak that has to find it.

`python leaky.py BYTES ARGUMENTS...`
"""

from __future__ import annotations

import sys
from typing import Any


def main() -> None:
    n_bytes, kept = int(sys.argv[1]), list[bytes]()
    sys.argv = ["neds-rt", *sys.argv[2:]]
    from runtime.live.messages import Messages

    note = Messages.note

    def keeping(self: Messages, decoded: Any) -> None:
        kept.append(b"x" * n_bytes)
        note(self, decoded)

    Messages.note = keeping
    from runtime.cli.main import main as neds_rt

    neds_rt()


if __name__ == "__main__":
    main()
