"""The two decoders that the rehearsal begins with: `python -m calibration.rehearsal FOLDER`, the demo's folder.

half-a.safetensors, the base: the first half of the demo's units, trials 0 to 119. half-b-before.safetensors, what
decodes until today's decoder is there: the other half in the same trials.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from calibration import command, page
from calibration.command import Order
from calibration.rehearsal import halves
from neds_core.data import session_file
from neds_core.train.log import Lines

COMMON = f"outputs = {list(halves.OUTPUTS)}\nmin_rate_hz = 0.5\n"
MADE = {
    "half-a.safetensors": (0, "[scratch]\nsteps = 260\n[fit]\nbatch = 24\nema_decay = 0.98\ncheck_every = 20\n"),
    "half-b-before.safetensors": (1, "[model]\nwidth = 16\nlayers = 1\nheads = 2\n[scratch]\nsteps = 120\n"),
}


def main() -> None:
    """Make both, without a base."""
    folder = Path(sys.argv[1])
    whole = session_file.load(folder / "session.npz")
    for name, (which, more) in MADE.items():
        with tempfile.TemporaryDirectory(prefix="neds-rt-") as made:
            session, config = Path(made) / "session.npz", Path(made) / "calibrate.toml"
            session_file.save(halves.before(whole, which), session)
            config.write_text(COMMON + more, encoding="utf-8")
            command.run(Order(str(session), "", str(config), str(folder / name)), Lines())
        page.remove(folder / name)


if __name__ == "__main__":
    main()
