"""What a certificate is of: every change is named, and what is no change is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from neds_core import toml
from neds_core.errors import ConfigError
from runtime import config as rigs
from runtime.certificate import chain, surroundings
from runtime.certificate.chain import Chain, changed
from runtime.certificate.document import Certificate, Held, Line, beside, load, require, save
from runtime.config import InputConfig, RigConfig

CONFIG = RigConfig("rig-3", "/rigs/neds.safetensors", InputConfig("spikes"))
HOME = Path("/rigs")
VALUES = st.one_of(
    st.booleans(), st.integers(0, 10**6), st.floats(0.0, 1e6), st.text(max_size=3), st.lists(st.text(max_size=3))
)  # fmt: skip
DIGEST = st.integers(0, 9).map(lambda n: f"{n:016x}")


def entries(names: str, values: st.SearchStrategy) -> st.SearchStrategy:
    return st.dictionaries(st.sampled_from(list(names)), values, min_size=1)


CHAIN = st.builds(
    Chain, st.integers(0, 9).map(lambda n: f"{n:064x}"), entries("abc", VALUES), entries("xyz", st.text(max_size=3)),
    entries("klm", DIGEST),
)  # fmt: skip


@given(CHAIN, st.data())
def test_whatever_changes_is_named_and_nothing_else(before: Chain, data: st.DataObject) -> None:
    """One entry of one part: another value, gone, or new. As it is read again, nothing has."""
    assert changed(msgspec.json.decode(msgspec.json.encode(before), type=Chain), before) == []
    part = data.draw(st.sampled_from(["config", "environment", "code"]))
    values = dict(getattr(before, part))
    name = data.draw(st.sampled_from([*values, "new one"]))
    if name in values and data.draw(st.booleans()):
        del values[name]
    else:
        other = VALUES if part == "config" else DIGEST
        values[name] = data.draw(other.filter(lambda v: name not in values or v != values[name]))
    (said,) = changed(before, msgspec.structs.replace(before, **{part: values}))
    assert said.startswith(f"{name} ")


@given(CHAIN, st.integers(0, 63))
def test_another_checkpoint_is_named(before: Chain, at: int) -> None:
    digit = "0" if before.checkpoint[at] != "0" else "1"
    now = msgspec.structs.replace(before, checkpoint=f"{before.checkpoint[:at]}{digit}{before.checkpoint[at + 1 :]}")
    (said,) = changed(before, now)
    assert said.startswith("the checkpoint was ")


# --- configuration ---


def other(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case None:
            return 5573
        case tuple():
            return (*value, "10.0.0.1")
        case dict():
            return value | {"wheel_speed": "encoder"}
    return f"{value}x"


def altered(struct: Any, dotted: str) -> Any:
    """The tree with another value of one key."""
    name, _, rest = dotted.partition(".")
    value = getattr(struct, name)
    return msgspec.structs.replace(struct, **{name: altered(value, rest) if rest else other(value)})


def keys(struct: Any, at: str = "") -> list[str]:
    """Every key of a tree of structs."""
    found = []
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        found += keys(value, f"{at}{name}.") if isinstance(value, msgspec.Struct) else [f"{at}{name}"]
    return found


@pytest.mark.parametrize("key", [key for key in keys(CONFIG) if key not in chain.ELSEWHERE])
def test_one_value_of_the_configuration_is_a_change(key: str) -> None:
    before, now = (chain.settings(c, HOME) for c in (CONFIG, altered(CONFIG, key)))
    named = {name for name in {*before, *now} if name not in before or name not in now or before[name] != now[name]}
    assert named == {"input.behaviours.wheel_speed" if key == "input.behaviours" else key}


SECTIONS = (
    'rig = "a"\ncheckpoint = "x.safetensors"\ncertificate = "{certificate}"',
    '[input]\nspikes = "s"\nwait_s = 5',
    "[bins]\nlateness_ms = 4.0\nuse_markers = false",
    "[output]\nbudget_ms = 30",
)


@given(st.permutations(SECTIONS[1:]), st.lists(st.sampled_from(["# why", "", "  # 5.0"]), min_size=3, max_size=3))
def test_order_and_comments_and_another_folder_are_no_change(order: list[str], more: list[str]) -> None:
    """Nor is a value in other words, a default that is spelled out, or what asks for the certificate."""
    first = "\n".join(SECTIONS).format(certificate="c.json")
    again = "\n".join([SECTIONS[0], *(f"{line}\n{section}" for line, section in zip(more, order, strict=True))])
    again = again.format(certificate="").replace("lateness_ms = 4.0", "lateness_ms = 4\nfuture_ms = 2.0")
    was, now = (toml.parse(text, RigConfig, "rig.toml") for text in (first, again))
    assert chain.settings(was, HOME) == chain.settings(now, HOME)


def test_files_are_named_from_the_folder_of_the_rig(tmp_path: Path) -> None:
    """A rig that is moved as a whole is the same rig."""
    found = []
    for name in ("here", "there"):
        home = tmp_path / name
        home.mkdir()
        (home / "session.npz").touch()
        (home / "rig.toml").write_text(
            'rig = "a"\ncheckpoint = "x"\n[input]\nspikes = "s"\n[score]\nrecording = "session.npz"\n'
        )
        found.append(chain.settings(rigs.load(home / "rig.toml"), home))
    assert found[0] == found[1]
    assert (found[0]["score.recording"], found[0]["control.log"]) == ("session.npz", "swaps.jsonl")


# --- environment and code ---


@pytest.mark.parametrize(
    ("where", "value", "name"),
    [
        ("governor", lambda: "powersave", "governor"),
        ("granted", lambda: "normal (not granted), memory not locked", "scheduling"),
        ("cpu", lambda: "Another CPU", "cpu"),
        ("installed", lambda names: {"torch": "0.1"}, "torch"),
    ],
)
def test_another_machine_or_package_is_named(
    monkeypatch: pytest.MonkeyPatch, where: str, value: object, name: str
) -> None:
    before = Chain("", {}, chain.environment(), {})
    monkeypatch.setattr(chain.system, where, value)
    said = changed(before, Chain("", {}, chain.environment(), {}))
    assert any(each.startswith(f"{name} was ") for each in said)
    assert where == "installed" or len(said) == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are counted by affinity")
def test_fewer_cores_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Chain("", {}, chain.environment(), {})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(999)))
    (said,) = changed(before, Chain("", {}, chain.environment(), {}))
    assert said.startswith("cores was ")
    assert said.endswith("is 999")


NAMES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "MKL_CBWR", "OPENBLAS_CORETYPE", "LD_PRELOAD", "PYTHONOPTIMIZE")


@given(st.sampled_from(NAMES), st.text("abc019", max_size=3), st.text("abc019", max_size=3))
def test_a_variable_that_libraries_read_is_named_and_no_other(name: str, was: str, now: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, was)
        before = Chain("", {}, surroundings.variables(), {})
        patch.setenv("EDITOR", f"{was}x")
        assert changed(before, Chain("", {}, surroundings.variables(), {})) == []
        patch.setenv(name, now)
        said = changed(before, Chain("", {}, surroundings.variables(), {}))
        assert len(said) == (was != now)
        assert all(each.startswith(f"{name} was ") for each in said)
        patch.delenv(name)
        (said,) = changed(before, Chain("", {}, surroundings.variables(), {}))
        assert said.endswith("is not there")


def test_the_content_of_the_labs_lsl_file_counts_and_not_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(surroundings.lsl_settings, "PLACES", ("lsl_api.cfg",))
    monkeypatch.delenv("LSLAPICFG", raising=False)
    none = chain.environment()
    assert none["lsl_api.cfg"] == "none"
    (tmp_path / "lsl_api.cfg").write_text("[ports]\nIPv6 = disable\n")
    here = chain.environment()
    (tmp_path / "lsl_api.cfg").rename(tmp_path / "other.cfg")
    monkeypatch.setenv("LSLAPICFG", str(tmp_path / "other.cfg"))
    assert chain.environment() == here
    (said,) = changed(Chain("", {}, none, {}), Chain("", {}, here, {}))
    assert said.startswith("lsl_api.cfg was none, is ")


@pytest.mark.parametrize(("where", "name"), [("lsl_resolve", "liblsl"), ("publish", "libzmq")])
def test_another_native_library_is_named(monkeypatch: pytest.MonkeyPatch, where: str, name: str) -> None:
    before = Chain("", {}, surroundings.found("cpu"), {})
    monkeypatch.setattr(getattr(surroundings, where), "library", lambda: "0.1")
    (said,) = changed(before, Chain("", {}, surroundings.found("cpu"), {}))
    assert said.startswith(f"{name} was ")


def test_settings_of_the_system_are_read_as_it_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The word in brackets is the one chosen; an empty list is none; a graphics card counts where it decodes."""
    texts = {"pages": "always [madvise] never", "cores": "", "clock": "tsc"}
    for name, text in texts.items():
        (tmp_path / name).write_text(f"{text}\n")
    (tmp_path / "gpus" / "0000:01").mkdir(parents=True)
    (tmp_path / "gpus" / "0000:01" / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 3\n")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n")
    monkeypatch.setattr(surroundings, "SETTINGS", {name: str(tmp_path / name) for name in [*texts, "absent"]})
    monkeypatch.setattr(surroundings, "NVIDIA", tmp_path)
    found = surroundings.found("cuda")
    assert [found[name] for name in (*texts, "absent")] == ["madvise", "none", "tsc", "not said"]
    assert (found["gpu"], found["driver"]) == ("NVIDIA H200", "550.54.15")
    assert "gpu" not in surroundings.found("cpu")


def test_a_file_of_code_that_changes_comes_or_goes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the package lies; what is no code does not count."""
    package = tmp_path / "certified"
    (package / "room").mkdir(parents=True)
    for name in ("__init__", "a", "room/b"):
        (package / f"{name}.py").write_text(f"# {name}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(chain, "PACKAGES", ("certified",))
    before = Chain("", {}, {}, chain.code())
    (package / "notes.txt").write_text("no code")
    assert changed(before, Chain("", {}, {}, chain.code())) == []
    (package / "a.py").write_text("# A\n")
    (package / "room" / "b.py").unlink()
    (package / "room" / "c.py").touch()
    said = changed(before, Chain("", {}, {}, chain.code()))
    assert said == [
        "certified/a.py has changed", "certified/room/b.py is gone", "certified/room/c.py is new"
    ]  # fmt: skip


def test_all_our_code_is_in_the_chain() -> None:
    found = chain.code()
    assert {name.split("/")[0] for name in found} == set(chain.PACKAGES)
    assert {
        "runtime/live/loop.py",
        "kernels/cpu/step.py",
        "neds_core/checkpoint/checkpoint.py",
        "calibration/judge.py",
    } <= set(found)


# --- the file, and what a run demands ---

NOW = Chain("a" * 64, {"rig": "a", "bins.lateness_ms": 5.0}, {"governor": "performance"}, {"runtime/wire.py": "0" * 16})
PASSED = Certificate(
    created="2026-01-01T00:00:00+00:00", rig="a", source="live", seconds=60.0, misses=1e-3, chain=NOW,
    evidence=(Line("deadline", "PASS", "0 missed"), Line("steal", "INFO", "0 ms")),
)  # fmt: skip
replaced = msgspec.structs.replace


def test_a_loop_that_was_granted_otherwise_is_named() -> None:
    granted = replaced(NOW, environment={"scheduling": "SCHED_FIFO 10, memory locked"})
    assert chain.ran(granted, "SCHED_FIFO 10, memory locked", "a" * 64) == []
    (said,) = chain.ran(granted, "normal, memory locked", "a" * 64)
    assert said.endswith("and the loop was granted normal, memory locked")
    (said,) = chain.ran(granted, "SCHED_FIFO 10, memory locked", "b" * 64)
    assert said == "the checkpoint is aaaaaaaaaaaa in the chain, and bbbbbbbbbbbb was loaded"


def test_a_checkpoint_that_is_replaced_between_hash_and_load_is_refused(tmp_path: Path) -> None:
    save(PASSED, tmp_path / "c.json")
    held = require(tmp_path / "c.json", NOW, live=True)
    held.refuse_other("a" * 64)
    Held().refuse_other("b" * 64)  # no certificate was demanded
    with pytest.raises(ConfigError, match="bbbbbbbbbbbb was loaded, aaaaaaaaaaaa is certified"):
        held.refuse_other("b" * 64)


def test_a_certificate_that_holds_is_told_to_the_log(tmp_path: Path) -> None:
    path = beside(tmp_path / "rig.toml")
    save(PASSED, path)
    assert path.name == "rig.certificate.json"
    assert load(path) == PASSED
    assert msgspec.json.decode(path.read_bytes())["verdict"] == "PASS"
    found = require(path, NOW, live=True).told
    assert (found["created"], found["source"], len(found["sha256"])) == (PASSED.created, "live", 64)
    assert (found["seconds"], found["misses"]) == ("60", "0.001")


@pytest.mark.parametrize(
    ("certificate", "now", "says"),
    [
        (replaced(PASSED, evidence=(Line("deadline", "FAIL", "9 missed"),)), NOW, r"is a FAIL \(deadline\); mend that"),
        (replaced(PASSED, evidence=()), NOW, r"is a FAIL \(no evidence\)"),
        (replaced(PASSED, source="replay"), NOW, "of a replay: it certifies software and machine, .*--allow-replay"),
        (PASSED, replaced(NOW, checkpoint="b" * 64), "the checkpoint was aaaaaaaaaaaa, is bbbbbbbbbbbb; certify the"),
        (PASSED, replaced(NOW, config={"rig": "a"}), "bins.lateness_ms was 5.0, is not there; certify the rig again"),
        (PASSED, replaced(NOW, environment={"governor": "powersave"}), "governor was performance, is powersave"),
        (PASSED, replaced(NOW, code={"runtime/wire.py": "1" * 16}), "runtime/wire.py has changed"),
        (PASSED, replaced(NOW, code={f"f{k}": "" for k in range(9)}), "and 5 more; certify"),
    ],
)  # fmt: skip
def test_a_run_is_refused_in_one_sentence(tmp_path: Path, certificate: Certificate, now: Chain, says: str) -> None:
    save(certificate, tmp_path / "c.json")
    with pytest.raises(ConfigError, match=says) as refused:
        require(tmp_path / "c.json", now, live=True)
    assert "\n" not in str(refused.value)


def test_a_certificate_of_a_replay_does_for_a_replay(tmp_path: Path) -> None:
    save(replaced(PASSED, source="replay"), tmp_path / "c.json")
    assert require(tmp_path / "c.json", NOW, live=False).told["source"] == "replay"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "there is no certificate; make one with"),
        ("{", "is no certificate"),
        ('{"kind": "latency"}', "is no cert"),
    ],
)
def test_what_is_no_certificate_is_refused(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "c.json").write_text(text)
    with pytest.raises(ConfigError, match=says):
        require(tmp_path / "c.json", NOW, live=True)


def test_a_verdict_that_was_edited_changes_nothing(tmp_path: Path) -> None:
    """It follows from the evidence."""
    path = tmp_path / "c.json"
    save(replaced(PASSED, evidence=(Line("lost", "FAIL", "9 lost"),)), path)
    path.write_text(path.read_text().replace('"verdict": "FAIL",\n "schema"', '"verdict": "PASS",\n "schema"'))
    assert '"verdict": "PASS",\n "schema"' in path.read_text()
    with pytest.raises(ConfigError, match="is a FAIL"):
        require(path, NOW, live=True)
