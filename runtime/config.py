"""`rig.toml`: one tree of frozen structs (see `neds_core.toml` for how it is read and refused)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from neds_core import toml
from neds_core.errors import ConfigError

Port = Annotated[int, Meta(ge=0, le=65535)]


class InputConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """LSL streams by name. behaviours: output name -> stream name; measured values are for display and scores."""

    spikes: str
    spikes_source_id: str = ""
    markers: str = ""
    behaviours: dict[str, str] = {}
    wait_s: Annotated[float, Meta(gt=0.0, le=3600.0)] = 10.0

    @property
    def count(self) -> int:
        """Streams of the rig."""
        return 1 + bool(self.markers) + len(self.behaviours)


class BinConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How bins close. `use_markers`: decode only inside segments, cold from each start."""

    lateness_ms: Annotated[float, Meta(ge=0.0, le=1000.0)] = 5.0
    max_age_ms: Annotated[float, Meta(ge=20.0, le=3_600_000.0)] = 10_000.0
    future_ms: Annotated[float, Meta(ge=0.0, le=1000.0)] = 2.0
    silence_ms: Annotated[float, Meta(ge=0.0, le=60_000.0)] = 60.0
    use_markers: bool = True
    max_segment_s: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 1800.0


class OutputConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where and how estimates leave. Port 0 takes a free one and prints it."""

    host: str = "127.0.0.1"
    decode_port: Port = 5571
    latest_port: Port = 5572
    format: Literal["msgpack", "json"] = "msgpack"
    budget_ms: Annotated[float, Meta(ge=1.0, le=1000.0)] = 20.0
    valid_ms: Annotated[float, Meta(ge=1.0, le=60_000.0)] = 60.0


class LslConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """LSL discovery. Streams of another session_id are not seen."""

    session_id: str = "default"
    resolve_scope: Literal["machine", "link", "site", "organization", "global"] = "machine"
    known_peers: tuple[str, ...] = ()


class EngineConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What decodes, how the weights of NEDS are stored (fewer bits help one larger than the processor's cache), where
    NEDS runs, whether its step is rehearsed shortly before each edge ("touch"), and whether the cores are kept awake
    around it ("auto": those of a virtual machine of at most 4)."""

    decoder: Literal["neds", "ridge", "blend", "recommended"] = "recommended"
    weights: Literal["float32", "bfloat16", "int8"] = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    warm: Literal["touch", "none"] = "touch"
    awake: Literal["auto", "always", "none"] = "auto"


class HealthConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What makes the input unusable: shares of the spikes received in the last second that make the state DEGRADED,
    and FAULT at ten times the limit (1 = never); the least correlation of the units' counts with training (0 = not
    judged); how long no unit may fire inside a segment (0 = as the checkpoint says)."""

    quarantined_share: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.05
    late_share: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.05
    out_of_range_share: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.001
    profile_min: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.3
    silence_s: Annotated[float, Meta(ge=0.0, le=3600.0)] = 0.0


class ScoreConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What a replayed run is compared with, and how much of the run is logged for it."""

    recording: str = ""
    log_s: Annotated[float, Meta(gt=0.0, le=86_400.0)] = 1200.0


class ControlConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Exchange of the decoder while a run goes on. port: of the control socket, on this machine alone; unset = off, 0
    takes a free one and prints it. log: the file that every exchange is added to."""

    port: Port | None = None
    swap_at: Literal["iti", "now"] = "iti"
    probation_s: Annotated[float, Meta(ge=0.0, le=3600.0)] = 30.0
    probation_misses: Annotated[int, Meta(ge=0, le=1000)] = 5
    log: str = "swaps.jsonl"


class RigConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`neds-rt run RIG.toml`. Paths are relative to the file. certificate: without which no run starts and nothing
    is swapped in by force, '' = none.
    """

    rig: Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]+$")]
    checkpoint: str
    input: InputConfig
    bins: BinConfig = BinConfig()
    output: OutputConfig = OutputConfig()
    lsl: LslConfig = LslConfig()
    engine: EngineConfig = EngineConfig()
    health: HealthConfig = HealthConfig()
    score: ScoreConfig = ScoreConfig()
    control: ControlConfig = ControlConfig()
    certificate: str = ""


class FirstDay(RigConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`neds-rt collect RIG.toml`: there may be no checkpoint yet, '' = none."""

    checkpoint: str = ""


def check_seconds(option: str, seconds: float | None) -> None:
    """Refuse a duration that is none (NaN, infinite, not above 0); None is no limit."""
    if seconds is not None and not 0.0 < seconds < 1e9:
        raise ConfigError(f"{option} {seconds}: is no duration; give a number of seconds above 0")


def load(path: Path, kind: type[RigConfig] = RigConfig) -> RigConfig:
    """Read `rig.toml`, refuse what cannot be meant, and make its paths absolute."""
    config = toml.load(path, kind)
    if config.output.host not in ("127.0.0.1", "localhost"):
        raise ConfigError(
            f"{path}: output.host: {config.output.host!r} would publish unencrypted beyond this machine; "
            "use 127.0.0.1 and forward the port"
        )
    if config.output.decode_port == config.output.latest_port != 0:
        raise ConfigError(f"{path}: output.latest_port: the same as decode_port; give it its own port")
    if config.control.port and config.control.port in (config.output.decode_port, config.output.latest_port):
        raise ConfigError(f"{path}: control.port: the same as a port of output; give it its own")
    if config.control.port is not None and config.engine.device == "cuda":
        raise ConfigError(f"{path}: control.port: decoders on the GPU cannot be exchanged yet; leave it out")
    if config.bins.lateness_ms >= config.output.budget_ms:
        raise ConfigError(f"{path}: bins.lateness_ms: not below output.budget_ms, so every late bin misses; lower it")
    if 0 < config.bins.max_age_ms < config.bins.lateness_ms:
        raise ConfigError(f"{path}: bins.max_age_ms: below lateness_ms; raise it")
    home = path.resolve().parent
    recording = str(home / config.score.recording) if config.score.recording else ""
    if recording and not Path(recording).is_file():
        raise ConfigError(f"{path}: score.recording: {recording} does not exist; correct the path or leave it out")
    return msgspec.structs.replace(
        config,
        checkpoint=str(home / config.checkpoint) if config.checkpoint else "",
        certificate=str(home / config.certificate) if config.certificate else "",
        control=msgspec.structs.replace(config.control, log=str(home / config.control.log)),
        score=msgspec.structs.replace(config.score, recording=recording),
    )
