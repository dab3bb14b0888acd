"""docs/wire.md tells other languages how to read a message: its Python sketch runs, its tables are complete."""

from __future__ import annotations

import ast
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import msgspec
import pytest
import zmq

from neds_core.data.session import Session
from runtime import wire
from runtime.client import unpack
from runtime.core import accounting
from runtime.core.binning import Binner
from runtime.core.exchange import Why
from runtime.core.pipeline import Pipeline, Rules
from runtime.core.state import State
from runtime.engines import nothing
from runtime.io import control
from runtime.io.lsl_source import LslSource
from runtime.wire import Event, Flag

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
SAYS = ("_say", "happened")
NO_EVENTS = {
    ("machine", "lsl_resolve.py"), ("link", "lsl_resolve.py"), ("t_ns", "values.py"), ("unit", "values.py"),
}  # pairs that say none  # fmt: skip
STRUCTS = [
    kind for module in (wire, control) for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__struct_fields__
]  # fmt: skip


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


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_every_field_is_explained(kind: type[msgspec.Struct]) -> None:
    assert [name for name in kind.__struct_fields__ if f"`{name}`" not in PAGE] == []


def test_every_flag_is_explained() -> None:
    assert [flag.name for flag in Flag if f"| {int(flag)} | {flag.name} |" not in PAGE] == []


def test_every_state_is_explained() -> None:
    assert [state for state in State if f"| {state} |" not in PAGE] == []


def rows_of(heading: str) -> set[str]:
    """The names in the first column of the table under a heading."""
    section = PAGE.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    return {name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


def events() -> set[str]:
    """Every name of an event in the live loop and what it hears: of a call that says it, or beside its sentence."""
    trees = {p: ast.parse(p.read_text(encoding="utf-8")) for room in ("core", "live", "io")
             for p in (ROOT / "runtime" / room).glob("*.py")}  # fmt: skip
    nodes = [(path, node) for path, tree in trees.items() for node in ast.walk(tree)]
    named = {
        target.id: node.value.value for _, node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets if isinstance(target, ast.Name) and target.id.isupper()
    }  # fmt: skip
    found = set(get_args(Why))  # an exchange is called by its reason
    for path, node in nodes:
        given: list[ast.expr] = []
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in SAYS:
            given = node.args[:-1]
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2 and not isinstance(node.elts[1], ast.Constant):
            given = node.elts[:1] if isinstance(node.elts[1], ast.JoinedStr | ast.Name | ast.Attribute) else []
        for each in given:
            name = each.value if isinstance(each, ast.Constant) else named.get(getattr(each, "id", ""))
            if isinstance(name, str) and re.fullmatch("[a-z_]+", name) and (name, path.name) not in NO_EVENTS:
                found.add(name)
    return found


def test_every_event_is_explained_and_no_other() -> None:
    assert events() >= {"state", "log_full", "start_held", "spikes_gap", "unfit", "swap"}  # each way to say one
    assert rows_of("## Event") == events()


def test_every_counter_is_explained_and_no_other(session: Session) -> None:
    """Those of a run on a rig."""
    clock = SimpleNamespace(jumps=0)
    streams = SimpleNamespace(spikes=SimpleNamespace(lost_upstream=0, clock=clock), markers=None)
    upstream = LslSource.counters(cast(Any, SimpleNamespace(streams=streams, _markers=None, clock_jumps=0)))
    decoder = nothing.decoder(session.units, session.bin_ns)
    pipeline = Pipeline(Binner(decoder.n_units, session.bin_ns, max_age_ns=1, future_ns=1), decoder, Rules())

    counted = accounting.counters(pipeline, accounting.Accounting(1, 1), upstream)

    assert rows_of("### Counters") == counted.keys()


def test_unknown_fields_are_tolerated() -> None:
    later = {"schema": 1, "name": "swap", "t_ns": 5, "detail": "", "new": [1]}
    assert unpack(msgspec.msgpack.encode(later), Event) == Event(1, "swap", 5, "")
