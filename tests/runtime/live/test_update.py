"""An update of a real run: fitted beside it, compared with what decodes, and swapped in."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from calibration.swap import swap
from neds_core.data.session import Session
from neds_core.files import sha256
from runtime import config as rigs
from runtime.io import chain
from runtime.io.block_file import MAGIC, packed
from runtime.io.lsl_description import unit_rows
from runtime.wire import Flag
from tests.calibration.rigs import collected
from tests.runtime.cli.test_calibrate import TINY
from tests.runtime.live.test_swap import NEDS_RT, START_S, Live


@pytest.mark.slow
def test_an_update_starts_from_what_runs_and_takes_over(
    rig_home: Path, session: Session, tmp_path: Path, gated: Callable[..., Path]
) -> None:
    """What was collected before is fitted beside the run: its chain, the flag and the message say whose child it is."""
    folder = tmp_path / "today-session"
    folder.mkdir()
    (tmp_path / "today.toml").write_text(
        'rig = "swaps"\n[input]\nspikes = "x"\nmarkers = "y"\nbehaviours = {wheel_speed = "z"}\n'
    )
    began_ns = time.time_ns() - 120 * 10**9
    of_rig = {"rig": "swaps", "config": msgspec.to_builtins(rigs.load(tmp_path / "today.toml", rigs.FirstDay))}
    log = collected(session, units=unit_rows(session.units), utc_ns=began_ns, **of_rig)
    (folder / "run-001.blocks").write_bytes(MAGIC + packed(log))
    (tmp_path / "calibrate.toml").write_text(TINY)
    live = Live(tmp_path, rig_home, "--seconds", "120")
    try:
        assert swap(live.control, gated(1)).ok
        live.decodes(sha256(gated(1)))
        out = tmp_path / "today.safetensors"
        command = [NEDS_RT, "calibrate", tmp_path / "today.toml", "--update", "--yes", "--trials", "40", "--out", out]
        options = ["--config", tmp_path / "calibrate.toml", "--address", live.control, "--headless", "--json"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=START_S, check=False)
        assert done.returncode == 0, done.stderr
        live.decodes(sha256(out))
    finally:
        live.stop()
    report = msgspec.json.decode(done.stdout.splitlines()[-1])
    assert (report["rows_kept"], report["base"]) == (11, gated(1).name)  # one unit is filtered out
    assert set(report["compared"]) == {"wheel_speed", "choice"}
    assert report["compared"]["wheel_speed"]["n"] == report["parts"]["judge"]["segments"]
    assert "goes on decoding" in done.stderr
    assert "today-session holds data already: the oldest are " in done.stderr
    last = [link for link in chain.read(tmp_path / "swaps.jsonl") if link.outcome == "taken"][-1]
    assert (last.to_sha, last.parents, last.forced) == (sha256(out), (sha256(gated(1)), "9a9e"), False)
    assert not any(m.flags & Flag.UNGATED for m in live.messages if m.model_sha == sha256(out))
