"""A calibration rehearsed: a player, a run that decodes, the commands of a morning beside it, and what came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from calibration import page as pages, swap as swaps
from calibration.command import Order, prepared
from calibration.rehearsal import found as finding, halves
from calibration.rehearsal.found import Found
from calibration.rehearsal.heard import Listener
from calibration.report import Report
from neds_core import files
from neds_core.data import session_file
from neds_core.errors import ConfigError, StreamError
from neds_core.files import sha256
from runtime.children import Child
from runtime.io import chain, log_file, system
from runtime.io.control import Answer
from runtime.io.lsl_clock import now_ns

ALONE_S, AFTER_S = 8.0, 14.0  # the run decodes alone; it decodes with the new decoder, beyond its probation
READY_S, END_S = 240.0, 60.0  # longest wait for a command to be ready (the first one compiles), and to end
LONGEST_S = 900  # of the run, should nobody end it
LEAST_TRIALS = 29  # that a session to be calibrated on has
RIG = """rig = "rehearsal"
checkpoint = {checkpoint}
[input]
spikes = "{prefix}-spikes"
markers = "{prefix}-markers"
wait_s = 60.0
[input.behaviours]
wheel_speed = "{prefix}-wheel_speed"
whisker_motion_energy = "{prefix}-whisker_motion_energy"
[bins]
lateness_ms = 10.0
[output]
decode_port = 0
latest_port = 0
[control]
port = 0
probation_s = 10.0
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """demo: the folder of the recording and both decoders. folder: for all that is written; it must not be there yet.
    config: CALIBRATE.toml, None = defaults."""

    demo: Path
    folder: Path
    trials: int
    config: Path | None = None

    def refuse(self) -> None:
        """Raise `ConfigError` where it cannot be rehearsed, before anything is started or written."""
        for name in ("session.npz", "half-a.safetensors", "half-b-before.safetensors"):
            if not (self.demo / name).is_file():
                raise ConfigError(f"{self.demo / name} is not there; run it from a checkout, or reinstall neds-rt")
        if self.trials < LEAST_TRIALS:
            raise ConfigError(f"--trials {self.trials}: a calibration needs {LEAST_TRIALS}; give more")
        if self.folder.exists():
            raise ConfigError(f"--out {self.folder} exists; name a new folder")
        base, config = self.demo / "half-a.safetensors", str(self.config or "")
        prepared(Order("", str(base), config, str(self.folder)))


@dataclass(slots=True)
class _Morning:
    """What goes on: the run, who hears it, and where its control socket is."""

    asked: Asked
    say: Callable[[str], None]
    run: Child
    listener: Listener
    control: str

    @property
    def out(self) -> Path:
        return self.asked.folder / "today.safetensors"

    def check(self) -> None:
        """Raise `StreamError` if the run has ended, or nobody hears it."""
        self.run.check()
        self.listener.check()


def rehearse(asked: Asked, began: float, say: Callable[[str], None]) -> Found:
    """The whole of it, within minutes. began: `time.monotonic()` of the command's start.

    Raises a `NedsError` where a step cannot be done.
    """
    asked.refuse()
    files.make_folder(asked.folder)
    rig, marks = asked.folder / "rig.toml", dict[str, int]()
    prefix = f"rehearsal-{os.getpid()}"
    first = asked.demo / "half-b-before.safetensors"
    rig.write_text(RIG.format(checkpoint=msgspec.json.encode(str(first.resolve())).decode(), prefix=prefix))
    recording = asked.folder / "played.npz"
    session_file.save(halves.today(session_file.load(asked.demo / "session.npz")), recording)
    with ExitStack() as stack:
        morning = _begin(asked, say, stack, recording, rig, prefix)
        marks["alone"] = now_ns()
        _wait(morning, ALONE_S)
        calibrated = _calibrate(morning, stack, rig)
        marks["swap"] = now_ns()
        answer = _swap(morning, forced=not calibrated["passed"])
        marks["after"] = now_ns()
        say(f"{answer.said}; it decodes for another {AFTER_S:g} s")
        _wait(morning, AFTER_S)
        marks["over"] = now_ns()
        morning.run.stop(within_s=END_S)
    if not morning.listener.heard().whole():
        raise StreamError("the subscriber did not hear the run to its end; try again when the machine is idle")
    found = _found(morning, calibrated, marks, time.monotonic() - began)
    (asked.folder / "rehearsal.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return found


def _begin(
    asked: Asked, say: Callable[[str], None], stack: ExitStack, recording: Path, rig: Path, prefix: str
) -> _Morning:  # fmt: skip
    """Start the player and the run, and wait until it decodes."""
    folder = asked.folder
    say("starting a player of units that the base has never seen, and a run that decodes them with a stand-in")
    play = ("play", recording, "--prefix", prefix, "--parent", os.getpid(), "--wait", READY_S)
    player = stack.enter_context(Child(folder, *play))
    options = ("--allow-replay", "--headless", "--json", "--seconds", LONGEST_S, "--save-log", folder / "run.npz")
    run = stack.enter_context(Child(folder, "run", rig, *options))
    address = run.until(r"decode and status on (tcp://\S+),", READY_S)
    control = run.until(r"control on (tcp://\S+),", READY_S)
    listener = stack.enter_context(Listener(folder, address))
    deadline = time.monotonic() + READY_S
    while not listener.heard().decoded():
        for child in (player, run, listener):
            child.check()
        if time.monotonic() > deadline:
            raise StreamError(f"the run decoded nothing within {READY_S:g} s; try again when the machine is idle")
        time.sleep(0.05)
    say(f"the run decodes: {run.lines[0]}")
    return _Morning(asked, say, run, listener, control)


def _wait(morning: _Morning, seconds: float) -> None:
    """Let the run go on for a while. Raises `StreamError` if it ends."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        morning.check()
        time.sleep(min(0.2, left))


def _calibrate(morning: _Morning, stack: ExitStack, rig: Path) -> dict[str, Any]:
    """`neds-rt calibrate RIG.toml`; what it reports. Raises `StreamError` where it is refused."""
    asked, say = morning.asked, morning.say
    options: list[object] = ["--from", asked.demo / "half-a.safetensors", "--trials", asked.trials]
    options += ["--out", morning.out, "--allow-replay", "--headless", "--json"]
    options += [] if asked.config is None else ["--config", asked.config]
    say("neds-rt calibrate rig.toml " + " ".join(map(str, options)))
    with Child(asked.folder, "calibrate", rig, *options, say=say) as child:
        return child.result(morning.check, codes=(0, 3))


def _swap(morning: _Morning, *, forced: bool) -> Answer:
    """The new decoder into the run. Raises `StreamError` where the run does not take it."""
    if forced:
        morning.say("its gate did not pass: it is swapped in with --force, because a rehearsal has to show a swap")
    answer = swaps.swap(morning.control, morning.out, "iti", forced, READY_S, morning.say)
    if not answer.ok:
        raise StreamError(f"the swap was refused: {answer.said}")
    return answer


def _found(morning: _Morning, calibrated: dict[str, Any], marks: dict[str, int], seconds: float) -> Found:
    """What the log and the subscriber say."""
    log, heard = log_file.load(morning.asked.folder / "run.npz"), morning.listener.heard()
    shift = now_ns() - time.monotonic_ns()  # 0 where the LSL clock is this very clock
    at = {k: [t + shift for t in each] for k, each in calibrated["monotonic_ns"].items()}
    spans = {
        "decoding alone": (marks["alone"], at["collect"][0]),
        "while it collects": tuple(at["collect"]),
        "while it fits and judges": (at["fit"][0], at["judge"][1]),
        "while it swaps": (marks["swap"], marks["after"]),
        "after the swap": (marks["after"], marks["over"]),
    }
    stages = {name: (over - begin) * 1e-9 for name, (begin, over) in at.items()}
    stages["swap"] = (marks["after"] - marks["swap"]) * 1e-9
    own = sha256(morning.out)
    links = [each for each in chain.read(morning.asked.folder / "swaps.jsonl") if each.to_sha == own]
    said, exact = finding.messages(log, heard), finding.exact(log, heard, morning.out)
    return Found(
        ok=finding.holds(said, exact, links, log.outcome.exchanges[-1].token),
        stages=stages,
        phases=[finding.phase(name, log, *span) for name, span in spans.items()],
        messages=said,
        exact=exact,
        words={name: offer["word"] for name, offer in calibrated["offers"].items()},
        gate_passed=calibrated["passed"],
        forced=log.outcome.exchanges[-1].forced,
        chain=[each.outcome for each in links],
        seconds=seconds,
        machine=system.facts(system.PACKAGES),
        folder=str(morning.asked.folder),
        page=str(pages.write(msgspec.convert(calibrated, Report), morning.out, links)),
    )
