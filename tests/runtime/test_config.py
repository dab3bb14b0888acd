"""`rig.toml`: what cannot be meant is refused in one sentence that names the key and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from neds_core.errors import ConfigError
from runtime import config
from runtime.cli.demo import demo

MINIMAL = 'rig = "a"\ncheckpoint = "c.safetensors"\n[input]\nspikes = "s"\n'


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], config.RigConfig]:
    def read(text: str) -> config.RigConfig:
        path = tmp_path / "rig.toml"
        path.write_text(text)
        return config.load(path)

    return read


def test_the_demo_rig_names_its_files(load: Callable[[str], config.RigConfig]) -> None:
    found = config.load(demo() / "rig.toml")
    assert Path(found.checkpoint) == demo() / "ensemble.safetensors"
    assert Path(found.score.recording) == demo() / "session.npz"


def test_a_minimal_rig_has_the_documented_defaults(load: Callable[[str], config.RigConfig]) -> None:
    found = load(MINIMAL)
    assert (found.output.host, found.output.decode_port, found.output.latest_port) == ("127.0.0.1", 5571, 5572)
    assert (found.bins.lateness_ms, found.output.budget_ms, found.engine.decoder) == (5.0, 20.0, "recommended")
    assert found.score.recording == ""
    assert found.control.port is None


def test_paths_are_relative_to_the_file(
    load: Callable[[str], config.RigConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "r.npz").touch()
    found = load(MINIMAL + '[score]\nrecording = "old/r.npz"\n')
    assert found.checkpoint == str(tmp_path / "c.safetensors")
    assert found.score.recording == str(tmp_path / "old" / "r.npz")
    assert found.control.log == str(tmp_path / "swaps.jsonl")

    elsewhere = MINIMAL.replace("c.safetensors", "/models/c.safetensors")
    assert load(elsewhere).checkpoint == "/models/c.safetensors"

    monkeypatch.chdir(tmp_path)
    assert config.load(Path("rig.toml")).checkpoint == "/models/c.safetensors"


def test_a_first_day_has_no_checkpoint(tmp_path: Path) -> None:
    """Where a session is collected. Everything else is as for a run."""
    path = tmp_path / "rig.toml"
    path.write_text(MINIMAL.replace('checkpoint = "c.safetensors"\n', ""))
    found = config.load(path, config.FirstDay)
    assert (found.rig, found.checkpoint, found.input.spikes) == ("a", "", "s")
    with pytest.raises(ConfigError, match="checkpoint: required key is missing"):
        config.load(path)
    path.write_text(MINIMAL)
    assert config.load(path, config.FirstDay).checkpoint == str(tmp_path / "c.safetensors")
    path.write_text(MINIMAL + "[bin]\n")
    with pytest.raises(ConfigError, match="bin: unknown key, did you mean 'bins'"):
        config.load(path, config.FirstDay)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MINIMAL + "[bin]\n", "bin: unknown key, did you mean 'bins'?"),
        (MINIMAL + "[bins]\nlatenes_ms = 5\n", "bins.latenes_ms: unknown key, did you mean 'lateness_ms'?"),
        (MINIMAL + "[output]\ndecod_port = 1\n", "output.decod_port: unknown key, did you mean 'decode_port'?"),
        (MINIMAL + "[engine]\nxyzzy = 1\n", "engine.xyzzy: unknown key, known keys: decoder, weights"),
        ('rig = "a"\n[input]\nspikes = "s"\n', "checkpoint: required key is missing; add it"),
        ('rig = "a"\ncheckpoint = "c"\n[input]\n', "input.spikes: required key is missing; add it"),
        (
            MINIMAL + '[bins]\nlateness_ms = "5"\n',
            "bins.lateness_ms: expected `float`, got `str`; correct the value '5'",
        ),
        (MINIMAL + "[output]\ndecode_port = 70000\n", "output.decode_port: expected `int` <= 65535"),
        (MINIMAL + '[output]\nformat = "xml"\n', "output.format: invalid enum value 'xml'"),
        (MINIMAL + '[engine]\ndecoder = "lstm"\n', "engine.decoder: invalid enum value 'lstm'"),
        (MINIMAL + '[engine]\nweights = "int4"\n', "engine.weights: invalid enum value 'int4'"),
        (MINIMAL + '[lsl]\nresolve_scope = "world"\n', "lsl.resolve_scope: invalid enum value 'world'"),
        (MINIMAL.replace('"a"', '"my rig"'), "rig: expected `str` matching regex"),
        (MINIMAL + "[bins]\nlateness_ms = 20\n", "bins.lateness_ms: not below output.budget_ms"),
        (MINIMAL + "[output]\nbudget_ms = 0.02\n", "output.budget_ms: expected `float` >= 1.0"),
        (MINIMAL + "[output]\ndecode_port = 7\nlatest_port = 7\n", "output.latest_port: the same as decode_port"),
        (MINIMAL + "[control]\nport = 5571\n", "control.port: the same as a port of output; give it its own"),
        (MINIMAL + '[control]\nport = 0\n[engine]\ndevice = "cuda"\n', "control.port: decoders on the GPU cannot be"),
        (MINIMAL + '[output]\nhost = "0.0.0.0"\n', "output.host: '0.0.0.0' would publish unencrypted"),
        (MINIMAL + "[bins]\nlateness_ms = 90\nmax_age_ms = 50\n[output]\nbudget_ms = 99\n", "bins.max_age_ms: below"),
        (MINIMAL + "[bins]\nmax_age_ms = inf\n", "bins.max_age_ms: expected `float` <= 3600000.0"),
        (MINIMAL + "[bins]\nlateness_ms = nan\n", "bins.lateness_ms: expected `float` >= 0.0"),
        (MINIMAL + '[score]\nrecording = "gone.npz"\n', "gone.npz does not exist; correct the path or leave it out"),
        ("rig = \n", "not valid TOML"),
    ],
)
def test_one_sentence_with_the_key_and_the_remedy(
    load: Callable[[str], config.RigConfig], text: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'rig.toml'}: ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize("port", [0, 5571])
def test_both_ports_may_be_free_ones_but_not_one_and_the_same(
    load: Callable[[str], config.RigConfig], port: int
) -> None:
    text = MINIMAL + f"[output]\ndecode_port = {port}\nlatest_port = {port}\n"
    if port == 0:
        assert load(text).output.decode_port == 0
    else:
        with pytest.raises(ConfigError, match="give it its own port"):
            load(text)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: cannot be read .*check the path"):
        config.load(tmp_path / "nothing.toml")
    (tmp_path / "rig.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not text"):
        config.load(tmp_path / "rig.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path)
