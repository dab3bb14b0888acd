"""A rig to be measured: its files in a folder of their own, with streams and ports that nobody else has."""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.latency.load import Load, behaviours, made_up
from neds_core import checkpoint as checkpoints, toml
from neds_core.checkpoint import Checkpoint
from neds_core.data import session_file
from neds_core.errors import ConfigError
from neds_core.files import sha256
from runtime.config import RigConfig

LOG_SLACK_S, PLAY_SLACK_S = 30.0, 10.0  # the sender begins before the loop counts its seconds
replace = msgspec.structs.replace


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured. folder: of its rig.toml and of what the measurement writes. config_sha: of the rig's own
    settings, without the names, paths and ports that differ from one measurement to the next."""

    folder: Path
    prefix: str
    recording: Path
    load: Load
    config: RigConfig
    config_sha: str
    checkpoint_sha: str
    n_units: int
    bin_ns: int

    @property
    def rig(self) -> Path:
        """The file that the loop reads."""
        return self.folder / "rig.toml"


def prepare(folder: Path, given: RigConfig, load: Load, seconds: float, checkpoint: Checkpoint | None = None) -> Case:
    """Write the rig of a measurement of so many seconds. given: a configuration with absolute paths.

    checkpoint: one that is not on disk, None = the configuration's. Raises `ConfigError` where nothing is to be played.
    """
    if checkpoint is not None:
        checkpoints.save(checkpoint, folder / "checkpoint.safetensors")
        given = replace(given, checkpoint=str(folder / "checkpoint.safetensors"))
    made = checkpoints.load(Path(given.checkpoint))
    prefix = f"bench-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    if load.rate or load.burst:
        recording = folder / "session.npz"
        session_file.save(made_up(load, made.units, made.specs, made.header.bin_ns, seconds + PLAY_SLACK_S), recording)
        names = [spec.name for spec in behaviours(made.specs, load.streams)]
        markers = load.streams >= 2
        # the units of made-up spikes fire alike, unlike any in training
        given = replace(given, health=replace(given.health, profile_min=0.0))
    elif not given.score.recording:
        raise ConfigError("the rig has no score.recording to play; set it, or give --rate for made-up spikes")
    else:
        recording = Path(given.score.recording)
        names, markers = list(given.input.behaviours)[: _kept(given, load)], bool(given.input.markers)
        markers = markers and load.streams != 1
    wanted = replace(
        given.input, spikes=f"{prefix}-spikes", spikes_source_id="", markers=f"{prefix}-markers" if markers else "",
        behaviours={name: f"{prefix}-{name}" for name in names}, wait_s=60.0,
    )  # fmt: skip
    config = replace(
        given, input=wanted, output=replace(given.output, decode_port=0, latest_port=0),
        control=replace(given.control, port=None),
        score=replace(given.score, recording="", log_s=seconds + LOG_SLACK_S), certificate="",
    )  # fmt: skip
    (folder / "rig.toml").write_text(toml.written(msgspec.to_builtins(config)), encoding="utf-8")
    shas = _config_sha(given, names), sha256(Path(given.checkpoint))
    return Case(folder, prefix, recording, load, config, *shas, len(made.units), made.header.bin_ns)


def _kept(given: RigConfig, load: Load) -> int:
    """How many of the rig's behaviours are played."""
    return max(0, load.streams - 2) if load.streams else len(given.input.behaviours)


def _config_sha(given: RigConfig, names: list[str]) -> str:
    """Of what decides how a run behaves."""
    parts = [given.bins, given.engine, given.health, given.output.format, given.output.budget_ms, names]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
