"""What the runtime's tests share: one LSL session a process, spike streams, a checkpoint and a rig on disk."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pylsl
import pytest

from neds_core import checkpoint as checkpoints, ensemble
from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Gate, Judged, Offer
from neds_core.data import session_file
from neds_core.data.session import Session, UnitTable
from runtime.io.lsl_description import describe
from runtime.io.lsl_resolve import configure


@pytest.fixture(scope="session")
def lsl_session() -> str:
    """A private LSL session: liblsl reads its settings once, at the first look for a stream."""
    name = f"test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    configure(name, "machine")
    pylsl.resolve_bypred("name='nobody'", minimum=1, timeout=0.1)
    return name


@pytest.fixture
def stream_name() -> str:
    """A stream name that no other test uses."""
    return f"s-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def make_outlet(lsl_session: str) -> Callable[..., pylsl.StreamOutlet]:
    """Builder of a described spike stream; keyword arguments make it a wrong one."""

    def make(
        name: str, units: UnitTable, *, source_id: str = "", source: str = "live", channels: int = 1,
        channel_format: int = pylsl.cf_int32, edit: dict[str, str | None] | None = None,
    ) -> pylsl.StreamOutlet:  # fmt: skip
        info = pylsl.StreamInfo(name, "Spikes", channels, pylsl.IRREGULAR_RATE, channel_format, source_id or name)
        describe(info, units, source, 100.0)
        for key, value in (edit or {}).items():
            block = info.desc().child("neds_rt")
            block.remove_child(block.child(key)) if value is None else block.set_child_value(key, value)
        return pylsl.StreamOutlet(info)

    return make


@pytest.fixture(scope="session")
def short(session: Session) -> Session:
    """Three trials of the planted session: 2.5 s of play."""
    return replace(session, segments=session.segments[:3], segment_ids=session.segment_ids[:3])


@pytest.fixture(scope="session")
def tiny_checkpoint(make_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    """A checkpoint of the planted session."""
    return make_checkpoint()


@pytest.fixture(scope="session")
def ahead_checkpoint(tiny_checkpoint: Checkpoint) -> Checkpoint:
    """The same, said to decode the wheel 60 ms ahead; its filter holds 50 ms of the future."""
    wheel, choice = tiny_checkpoint.specs
    specs = msgspec.structs.replace(wheel, lead_ms=60.0, future_ms=50.0), choice
    return replace(tiny_checkpoint, header=msgspec.structs.replace(tiny_checkpoint.header, specs=specs))


@pytest.fixture(scope="session")
def judged_checkpoint(make_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    """Three networks, judged, of which the blend is recommended for the wheel and the linear decoder for the choice."""
    rng, each = np.random.default_rng(3), []
    segment, label = np.repeat(np.arange(8), 25), np.arange(8) % 2
    wheel, ridge = rng.normal(2.0, 3.0, 200), rng.normal(0.0, 0.5, 200)
    hard = rng.gamma(1.0, 1.5, 200)  # where all networks are off, and differ
    evens = {"choice": np.full((8, 2), 0.5, np.float32)}
    for seed in range(3):
        neds = {"wheel_speed": (wheel + hard * rng.normal(size=200))[None].astype(np.float32)}
        evidence = Judged(
            segment,
            {"wheel_speed": wheel.astype(np.float32), "choice": label.astype(np.float32)},
            neds | {"choice": evens["choice"][None]},
            evens | {"wheel_speed": (wheel + ridge).astype(np.float32)},
        )
        each.append(replace(make_checkpoint(seed=seed), sha=f"sha-{seed}", judged=evidence))
    made = ensemble.join(each, "judged")
    verdicts = dict(made.header.verdicts)
    verdicts["wheel_speed"] = msgspec.structs.replace(verdicts["wheel_speed"], recommended="blend", reason="it is best")
    return replace(made, header=msgspec.structs.replace(made.header, verdicts=verdicts))


@pytest.fixture(scope="session")
def rig_home(tmp_path_factory: pytest.TempPathFactory, session: Session, tiny_checkpoint: Checkpoint) -> Path:
    """Folder with tiny.safetensors and session.npz."""
    home = tmp_path_factory.mktemp("rig")
    checkpoints.save(tiny_checkpoint, home / "tiny.safetensors")
    session_file.save(session, home / "session.npz")
    return home


@pytest.fixture(scope="session")
def gated(make_checkpoint: Callable[..., Checkpoint], rig_home: Path) -> Callable[..., Path]:
    """Writer of checkpoints as a calibration makes them: NEDS of another seed, with a gate; word None = without one."""

    def write(seed: int = 1, word: str | None = "PASS", decoder: str = "neds", **made: int) -> Path:
        path = rig_home / f"{seed}-{word}-{decoder}-{'-'.join(map(str, made.values()))}.safetensors"
        if not path.exists():
            one = make_checkpoint(seed=seed, **made)
            gate = None
            if word is not None:
                offers = {spec.name: Offer(word, decoder, "as a test has it") for spec in one.specs}  # pyright: ignore[reportArgumentType]
                gate = Gate("today", "5e55", one.header.unit_map_sha, "2026-01-01", offers, ("9a9e",))
            checkpoints.save(replace(one, header=msgspec.structs.replace(one.header, gate=gate)), path)
        return path

    return write


@pytest.fixture
def make_rig(rig_home: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writer of a rig.toml with free ports; extra lines go to the sections they name."""

    def make(spikes: str = "nowhere", checkpoint: Path | None = None, **sections: str) -> Path:
        text = {
            "input": f'spikes = "{spikes}"\nwait_s = 0.2',
            "output": "decode_port = 0\nlatest_port = 0",
            **sections,
        }
        body = "\n".join(f"[{name}]\n{lines}\n" for name, lines in text.items())
        path = tmp_path / "rig.toml"
        path.write_text(f'rig = "test"\ncheckpoint = "{checkpoint or rig_home / "tiny.safetensors"}"\n{body}')
        return path

    return make


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded noise."""
    return np.random.default_rng(0)
