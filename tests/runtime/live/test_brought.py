"""Decoders that were brought in a real run: a player, `neds-rt run`, a subscriber, and a swap that is forced."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from calibration.swap import swap
from neds_core.data import session as sessions, session_file
from neds_core.files import sha256
from runtime.io import log_file
from runtime.wire import Flag
from tests.runtime.live.test_swap import Heard, Live

pytestmark = pytest.mark.slow
MONKEY = Path(__file__).parents[3] / "examples" / "bci-monkey-20131218"
FIRST, SECOND = (MONKEY / f"online-decoder-block{block}.safetensors" for block in (1, 2))


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heard]:
    """14 segments of block 1; the decoder of block 2 takes over from that of block 1, which is refused first."""
    home = tmp_path_factory.mktemp("brought")
    shutil.copy(FIRST, home / "tiny.safetensors")
    session = session_file.load(MONKEY / "online-block1.npz")
    session_file.save(sessions.select(session, slice(0, 14)), home / "session.npz")
    live = Live(tmp_path_factory.mktemp("run"), home)
    try:
        live.decodes(sha256(FIRST), 5)
        yield live.over([swap(live.control, SECOND), swap(live.control, SECOND, force=True)])
    finally:
        live.stop()


def test_it_gives_what_was_recorded_until_another_takes_over(heard: Heard) -> None:
    """To 5e-5, as its messages say; of the other one as offline says from where the markers let it begin."""
    log, (turn,) = log_file.load(heard.home / "run.npz"), heard.summary["exchanges"]
    session = session_file.load(MONKEY / "online-block1.npz")
    assert (log.header.decoder, heard.summary["streamed_vs_offline_max_abs"]) == ("brought", 0.0)
    assert (turn["model_sha"], turn["forced"], turn["streamed_vs_offline_max_abs"]) == (sha256(SECOND), True, 0.0)
    rows = np.array([m.token for m in heard.messages if m.outputs["cursor_vel_x"].value is not None])
    ours = rows[rows < turn["token"]]
    said = {m.token: m.outputs["cursor_vel_x"].value for m in heard.messages}
    recorded = session.values["cursor_vel_x"][session.segments[log.segment[ours], 0] + log.clock[ours]]
    assert len(ours) >= 5
    assert len(rows) > len(ours)
    assert np.abs(np.array([said[t] for t in ours]) - recorded).max() <= 5e-5
    assert np.isfinite(log.stands[ours[log.clock[ours] == 0]]).all()


def test_every_message_says_that_nothing_has_judged_it(heard: Heard) -> None:
    refused, forced = heard.answers
    assert (refused.ok, refused.by_gate, forced.ok) == (False, True, True)
    assert "no gate has judged it" in refused.said
    assert all(message.flags & Flag.UNGATED for message in heard.messages if not message.flags & Flag.END)
