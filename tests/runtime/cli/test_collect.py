"""`neds-rt collect` as an operator uses it: real streams, kill -9, Ctrl-C, and what it refuses before it begins."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pylsl
import pytest

from calibration.collecting import collect as collecting
from calibration.collecting.progress import Goal, Progress
from calibration.collecting.wanted import Asked
from neds_core.data import session as sessions, session_file
from neds_core.data.session import Session, UnitTable
from neds_core.io import recording
from runtime import config as rigs
from runtime.io import block_file
from runtime.start import command
from tests.calibration.rigs import collected, first, inside, same

WAIT_S = 120.0  # a busy machine is not a failure
RIG = """rig = "test"
[input]
spikes = "{p}-spikes"
markers = "{p}-markers"
wait_s = 60.0
[input.behaviours]
wheel_speed = "{p}-wheel_speed"
[bins]
lateness_ms = 900.0
[output]
budget_ms = 1000.0
"""  # a player that is not run for a moment is no failure


@dataclass
class Command:
    """A command of ours in a process of its own."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def ends(self, code: int) -> dict[str, Any]:
        """Wait for its end; returns what it reports."""
        assert self.process.wait(WAIT_S) == code, self.err.read_text()
        return msgspec.json.decode(self.out.read_text().splitlines()[-1])


class Bench:
    """A rig with a player, and a folder."""

    def __init__(self, home: Path, session: Session) -> None:
        self.home, self.session, self.started = home, session, []
        self.prefix = f"c-{uuid.uuid4().hex[:8]}"
        self.folder = home / "day1"
        (home / "rig.toml").write_text(RIG.format(p=self.prefix))

    def start(self, *arguments: object) -> Command:
        """Start a command."""
        out, err = (self.home / f"{len(self.started)}.{name}" for name in ("out", "err"))
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(command("runtime.cli", *arguments), stdout=stdout, stderr=stderr)
        self.started.append(process)
        return Command(process, out, err)

    def play(self, first: int, last: int) -> Command:
        """Play some trials of the session."""
        part, path = self.of(np.arange(first, last)), self.home / f"{first}.npz"
        session_file.save(part, path)
        return self.start("play", path, "--prefix", self.prefix, "--parent", os.getpid())

    def of(self, trials: np.ndarray) -> Session:
        """The session with these trials alone."""
        return sessions.select(self.session, trials)

    def collect(self, *options: object) -> Command:
        """Collect into the folder."""
        rig = self.home / "rig.toml"
        return self.start("collect", rig, "--out", self.folder, "--allow-replay", "--json", *options)

    def until(self, run: Command, trials: int, folder: str = "day1") -> None:
        """Wait until so many ends of trials are on the disk."""
        deadline, path = time.monotonic() + WAIT_S, self.home / folder / "run-001.blocks"
        while time.monotonic() < deadline:
            blocks = block_file.load(path)[0] if path.exists() else []
            if sum(m.event == "segment_end" for block in blocks for m in block.marks) >= trials:
                return
            assert run.process.poll() is None, run.err.read_text()
            time.sleep(0.1)
        pytest.fail(f"no trial came: {run.err.read_text()}")

    def progress(self, trials: int | None) -> Progress:
        """How far the folder is, as the command sees it when it begins."""
        config = rigs.load(self.home / "rig.toml", rigs.FirstDay)
        return collecting.begin(config, Asked((), self.session.bin_ns), self.folder, Goal(trials)).progress

    def found(self) -> Session:
        """The session of the folder, which both of its files hold."""
        native, other = (recording.load(self.folder / f"session.{ending}") for ending in ("npz", "nwb"))
        same(native, other)
        assert native.events is not None
        return native

    def trials(self, found: Session) -> Session:
        """The trials that were sent of those that were found."""
        return self.of(np.flatnonzero(np.isin(self.session.segment_ids, found.segment_ids)))


@pytest.fixture
def bench(session: Session, tmp_path: Path) -> Iterator[Bench]:
    """Where nothing goes on running."""
    made = Bench(tmp_path, replace(session, valid=np.ones(session.n_bins, bool)))
    yield made
    for process in made.started:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of pynwb's libraries
def test_what_was_sent_is_what_is_kept_also_after_kill_9(bench: Bench) -> None:
    """Counts to the last spike, behaviour exactly, labels. The same command goes on, and ends by itself."""
    player = bench.play(0, 12)
    run = bench.collect("--trials", 40)
    bench.until(run, 3)
    run.process.kill()
    player.process.kill()
    run.process.wait()
    player.process.wait()
    assert sorted(path.name for path in bench.folder.iterdir()) == ["run-001.blocks"]
    (bench.folder / "run-001.blocks").open("ab").write(b"half a block")  # what a power cut may leave

    before = bench.progress(None)
    goal = before.labelled + 3
    bench.play(12, 24)
    report = bench.collect("--trials", goal).ends(0)

    found = bench.found()
    same(found, bench.trials(found))
    assert (report["stopped_by"], report["runs"], report["labelled"]) == ("enough", 2, goal)
    ids = found.segment_ids.tolist()
    assert ids[:3] == [100, 101, 102]
    assert 112 in ids
    assert ids == sorted(ids)
    assert len(ids) == report["trials"]
    assert any("its last block was torn by a crash" in note for note in report["notes"])
    events, unit = found.events or (np.zeros(0), np.zeros(0))
    spikes = np.zeros_like(found.counts, int)
    np.add.at(spikes, (events // found.bin_ns, unit), 1)
    np.testing.assert_array_equal(spikes, found.counts)
    assert not before.enough
    assert bench.progress(goal).enough  # nobody would be asked for streams


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_ctrl_c_ends_it_and_all_is_kept(bench: Bench) -> None:
    """Exit 0 with the trials that are complete."""
    bench.play(0, 12)
    run = bench.collect()
    bench.until(run, 2)
    run.process.send_signal(signal.SIGINT)
    report = run.ends(0)
    found = bench.found()
    same(found, bench.trials(found))
    assert (report["stopped_by"], report["trials"]) == ("signal", len(found.segments))
    assert 2 <= len(found.segments) < 12
    assert inside(found)["counts"].shape == (25 * len(found.segments), 12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_ctrl_c_ends_the_collection_of_a_calibration_and_the_second_one_its_fit(bench: Bench, rig_home: Path) -> None:
    """What has come is fitted after the first; after the second nothing is written, and what was collected stays."""
    bench.play(0, 60)
    base, out = rig_home / "tiny.safetensors", bench.home / "today.safetensors"
    options = ("--minutes", 60, "--from", base, "--out", out, "--allow-replay", "--json")
    run = bench.start("calibrate", bench.home / "rig.toml", *options)
    bench.until(run, 32, "today-session")
    run.process.send_signal(signal.SIGINT)
    children, deadline = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children"), time.monotonic() + WAIT_S
    while "ended by signal" not in run.out.read_text() or not children.read_text():
        assert run.process.poll() is None, run.err.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(2.0)  # beyond what counts as one Ctrl-C
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(WAIT_S) == 130, run.err.read_text()
    assert "stopped before it was done (SIGINT)" in run.err.read_text()
    assert not [path for path in bench.home.iterdir() if path.name.startswith("today.")]
    assert len(session_file.load(bench.home / "today-session" / "session.npz").segments) >= 29


# --- refused, in one sentence, before anything is made ---


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        ('[input]\nspikes = "s"\n', (), "input.behaviours: no stream is named"),
        ('[input]\nspikes = "s"\nbehaviours = {a = "a"}', ("--trials", 3), "--trials: trials come from markers"),
        ('[input]\nspikes = "s"\nmarkers = "m"', ("--bin-ms", 0), "--bin-ms 0: no width of bins"),
        ('[input]\nspikes = "s"\nmarkers = "m"', ("--minutes", "nan"), "--minutes nan: is no duration"),
        ('[input]\nspikes = "s"\nmarkers = "m"', ("--sex", "male"), "--sex 'male': NWB knows M, F, O, U"),
        (
            '[input]\nspikes = "s"\nmarkers = "m"\nwait_s = 0.2\n[lsl]\nresolve_scope = "link"',
            (),
            "stream 's' was not found in 0.2 s",
        ),
    ],
)
def test_what_cannot_be_collected_is_refused(
    fails: Callable[..., str], tmp_path: Path, text: str, options: tuple[object, ...], why: str
) -> None:
    rig = tmp_path / "rig.toml"
    rig.write_text(f'rig = "r"\n{text}\n')
    assert why in fails("collect", rig, "--out", tmp_path / "day", *options)


def test_a_base_has_to_fit(
    fails: Callable[..., str], make_rig: Callable[..., Path], rig_home: Path, tmp_path: Path
) -> None:  # fmt: skip
    rig, base = make_rig(input='spikes = "s"\nmarkers = "m"\nwait_s = 0.2'), rig_home / "tiny.safetensors"
    options = (rig, "--out", tmp_path / "day", "--from", base)
    assert "the base decodes wheel_speed, and no stream is named for it" in fails("collect", *options)
    assert "--bin-ms 10: the base was trained on bins of 20 ms" in fails("collect", *options, "--bin-ms", 10)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        ({"units": None}, "sends no unit table, so its units have no identity"),
        ({"unit_map_sha256": "0" * 64}, "sends a unit table that does not give its unit_map_sha256"),
        ({"source": "replay"}, "is a replay; add --allow-replay"),
    ],
)
def test_a_stream_that_does_not_say_who_its_units_are_is_refused(
    fails: Callable[..., str], make_outlet: Callable[..., pylsl.StreamOutlet], make_rig: Callable[..., Path],
    session: Session, stream_name: str, tmp_path: Path, edit: dict[str, str | None], why: str,
) -> None:  # fmt: skip
    outlet = make_outlet(stream_name, session.units, edit=edit)
    markers = pylsl.StreamOutlet(pylsl.StreamInfo(f"{stream_name}-m", "Markers", 1, 0, "string", f"{stream_name}-m"))
    rig = make_rig(input=f'spikes = "{stream_name}"\nmarkers = "{stream_name}-m"\nwait_s = 5.0')
    assert why in fails("collect", rig, "--out", tmp_path / "day")
    del outlet, markers


def test_a_behaviour_that_is_not_there_is_one_sentence(
    fails: Callable[..., str], make_outlet: Callable[..., pylsl.StreamOutlet], make_rig: Callable[..., Path],
    session: Session, stream_name: str, tmp_path: Path,
) -> None:  # fmt: skip
    outlet = make_outlet(stream_name, session.units)
    streams = f'spikes = "{stream_name}"\nwait_s = 2.0\nbehaviours = {{wheel_speed = "{stream_name}-gone"}}'
    rig = make_rig(input=streams, lsl='resolve_scope = "link"')  # else it is also looked for elsewhere
    said = fails("collect", rig, "--out", tmp_path / "day")
    assert f"stream '{stream_name}-gone' was not found in 2 s" in said
    del outlet


def test_other_units_do_not_go_on_with_a_folder(
    fails: Callable[..., str], make_outlet: Callable[..., pylsl.StreamOutlet], make_rig: Callable[..., Path],
    session: Session, stream_name: str, tmp_path: Path,
) -> None:  # fmt: skip
    """Nothing is added to it."""
    (tmp_path / "day").mkdir()
    streams = f'spikes = "{stream_name}"\nmarkers = "{stream_name}-m"\nwait_s = 5.0'
    rig = make_rig(input=streams)
    config = msgspec.to_builtins(rigs.load(rig, rigs.FirstDay))
    log = collected(first(session, 1), specs=(), rig="test", config=config)
    (tmp_path / "day" / "run-001.blocks").write_bytes(block_file.MAGIC + block_file.packed(log))
    units = session.units
    outlet = make_outlet(stream_name, UnitTable(units.ids[::-1], units.region[::-1], units.depth_um[::-1]))
    markers = pylsl.StreamOutlet(pylsl.StreamInfo(f"{stream_name}-m", "Markers", 1, 0, "string", f"{stream_name}-m"))
    said = fails("collect", rig, "--out", tmp_path / "day")
    assert "holds a collection of units" in said
    assert said.endswith("name another with --out")
    del outlet, markers
