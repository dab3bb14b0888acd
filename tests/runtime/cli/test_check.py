"""`neds-rt check` over real LSL: a rig that is right is GO, what a run could not decode is NO-GO."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pylsl
import pytest

from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data.session import Session
from runtime.config import InputConfig, LslConfig, RigConfig
from runtime.engines import create as engines
from runtime.io.streams import find_streams
from runtime.live.listening import listen
from runtime.live.wiring import make_pipeline

MakeRig = Callable[..., Path]
MakeOutlet = Callable[..., pylsl.StreamOutlet]
START = '{"event": "segment_start", "segment": 3.0}'
END = '{"event": "segment_end", "segment": 3, "labels": {"choice": "left"}}'


@dataclass(frozen=True)
class Sends:
    """What a rig sends every 10 ms: each of its units once, its markers, its wheel."""

    units: tuple[int, ...] = tuple(range(12))
    scale: float = 1.0
    shift_s: float = -0.002
    markers: tuple[str, ...] = (START, END)
    wheel: float = 1.0
    keep_alives: bool = True


@contextmanager
def sending(spikes: pylsl.StreamOutlet, name: str, what: Sends) -> Iterator[None]:
    """A rig that sends until the end, also where a test fails within: pytest waits for its thread at exit."""
    infos = [
        pylsl.StreamInfo(f"{name}-markers", "Markers", 1, 0.0, pylsl.cf_string, f"{name}-markers"),
        pylsl.StreamInfo(f"{name}-wheel", "Behaviour", 1, 100.0, pylsl.cf_float32, f"{name}-wheel"),
    ]
    markers, wheel = (pylsl.StreamOutlet(info) for info in infos)
    ended = threading.Event()

    def send() -> None:
        sent = 0
        while not ended.wait(0.01):
            now = pylsl.local_clock()
            stamp = (now + what.shift_s) * what.scale
            spikes.push_chunk([[unit] for unit in what.units], [stamp] * len(what.units))
            sent += len(what.units)
            if what.keep_alives and sent // len(what.units) % 2:
                spikes.push_sample([-1 - sent], stamp)
            for text in what.markers:
                markers.push_sample([text], now)
            wheel.push_sample([what.wheel], now)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        ended.set()
        sender.join()


@pytest.fixture(scope="module", autouse=True)
def compiled(tiny_checkpoint: Checkpoint, make_outlet: MakeOutlet, lsl_session: str) -> None:
    """All that a spike passes on its way, before a test looks at when spikes come: this process sends them itself."""
    name = f"first-{lsl_session}"
    config = RigConfig("first", "none", InputConfig(name, wait_s=30.0), lsl=LslConfig(session_id=lsl_session))
    decoder, outlet = engines.decoder(tiny_checkpoint, config.engine.decoder), make_outlet(name, tiny_checkpoint.units)
    with sending(outlet, name, Sends(markers=())), ExitStack() as stack:
        streams = find_streams(config, tiny_checkpoint.units, allow_replay=False)
        for inlet in streams.all():
            inlet.clock.start()
            stack.enter_context(inlet)
        listen(streams, make_pipeline(config, decoder, streams), 0.3)


@pytest.fixture
def checked(
    call: Callable[..., int], make_rig: MakeRig, make_outlet: MakeOutlet, stream_name: str, session: Session,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, dict[str, Any]]]:  # fmt: skip
    """Check a rig that sends so; returns exit code and plan."""

    def run(what: Sends, output: str = "wheel_speed", **sections: str) -> tuple[int, dict[str, Any]]:
        outlet = make_outlet(stream_name, session.units)
        streams = (
            f'spikes = "{stream_name}"\nmarkers = "{stream_name}-markers"\nwait_s = 5\n'
            f'[input.behaviours]\n{output} = "{stream_name}-wheel"'
        )
        capsys.readouterr()
        with sending(outlet, stream_name, what):
            code = call("check", make_rig(input=streams, **sections), "--seconds", "1.2", "--json")
        return code, msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])

    return run


def test_a_rig_that_sends_ends_with_a_test_that_fails(
    make_outlet: MakeOutlet, stream_name: str, session: Session
) -> None:
    """No thread is left, for which pytest would wait at its exit."""
    before = set(threading.enumerate())
    with pytest.raises(LookupError), sending(make_outlet(stream_name, session.units), stream_name, Sends()):
        raise LookupError
    assert set(threading.enumerate()) <= before


def test_a_rig_that_is_right_is_go(checked: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    """A segment written as 3.0 is segment 3."""
    code, plan = checked(Sends())
    assert (code, plan["verdict"], plan["reasons"]) == (0, "GO", [])
    assert [(s["name"], s["verdict"]) for s in plan["streams"]] == [
        ("spikes", "GO"), ("markers", "GO"), ("wheel_speed", "GO")
    ]  # fmt: skip
    assert (plan["units"], plan["spikes"]["units_seen"]) == ({"expected": 12, "kept": 11}, 12)
    assert plan["spikes"]["share_late"] < 0.05
    assert (plan["spikes"]["source"], plan["spikes"]["lost_upstream"]) == ("live", 0)
    assert plan["spikes"]["recommended_lateness_ms"] >= 2.0
    assert (plan["markers"]["bad"], plan["receptive_field_bins"]) == (0, 2 * (5 - 1) + 1)
    assert [(o["name"], o["lead_ms"]) for o in plan["outputs"]] == [("wheel_speed", 0.0), ("choice", 0.0)]


@pytest.mark.parametrize(
    ("what", "output", "says"),
    [
        (
            Sends(units=tuple(range(1, 13)), markers=("\x1b[31mtrial_start 3",), wheel=500.0),
            "wheel_speed",
            (
                "spikes: unit 12 is outside the map (0 to 11), 8.33 % of the spikes, and unit 0 never fired: numbered",
                "markers cannot be read, such as '[31mtrial_start 3'; send JSON like",
                "wheel_speed: values of 500 to 500 do not fit the training data (mean ",
            ),
        ),
        (
            Sends(shift_s=time.time() - pylsl.local_clock(), markers=(START, END.replace("left", "Left"))),
            "wheel",
            (
                "s ahead (time of day?); stamp with local_clock()",
                "markers: label choice = 'Left' is no class of the checkpoint; send 'left', 'right'",
                "wheel: is no trace that this checkpoint decodes; name one of 'wheel_speed' under input",
            ),
        ),
    ],
)
def test_what_could_not_be_decoded_is_no_go(
    checked: Callable[..., tuple[int, dict[str, Any]]], what: Sends, output: str, says: tuple[str, ...]
) -> None:
    code, plan = checked(what, output)
    assert (code, plan["verdict"]) == (3, "NO-GO")
    assert len(plan["reasons"]) == len(says), plan["reasons"]
    for reason, said in zip(plan["reasons"], says, strict=True):
        assert said in reason


@pytest.fixture
def judged_file(judged_checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A checkpoint that recommends the blend for one output, said 60 ms ahead, and the linear decoder for the other."""
    wheel, choice = judged_checkpoint.specs
    specs = msgspec.structs.replace(wheel, lead_ms=60.0, future_ms=50.0), choice
    header = msgspec.structs.replace(judged_checkpoint.header, specs=specs)
    checkpoints.save(replace(judged_checkpoint, header=header), tmp_path / "judged.safetensors")
    return tmp_path / "judged.safetensors"


def test_the_verdict_in_words(
    call: Callable[..., int], make_rig: MakeRig, make_outlet: MakeOutlet, stream_name: str, session: Session,
    judged_file: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """One line for each stream, what is recommended for each output, and the verdict alone on the last; the spikes come
    0.2 s late."""
    outlet = make_outlet(stream_name, session.units)
    streams = (
        f'spikes = "{stream_name}"\nmarkers = "{stream_name}-markers"\nwait_s = 5\n'
        f'[input.behaviours]\nwheel_speed = "{stream_name}-wheel"'
    )
    with sending(outlet, stream_name, Sends(shift_s=-0.2, markers=("go",))):
        assert call("check", make_rig(input=streams, checkpoint=judged_file), "--seconds", "1") == 3
    words = capsys.readouterr().out.splitlines()
    assert words[-1] == "NO-GO"
    late = [line for line in words if line.startswith(f"spikes  NO-GO  {stream_name}: ")]
    assert len(late) == 1
    assert "of the spikes are late; set bins.lateness_ms = 2" in late[0]
    assert any(line.startswith(f"wheel_speed  GO  {stream_name}-wheel: ") for line in words)
    assert any(line.startswith("markers  NO-GO  ") and "such as 'go'" in line for line in words)
    assert words[0].startswith("rig test: recommended on 3 x stream-numba-cpu + linear-numba-cpu, model judged (")
    assert any(line.endswith("]; recommended blend: it is best") for line in words)
    assert "wheel_speed: 60 ms ahead; its own filter holds up to 50 ms of the future" in words
    assert any("recommended logistic: neither NEDS nor the blend is better" in line for line in words)
    assert any("12 in the map, 11 used by the model, 12 fired" in line for line in words)
    assert any("receptive field 9 bins = 0.18 s, phase-free, budget 20 ms" in line for line in words)
    assert any(line.startswith("scheduling ") and "memory" in line for line in words)


def test_a_silent_rig_is_no_go(
    call: Callable[..., int], make_rig: MakeRig, make_outlet: MakeOutlet, stream_name: str, session: Session,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    outlet = make_outlet(stream_name, session.units)
    assert call("check", make_rig(input=f'spikes = "{stream_name}"\nwait_s = 5'), "--seconds", "0.5", "--json") == 3
    plan = msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])
    assert plan["reasons"] == ["spikes: no spikes arrived: start the sender, or listen longer with --seconds"]
    assert outlet.get_info().name() == stream_name
