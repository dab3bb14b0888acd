"""A simulated study, for each animal: open loop, calibration, closed loop, ReFIT, calibration, closed loop."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from calibration.simulating.blocks import ORACLE, Day, Played
from calibration.simulating.task import EFFECTORS
from neds_core import files
from neds_core.data.parts import LEAST_SEGMENTS
from neds_core.errors import ConfigError, DataError
from runtime.children import Watch
from runtime.io import chain

DECODERS = ("ridge", "neds", ORACLE)
FIRST, REFIT = "open loop", "ReFIT"  # what the decoder was fitted to
LONGEST_MS = 1000
SIMULATION = "simulation: a made-up animal; no figure here is of a real one"
BEGINS = b'{"says":"simulation'  # each line of a results file


class Order(Struct, frozen=True):
    """What is simulated. trials: for each delay, decoder and seed; open_trials: to calibrate on; steps: of NEDS.

    refit: also relabel, calibrate again and play again. adapts: the animal learns to aim.
    """

    decoders: tuple[str, ...] = DECODERS
    delays_ms: tuple[int, ...] = (0, 50, 100, 200)
    seeds: tuple[int, ...] = (0, 1, 2)
    trials: int = 24
    open_trials: int = 120
    steps: int = 300
    effector: str = "cursor"
    adapts: bool = True
    refit: bool = True


QUICK = Order(delays_ms=(0, 200), seeds=(0,), trials=16, open_trials=40, steps=60)


def ordered(quick: bool, **asked: Any) -> Order:
    """An order by its fields, None = as in `QUICK` or `Order`; a list is taken as a tuple."""
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in asked.items() if v is not None}
    return msgspec.structs.replace(QUICK if quick else Order(), **given)


class Block(Struct, frozen=True):
    """One closed-loop block, a line of the results file. skill: R2 of the decoder on its calibration's judging part."""

    says: str
    order: Order  # of this seed, decoder and delays alone
    fitted_to: str
    skill: dict[str, float]
    played: Played

    @property
    def key(self) -> tuple[Order, str]:
        """What it is a measurement of."""
        return self.order, self.fitted_to


def refuse(order: Order) -> None:
    """Raise `ConfigError` for an order that makes no sense."""
    if order.effector not in EFFECTORS:
        raise ConfigError(f"--effector {order.effector!r} is not known; choose one of {', '.join(EFFECTORS)}")
    lists = (("--decoder", order.decoders), ("--delay-ms", order.delays_ms), ("--seeds", order.seeds))
    for option, values in lists:
        if not values or len(set(values)) < len(values):
            raise ConfigError(f"{option}: {list(values)} is empty or names one twice; give each once")
    for name in order.decoders:
        if name not in DECODERS:
            raise ConfigError(f"--decoder {name!r} cannot be simulated; choose from {', '.join(DECODERS)}")
    for delay in order.delays_ms:
        if not 0 <= delay <= LONGEST_MS:
            raise ConfigError(f"--delay-ms {delay}: not between 0 and {LONGEST_MS}; give ms to add to the run's own")
    for seed in order.seeds:
        if seed < 0:
            raise ConfigError(f"--seeds {seed}: a seed is 0 or more")
    if order.trials < 1:
        raise ConfigError(f"--trials {order.trials}: give 1 or more for each delay")
    played = order.trials * len(order.delays_ms)
    if order.refit and set(order.decoders) != {ORACLE} and played < LEAST_SEGMENTS:
        raise ConfigError(
            f"--trials {order.trials}: {played} trials over all delays are too few to calibrate on again; give "
            f"{-(-LEAST_SEGMENTS // len(order.delays_ms))} or more, or --no-refit"
        )
    if order.open_trials < LEAST_SEGMENTS:
        raise ConfigError(f"--open-trials {order.open_trials}: a calibration needs {LEAST_SEGMENTS}")


def read(path: Path) -> list[Block]:
    """The finished blocks of a results file; a last line that a crash has cut is left out.

    Raises `DataError` for another line that is none, `ConfigError` where the file cannot be read.
    """
    if not path.exists():
        return []
    try:
        *lines, torn = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ConfigError(f"--out {path} cannot be read ({error.strerror}); name a file, not a folder") from None
    if not (torn.startswith(BEGINS) or BEGINS.startswith(torn)):
        lines.append(torn)  # nothing of ours, and not to be cut
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(msgspec.json.decode(line, type=Block))
        except msgspec.DecodeError as error:
            raise DataError(
                f"{path}, line {number}: no block of a simulation ({error}); take it out, or name another"
            ) from None
    return found


def add(path: Path, block: Block) -> None:
    """Add a line, after cutting a last one that a crash has cut; several simulations may share a file."""
    try:
        with path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # what is cut is of no one who writes now
            chain.cut_torn(file.fileno())
            chain.add_line(file, msgspec.json.encode(block))
    except OSError as error:
        raise files.unwritten(path, error) from None


@dataclass
class Study:
    """Blocks that are done, and where new ones go. say: takes a line for people; watch: raises to end it all."""

    order: Order
    work: Path
    out: Path | None
    say: Callable[[str], None]
    watch: Watch

    def __post_init__(self) -> None:
        refuse(self.order)
        self.done = {block.key: block for block in (read(self.out) if self.out else [])}

    def run(self) -> list[Block]:
        """Every block of the order, those of the results file included; each is written when it is done."""
        wanted = []
        for seed in self.order.seeds:
            keys = self._keys(seed)
            wanted += keys
            if any(key not in self.done for key in keys):
                self._seed(seed)
        return [self.done[key] for key in wanted]

    def _key(self, seed: int, decoder: str, fitted_to: str) -> tuple[Order, str]:
        return msgspec.structs.replace(self.order, seeds=(seed,), decoders=(decoder,), refit=False), fitted_to

    def _keys(self, seed: int) -> list[tuple[Order, str]]:
        first = [self._key(seed, decoder, FIRST) for decoder in self.order.decoders]
        again = [self._key(seed, d, REFIT) for d in self.order.decoders if d != ORACLE] if self.order.refit else []
        return first + again

    def _seed(self, seed: int) -> None:
        order = self.order
        day = Day(EFFECTORS[order.effector], seed, self._folder(seed), order.adapts, self.watch)
        self.say(f"simulation, seed {seed}: {order.open_trials} trials in open loop, then a calibration")
        fitted = day.calibrate(day.open_loop(order.open_trials), "open", order.steps)
        for decoder in order.decoders:
            self._block(day, fitted, decoder, FIRST)
        for decoder in order.decoders:
            if self._refits(decoder) and self._key(seed, decoder, REFIT) not in self.done:
                relabelled = day.relabelled(_log(day, decoder, FIRST))
                self._block(day, day.calibrate(relabelled, f"refit-{decoder}", order.steps), decoder, REFIT)

    def _folder(self, seed: int) -> Path:
        """Of this order and no other: what lies there is used again."""
        same = msgspec.structs.replace(self.order, seeds=(seed,), decoders=(), refit=False)
        name = hashlib.sha256(msgspec.json.encode(same)).hexdigest()[:8]
        folder = self.work / f"{self.order.effector}-{seed}-{name}"
        files.make_folder(folder)
        return folder

    def _refits(self, decoder: str) -> bool:
        return self.order.refit and decoder != ORACLE

    def _block(self, day: Day, fitted: tuple[Path, Any], decoder: str, fitted_to: str) -> None:
        """Play a block and write it, unless it is done and its log is not missed."""
        key, log = self._key(day.seed, decoder, fitted_to), _log(day, decoder, fitted_to)
        missed = self._refits(decoder) and self._key(day.seed, decoder, REFIT) not in self.done and not log.exists()
        if key in self.done and not missed:
            return
        checkpoint, report = fitted
        kind = 1 + DECODERS.index(decoder) + len(DECODERS) * (fitted_to == REFIT)
        world = day.world(kind, self.order.delays_ms, self.order.trials)
        played = day.closed_loop(checkpoint, decoder, world, log)
        scores = {name: offer["scores"] for name, offer in report["offers"].items()}
        skill = {name: each[decoder]["value"] for name, each in scores.items() if decoder in each}
        block = Block(SIMULATION, key[0], fitted_to, skill, played)
        won = sum(trial.success for trial in played.trials)
        self.say(f"simulation, seed {day.seed}, {decoder}, {fitted_to}: {won} of {len(played.trials)} trials won")
        if key not in self.done and self.out:
            add(self.out, block)
        self.done.setdefault(key, block)


def _log(day: Day, decoder: str, fitted_to: str) -> Path:
    return day.folder / f"{decoder}-{'refit' if fitted_to == REFIT else 'first'}.npz"
