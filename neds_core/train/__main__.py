"""`python -m neds_core.train CONFIG.toml`, alone or under `torchrun`."""

from __future__ import annotations

from neds_core.stopping import heard

if __name__ == "__main__":
    with heard("neds_core.train"):
        from neds_core.train.command import main

        main()
