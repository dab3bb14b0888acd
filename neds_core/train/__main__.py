"""`python -m neds_core.train CONFIG.toml`, alone or under `torchrun`."""

from __future__ import annotations

from neds_core.train.command import main

if __name__ == "__main__":
    main()
