"""A lab's own lsl_api.cfg is read, and what the rig overrides in it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from neds_core.errors import ConfigError
from runtime.io import lsl_settings
from runtime.io.lsl_settings import merged, read

LAB = """; the lab's
[ports]
BasePort = 17000
[multicast]
ResolveScope = site
[lab]
SessionID = room-4
KnownPeers = {10.0.0.5, 10.0.0.6}
"""


@pytest.fixture(autouse=True)
def nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LSLAPICFG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(lsl_settings, "PLACES", lsl_settings.PLACES[:2])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def sections(text: str, tmp_path: Path) -> dict[str, dict[str, str]]:
    path = tmp_path / "merged.cfg"
    path.write_text(text)
    return read(path)


def test_without_a_lab_file_ours_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sections(merged("mine", "machine", ()), tmp_path) == {
        "ports": {"PortRange": "256"},
        "log": {"level": "-3"},
        "multicast": {"ResolveScope": "machine"},
        "lab": {"SessionID": "mine", "KnownPeers": "{127.0.0.1}"},
    }
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("place", ["LSLAPICFG", "here", "home"])
def test_a_lab_file_is_kept_but_for_what_the_rig_says(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ports and its peers stay; session and scope are the rig's, in one line that names them."""
    names = {"LSLAPICFG": "other.cfg", "here": "here/lsl_api.cfg", "home": "home/lsl_api/lsl_api.cfg"}
    path = tmp_path / names[place]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(LAB)
    if place == "LSLAPICFG":
        monkeypatch.setenv("LSLAPICFG", str(path))

    found = sections(merged("default", "link", ()), tmp_path)

    assert found["ports"] == {"PortRange": "256", "BasePort": "17000"}
    assert found["multicast"] == {"ResolveScope": "link"}
    assert found["lab"] == {"SessionID": "default", "KnownPeers": "{10.0.0.5, 10.0.0.6}"}
    (line,) = capsys.readouterr().err.splitlines()
    assert "lsl_api.cfg: " in line or "other.cfg: " in line
    assert line.endswith("multicast.ResolveScope = site (here link), lab.SessionID = room-4 (here default)")


def test_a_lab_file_that_says_the_same_is_not_mentioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("lsl_api.cfg").write_text(LAB)
    merged("room-4", "site", ("10.0.0.5", "10.0.0.6"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["SessionID = x\n", "[lab\nSessionID = x\n", "[lab]\nwhat is this\n"])
def test_a_lab_file_that_cannot_be_read(text: str) -> None:
    Path("lsl_api.cfg").write_text(text)
    with pytest.raises(
        ConfigError, match=r"^lsl_api.cfg: cannot be read \(.*\); correct it, or name another in LSLAPICFG$"
    ):
        merged("default", "machine", ())


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError("no home")))
    assert lsl_settings.lab_file() is None
