"""docs/wire.md tells other languages how to read a message: its Python sketch runs, its tables are complete."""

from __future__ import annotations

import re
import time
from pathlib import Path

import msgspec
import pytest
import zmq

from runtime.client import unpack
from runtime.core.state import State
from runtime.wire import Decode, Event, Flag, OutputInfo, Status

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")


def test_the_python_sketch_runs(capsys: pytest.CaptureFixture[str]) -> None:
    block = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        address = f"tcp://127.0.0.1:{publisher.bind_to_random_port('tcp://127.0.0.1')}"
        sketch: dict = {}
        exec(block[1].replace("tcp://127.0.0.1:5571", address), sketch)
        assert publisher.recv() == b"\x01neds/1/decode/"
        now_ns = time.monotonic_ns()
        message = {
            "valid_until_ns": now_ns + 10**10,
            "t_end_ns": now_ns + 10**10,
            "outputs": {"wheel_speed": {"value": 4.0}},
        }
        late = message | {"valid_until_ns": now_ns}
        null = message | {"outputs": {"wheel_speed": {}}}
        for each in (message, late, null):
            publisher.send_multipart([b"neds/1/decode/rig/", msgspec.msgpack.encode(each)])
            assert sketch["socket"].poll(2000)
            sketch["look"]()
        sketch["socket"].context.destroy(linger=0)

    assert capsys.readouterr().out.splitlines() == ["wheel_speed 4.0", "wheel_speed None", "wheel_speed None"]


@pytest.mark.parametrize("kind", [Decode, Status, OutputInfo])
def test_every_field_is_explained(kind: type[msgspec.Struct]) -> None:
    assert [name for name in kind.__struct_fields__ if f"`{name}`" not in PAGE] == []


def test_every_flag_is_explained() -> None:
    assert [flag.name for flag in Flag if f"| {int(flag)} | {flag.name} |" not in PAGE] == []


def test_every_state_is_explained() -> None:
    assert [state for state in State if f"| {state} |" not in PAGE] == []


def test_unknown_fields_are_tolerated() -> None:
    later = {"schema": 1, "name": "swap", "t_ns": 5, "detail": "", "new": [1]}
    assert unpack(msgspec.msgpack.encode(later), Event) == Event(1, "swap", 5, "")
