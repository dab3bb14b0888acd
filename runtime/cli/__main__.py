"""`python -m runtime.cli`: the same as `neds-rt`."""

from __future__ import annotations

from runtime.cli.main import main

if __name__ == "__main__":
    main()
