"""A wrong configuration is one sentence with the path of the key, and a remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from neds_core import toml
from neds_core.config import TrainConfig
from neds_core.errors import ConfigError

GOOD = 'recording = "session.npz"\noutputs = ["wheel_speed"]\n'


def refusal(text: str) -> str:
    """The sentence a text is refused with, without the file's name."""
    with pytest.raises(ConfigError) as error:
        toml.parse(text, TrainConfig, "train.toml")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("train.toml: ")
    return message.removeprefix("train.toml: ")


def test_what_is_written_is_what_is_read() -> None:
    """The rest keeps its defaults."""
    read = toml.parse(GOOD + "[model]\nband = 7\nlayers = 3\n[fit.loss_weights]\nspikes = 0.5", TrainConfig, "t")

    assert (read.model.band, read.model.layers, read.model.width) == (7, 3, 64)
    assert read.model.receptive_field == 19
    assert read.fit.loss_weights == {"spikes": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("outputs = ['a']\nrecordign = 'r'", "recordign: unknown key, did you mean 'recording'?"),
        (GOOD + "[model]\nlayer = 3", "model.layer: unknown key, did you mean 'layers'?"),
        (GOOD + "[fit]\nlearnig_rate = 3", "fit.learnig_rate: unknown key, did you mean 'learning_rate'?"),
        (GOOD + "[modle]\nlayers = 3", "modle: unknown key, did you mean 'model'?"),
    ],
)
def test_a_misspelt_key_names_the_nearest(text: str, message: str) -> None:
    """At the root and below it; a typo never becomes a default."""
    assert refusal(text) == message


def test_a_key_like_no_other_names_them_all() -> None:
    """There is no nearest key to guess."""
    assert refusal(GOOD + "[masks]\nxyz = 1") == (
        "masks.xyz: unknown key, known keys: encoding, decoding, within_spikes, within_behaviour, cross_modal, ratio, "
        "single_behaviour, causal_suffix, spans, span_bins, modality_dropout, prefix, pause, pause_bins"
    )


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (GOOD + "[model]\nwidth = 'wide'", "model.width: expected `int`, got `str`"),
        (GOOD + "[model]\nlayers = 0", "model.layers: expected `int` >= 1"),
        (GOOD + "[masks]\nratio = 1.5", "masks.ratio: expected `float` <= 1.0; correct the value 1.5"),
        (GOOD + "[masks]\nratio = nan", "masks.ratio: expected `float`"),
        (GOOD + "[fit]\nrefit = 1", "fit.refit: expected `bool`, got `int`"),
        (GOOD + "[fit]\nsteps = 1.5", "fit.steps: expected `int`, got `float`"),
        (GOOD + "[fit.loss_weights]\nspikes = -1", "fit.loss_weights: expected `float` >= 0.0"),
        (
            GOOD + "[linear]\nfilter_taus_ms = [[40.0, 'x']]",
            "linear.filter_taus_ms: expected `float`, got `str`; correct the value 'x'",
        ),
        (GOOD + "model = 3", "model: expected `object`, got `int`"),
        ("recording = 'r'\noutputs = 'a'", "outputs: expected `array`, got `str`"),
        ("outputs = ['a']", "recording: required key is missing; add it"),
        ("recording =", "not valid TOML ("),
        # values that fit their own type and not each other
        (GOOD + "[masks]\nspan_bins = [9, 3]", "masks: span_bins: the shortest, 9, is above the longest, 3"),
        (GOOD + "[masks]\npause_bins = [9, 3]", "masks: pause_bins: the shortest, 9, is above the longest, 3"),
        (GOOD + "[masks]\npause_bins = [0, 3]", "masks.pause_bins: expected `int` >= 1"),
        (
            GOOD + "[masks]\npause = 0.5\n[model]\nclock_bins = 47",
            "masks.pause: 0.5 is for a decoder that does not know",
        ),
        (
            GOOD + "[masks]\npause = 1\n[model]\nattention = 'full'",
            "masks.pause: 1 is for a decoder that does not know",
        ),
        (GOOD + "[model]\nwithout = ['clock']", "model.without: invalid enum value 'clock'"),
        (GOOD + "[model]\nheads = 3", "model: width 64 is not an even multiple of 3 heads"),
        ("recording = 'r'\noutputs = []", "outputs: "),
        ("recording = 'r'\noutputs = ['a', 'a']", "outputs: "),
        ("select = ['wheel']\n" + GOOD, "select: 'wheel' is none of wheel_speed"),
        (GOOD + "[fit.loss_weights]\nwheel = 2.0", "fit.loss_weights: 'wheel' is none of wheel_speed, spikes"),
        (
            GOOD + "[masks]\nencoding=0\ndecoding=0\nwithin_spikes=0\nwithin_behaviour=0\ncross_modal=0",
            "masks: every family has weight 0",
        ),
        (GOOD + "[masks]\nencoding = 0\ndecoding = 0\nratio = 0", "masks: ratio 0 hides nothing"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(text: str, start: str) -> None:
    """Wrong type, out of range, missing, no TOML at all, or at odds with another key."""
    assert refusal(text).startswith(start)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Not there, a folder, or not text."""
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for path, remedy in (
        (tmp_path / "none.toml", "check the path"),
        (tmp_path, "check the path"),
        (tmp_path / "binary.toml", "is not text in UTF-8 (UTF-16, perhaps); save it as UTF-8"),
    ):
        with pytest.raises(ConfigError, match=re.escape(remedy)) as error:
            toml.load(path, TrainConfig)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_of_another_editor_is_read(tmp_path: Path, encoding: str, end: str) -> None:
    """A byte order mark in front and Windows line ends change nothing."""
    path = tmp_path / "train.toml"
    path.write_bytes(GOOD.replace("\n", end).encode(encoding))

    assert toml.load(path, TrainConfig) == toml.parse(GOOD, TrainConfig, "here")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_a_file_in_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    """By what it is, not by a syntax error in line 1."""
    path = tmp_path / "train.toml"
    path.write_bytes(("# 20 \u00b5m\n" + GOOD).encode(encoding))

    with pytest.raises(ConfigError, match="is not text in UTF-8"):
        toml.load(path, TrainConfig)


def test_a_file_is_parsed_under_its_own_name(tmp_path: Path) -> None:
    """The sentence starts with the path that was given."""
    path = tmp_path / "train.toml"
    path.write_text(GOOD)
    assert toml.load(path, TrainConfig).outputs == ("wheel_speed",)
    path.write_text(GOOD + "x = 1")
    with pytest.raises(ConfigError, match=r"train\.toml: x: unknown key"):
        toml.load(path, TrainConfig)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('attention = "both"', "model.attention: invalid enum value 'both'"),
        ('tokenizer = "stitcher"', "needs attention 'full'"),
        ('attention = "full"\nclock_bins = 5', "clock_bins is for attention 'causal'"),
        ('without = ["rotary"]', "invalid enum value 'rotary'"),
    ],
)
def test_configurations_that_mean_nothing_are_refused(lines: str, says: str) -> None:
    text = f'recording = "a"\noutputs = ["b"]\n[model]\n{lines}'
    with pytest.raises(ConfigError, match=says):
        toml.parse(text, TrainConfig, "train.toml")
