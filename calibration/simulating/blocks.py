"""The blocks of a simulated day of one animal: collected, calibrated and played by the product's own commands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from calibration.collecting import session as sessions
from calibration.simulating import live, refit
from calibration.simulating.animal import Animal, Body
from calibration.simulating.drivers import Decoded, Oracle, Performed
from calibration.simulating.live import Pace
from calibration.simulating.task import Effector, Trial, shuffled
from calibration.simulating.world import World
from neds_core import files
from neds_core.data import session_file
from neds_core.data.session import BehaviourSpec
from runtime.children import Child, Watch
from runtime.client import Subscriber
from runtime.io import log_file
from runtime.io.lsl_sender import Sender

WAIT_S, START_S = 60.0, 120.0
ORACLE = "oracle"
CONFIG = """# Of a simulation: a small network, fitted from scratch.
outputs = [{outputs}]

[model]
width = 32
layers = 1
band = 50
filter_taus_ms = [40, 120, 300]
dropout = 0.1
embed_dropout = 0.1
unit_dropout = 0.2

[scratch]
steps = {steps}
learning_rate = 4e-3

[fit]
window_bins = 50

[linear]
lags = [1, 10]
filter_taus_ms = [[40.0, 120.0, 300.0]]
"""
RIG = """# Written by a simulation: spikes and behaviour are made up.
rig = "simulation"
checkpoint = "{checkpoint}"

[input]
spikes = "{prefix}-spikes"
markers = "{prefix}-markers"
wait_s = 30.0

[input.behaviours]
{behaviours}

[bins]
lateness_ms = 10.0

[output]
decode_port = 0
latest_port = 0
"""


def write_rig(path: Path, prefix: str, names: tuple[str, ...], checkpoint: Path | None) -> Path:
    """The rig of a simulation's streams, as a file."""
    behaviours = "\n".join(f'{name} = "{prefix}-behaviour:{name}"' for name in names)
    file = checkpoint.absolute() if checkpoint else ""  # else it would start from the rig's folder
    path.write_text(RIG.format(checkpoint=file, prefix=prefix, behaviours=behaviours), encoding="utf-8")
    return path


class Played(Struct, frozen=True):
    """How a block went. sub_ms: bin edge to receipt by the client, p50, p99 and max; late_ticks began over 5 ms late.

    stale, missed: messages that the client refused as stale, and that it skipped or lost, and counters of the run.
    """

    trials: tuple[Trial, ...]
    ticks: int
    late_ticks: int
    worst_ms: float
    sub_ms: tuple[float, float, float]
    stale: int
    missed: int
    counters: dict[str, int]


@dataclass
class Day:
    """One simulated animal with its streams, and the folder that its files go to. watch: raises to end it all."""

    effector: Effector
    seed: int
    folder: Path
    adapts: bool
    watch: Watch
    body: Body = field(init=False)
    sender: Sender = field(init=False)

    def __post_init__(self) -> None:
        self.body = Body.grown(self.seed)
        self.prefix = f"simulation-{self.effector.name}-{self.seed}-{self.folder.resolve().stat().st_ino}"
        self.channels = live.channels(self.effector)
        self.sender = Sender(self.prefix, self.body.table, self.channels, self.body.rate_hz)

    def world(self, kind: int, delays: tuple[int, ...], trials: int) -> World:
        """A fresh animal of the same units before `trials` trials for each delay. kind: of block, for its seed."""
        animal = Animal(self.body, self.effector, np.random.default_rng((self.seed, kind, 0)), self.adapts)
        plan = shuffled(np.random.default_rng((self.seed, kind, 1)), self.effector.n_targets, delays, trials)
        return World(animal, self.effector, plan)

    def open_loop(self, trials: int) -> Path:
        """The animal makes the movements itself; `neds-rt collect` keeps them. Returns the session's file."""
        rig, out = write_rig(self.folder / "open.toml", self.prefix, tuple(self.channels), None), self.folder / "open"
        if (out / "session.npz").exists():
            return out / "session.npz"
        world = self.world(0, (0,), trials)
        given = ("collect", rig, "--out", out, "--trials", trials, "--allow-replay", "--headless", "--json")
        with Child(self.folder, *given) as child:
            self.heard(child)
            live.play(world, self.sender, Performed(len(self.effector.axes)), self.seed, self._watching(child))
            child.result(self.watch)
        return out / "session.npz"

    def calibrate(self, session: Path, name: str, steps: int) -> tuple[Path, Any]:
        """`neds-rt calibrate` on a session; returns the checkpoint and its report, whatever its gate says."""
        made, kept = self.folder / f"{name}.safetensors", self.folder / f"{name}.json"
        if not kept.exists():
            outputs = ", ".join(f'"{n}"' for n in self.effector.names("velocity"))
            config = self.folder / "calibrate.toml"
            config.write_text(CONFIG.format(outputs=outputs, steps=steps), encoding="utf-8")
            given = ("calibrate", "--session", session, "--config", config, "--out", made, "--json")
            with Child(self.folder, *given) as child, files.whole(kept) as partial:
                partial.write_bytes(msgspec.json.encode(child.result(self.watch, codes=(0, 3))))
        return made, msgspec.json.decode(kept.read_bytes())

    def closed_loop(self, checkpoint: Path, decoder: str, world: World, log: Path) -> Played:
        """Trials under a decoder of the checkpoint; of an oracle the run decodes too, and its values are exchanged.

        log: where the run's own log goes.
        """
        rig = write_rig(self.folder / "closed.toml", self.prefix, tuple(self.channels), checkpoint)
        run = "ridge" if decoder == ORACLE else decoder
        given = ("run", rig, "--decoder", run, "--allow-replay", "--headless", "--json", "--save-log", log)
        with Child(self.folder, *given) as child:
            address = child.until(r"decode and status on (tcp://\S+),", START_S, self.watch)
            with Subscriber(address) as link:
                self.heard(child)
                driver = (Oracle if decoder == ORACLE else Decoded)(link, self.effector)
                pace = live.play(world, self.sender, driver, self.seed, self._watching(child))
                summary = child.stop(self.watch)
                return _played(world, pace, driver, link, summary)

    def relabelled(self, log_path: Path) -> Path:
        """The file of a closed-loop block as a session, its decoded velocities exchanged for the intended ones."""
        log = log_file.load(log_path)
        told = {name: s._asdict() for name, s in self.channels.items()}
        known = tuple(
            BehaviourSpec(name, "continuous", **{k: v for k, v in said.items() if v is not None})
            for name, said in told.items()
        )
        log.header = msgspec.structs.replace(log.header, specs=known)
        made = sessions.make([log], self.body.table, f"simulation-{log_path.stem}", marked=True).session
        path = log_path.with_name(f"{log_path.stem}-relabelled.npz")
        session_file.save(refit.relabel(made, self.effector), path)
        return path

    def heard(self, child: Child) -> None:
        """Wait until the child listens to the spikes."""
        watch = self._watching(child)
        while not self.sender.heard:
            watch()
            live.rest()

    def _watching(self, child: Child) -> Watch:
        """Raises where the child has ended, or the whole is to end."""

        def watch() -> None:
            self.watch()
            child.check()

        return watch


def _played(world: World, pace: Pace, driver: Decoded, link: Subscriber, summary: Any) -> Played:
    p50, p99, most = np.percentile(driver.sub_ms or [np.nan], [50, 99, 100]).tolist()
    return Played(
        trials=tuple(world.trials), ticks=pace.ticks, late_ticks=pace.late, worst_ms=pace.worst_ms,
        sub_ms=(p50, p99, most), stale=link.stale, missed=link.missed, counters=summary.get("counters", {}),
    )  # fmt: skip
