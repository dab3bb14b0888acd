"""`neds-rt run` as a user starts it: real processes, real LSL, real ZeroMQ."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pylsl
import pytest

from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.io import load, nwb
from runtime.cli.demo import demo
from runtime.cli.export import of_log
from runtime.cli.main import main
from runtime.client import Subscriber
from runtime.io import log_file
from runtime.scoring import report
from runtime.wire import Flag

NEDS_RT = Path(sys.executable).with_name("neds-rt")
START_S = 120.0  # a busy machine is not a failure
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MODES = ("recorded", "absent")


@dataclass
class Run:
    """A command of ours in a process of its own, its output in files."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    @property
    def summary(self) -> dict[str, Any]:
        """The last line of stdout."""
        return msgspec.json.decode(self.out.read_text().splitlines()[-1])

    def until(self, what: str, pattern: str, path: Path) -> re.Match[str]:
        """Wait for a text in one of its files."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            found = re.search(pattern, path.read_text())
            if found:
                return found
            assert self.process.poll() is None, f"ended before {what}: {self.err.read_text()}"
            time.sleep(0.02)
        pytest.fail(f"{what} never came: {self.err.read_text()}")

    def address(self) -> str:
        """Where it publishes estimates."""
        return self.until("its address", r"decode and status on (tcp://\S+),", self.err)[1]

    def ends(self, code: int) -> None:
        """Wait for its end."""
        assert self.process.wait(START_S) == code, self.err.read_text()

    def relatives(self) -> list[psutil.Process]:
        """Its children, and whatever carries its name to LSL (rig name and process id)."""
        name = f"demo-{self.process.pid}"
        found = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        for process in psutil.process_iter(["cmdline"]):
            if any(part == name for part in process.info["cmdline"] or []) and process not in found:
                found.append(process)
        return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def player(self) -> psutil.Process:
        """Its player, as soon as it has started it."""
        deadline = time.monotonic() + START_S
        while not (found := self._players()) and time.monotonic() < deadline:
            time.sleep(0.05)
        (player,) = found
        return player

    def _players(self) -> list[psutil.Process]:
        """Of its relatives; others keep cores awake."""
        return [one for one in self.relatives() if "play" in one.cmdline()]

    def stop(self) -> None:
        """End it and its children, however the test went."""
        for process in self.relatives():
            process.kill()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(START_S)


Start = Callable[..., Run]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starter of commands; what is still running at the end is ended."""
    home = tmp_path_factory.mktemp("runs")
    started: list[Run] = []

    def begin(*arguments: object, cwd: Path | None = None) -> Run:
        out, err = home / f"{len(started)}.out", home / f"{len(started)}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen([NEDS_RT, *map(str, arguments)], stdout=stdout, stderr=stderr, cwd=cwd)
        started.append(Run(process, out, err))
        return started[-1]

    yield begin
    for run in started:
        run.stop()


# --- the demo ---


@dataclass(frozen=True)
class Logged:
    """A finished run of the demo and the tokens it logged."""

    summary: dict[str, Any]
    log: dict[str, np.ndarray]
    path: Path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the logs."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def begun(start: Start, home: Path) -> dict[str, Run]:
    """At once, to save time: the demo for 5 s with and without its behaviour streams, and for 4 s as `lost`.

    lost: its log is full after 1 s, and its folder goes while it decodes.
    """
    options = ["--seconds", 5, "--headless", "--json", "--phase", "grid"]
    found = {m: start("run", *options, "--behaviours", m, "--save-log", home / f"{m}.npz") for m in MODES}
    rig, logs = home / "rig.toml", home / "lost"
    logs.mkdir()
    text = (demo() / "rig.toml").read_text().replace('"ensemble.safetensors"', f'"{demo() / "ensemble.safetensors"}"')
    rig.write_text(text.replace('"session.npz"', f'"{demo() / "session.npz"}"\nlog_s = 1.0'))
    lost = start("run", rig, "--play", "--split", "test", "--seconds", 4, "--headless", "--save-log", logs / "run.npz")
    lost.until("that its log is full", r"the log is full: it holds the first 1 s; .* raise score\.log_s", lost.err)
    logs.rmdir()
    return {**found, "lost": lost}


@pytest.fixture(scope="module")
def runs(begun: dict[str, Run], home: Path) -> dict[str, Logged]:
    """The demo with each content of the behaviour streams."""
    found = {}
    for mode in MODES:
        begun[mode].ends(0)
        with np.load(home / f"{mode}.npz") as log:
            found[mode] = Logged(begun[mode].summary, {name: log[name] for name in log.files}, home / f"{mode}.npz")
    return found


def reports(code: int, *arguments: object) -> None:
    """`neds-rt report` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["neds-rt", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert (ended.value.code or 0) == code


def test_the_demo_prints_its_summary_as_the_last_line(runs: dict[str, Logged]) -> None:
    found = runs["recorded"].summary
    assert set(found) >= {
        "outputs", "streamed_vs_offline_max_abs", "counts_vs_recording_diff", "edge_to_pub_ms", "wait_ms", "infer_ms",
        "send_ms", "age_ms", "source_delay_ms", "tokens", "deadline_misses", "miss_causes", "spikes", "lost_upstream",
        "late_markers", "stopped_by", "source", "device", "engine", "decoder", "model", "model_sha", "versions",
    }  # fmt: skip
    assert (found["stopped_by"], found["source"], found["decoder"]) == ("seconds", "replay", "recommended")
    assert {"wheel_speed", "whisker_motion_energy", "choice"} <= set(found["outputs"])
    assert set(found["edge_to_pub_ms"]) == {"p50", "p90", "p99", "p99.9", "max"}
    for percentile, whole in found["edge_to_pub_ms"].items():  # a part of every token's way is no longer than the way
        assert all(found[part][percentile] <= whole * 1.001 for part in ("wait_ms", "send_ms"))
    assert sum(found["miss_causes"].values()) == found["deadline_misses"]


def test_what_was_streamed_is_what_offline_gives(runs: dict[str, Logged]) -> None:
    """In z-scores: 1e-4 is far above float32 rounding and far below anything that a decoder could show."""
    for logged in runs.values():
        assert logged.summary["streamed_vs_offline_max_abs"] <= 1e-4


def test_both_laws_balance_to_the_last_spike_and_token(runs: dict[str, Logged]) -> None:
    for logged in runs.values():
        spikes, tokens = logged.summary["spikes"], dict(logged.summary["tokens"])
        scored = tokens.pop("scored")
        assert spikes["received"] == sum(n for name, n in spikes.items() if name != "received") > 0
        assert tokens["closed"] == sum(n for name, n in tokens.items() if name != "closed")
        assert tokens["published"] > 0
        assert scored <= tokens["closed"] - tokens["idle"]
        assert (spikes["out_of_range"], spikes["quarantined"], logged.summary["lost_upstream"]) == (0, 0, 0)
        assert len(logged.log["counts"]) <= tokens["closed"]


def test_the_same_summary_can_be_read_by_people(runs: dict[str, Logged]) -> None:
    words = "\n".join(report.lines(runs["recorded"].summary))
    assert words.startswith("REPLAY  recommended on ")
    for name in (
        "wheel_speed",
        "whisker_motion_energy",
        "choice",
        "bin edge to published",
        "deadline misses",
        "ended by",
    ):
        assert name in words
    assert "not scored: no measured behaviour" in "\n".join(report.lines(runs["absent"].summary))


def test_report_prints_the_same_summary_from_the_saved_log(
    runs: dict[str, Logged], capsys: pytest.CaptureFixture[str]
) -> None:
    reports(0, runs["recorded"].path, "--json")
    assert capsys.readouterr().out.splitlines()[-1] == msgspec.json.encode(runs["recorded"].summary).decode()


def test_report_wants_the_checkpoint_that_decoded_the_run(
    runs: dict[str, Logged], capsys: pytest.CaptureFixture[str]
) -> None:
    reports(2, runs["recorded"].path, "--checkpoint", demo() / "neds-seed1.safetensors")
    assert "give that one with --checkpoint" in capsys.readouterr().err


def test_a_run_is_exported_and_imported_to_the_last_spike_and_bit(runs: dict[str, Logged], tmp_path: Path) -> None:
    """Through NWB. The log itself knows its units and when it was."""
    taken = of_log.taken(log_file.load(runs["recorded"].path), Path("run1.npz"), None, markers=True)
    assert taken.start_ns is not None
    assert 0 <= time.time() - taken.start_ns * 1e-9 < 3600
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pynwb's of other libraries
        nwb.save(taken.session, tmp_path / "run1.nwb", nwb.Origin(taken.start_ns), taken.run)
        found = load(tmp_path / "run1.nwb")
    log, demo_units = runs["recorded"].log, session_file.load(demo() / "session.npz").units
    np.testing.assert_array_equal(found.counts, log["counts"])
    assert found.counts.sum() > 1000
    assert found.units.sha256 == demo_units.sha256
    names = [spec.name for spec in found.specs if spec.kind == "continuous"]
    assert names == ["wheel_speed", "whisker_motion_energy"]
    received = log_file.load(runs["recorded"].path).behaviours
    for name in names:
        want = received[name].at(log["t_end_ns"], found.bin_ns).astype(np.float32)
        np.testing.assert_array_equal(found.values[name], want)
        assert np.isfinite(want).sum() > 50


def test_no_label_that_was_inferred_is_scored(runs: dict[str, Logged]) -> None:
    choice = runs["recorded"].summary["outputs"]["choice"]
    assert choice["balanced_accuracy"] is None
    assert "inferred" in choice["null_reason"]


def test_behaviour_that_is_absent_is_not_scored(runs: dict[str, Logged]) -> None:
    assert runs["absent"].summary["outputs"]["wheel_speed"]["r2"] is None
    assert runs["absent"].summary["outputs"]["wheel_speed"]["null_reason"] == "no measured behaviour was received"
    assert runs["recorded"].summary["outputs"]["wheel_speed"]["r2"] is not None


def decoded(log: dict[str, np.ndarray]) -> dict[tuple[int, int], tuple[bytes, bytes]]:
    """(segment, clock) -> everything binned since the segment began, and the values, as bytes."""
    found: dict[tuple[int, int], tuple[bytes, bytes]] = {}
    seen = b""
    for t in range(len(log["counts"])):
        if log["idle"][t]:
            continue
        own = log["counts"][t].tobytes() + log["valid"][t].tobytes()
        seen = own if log["reset"][t] else seen + own
        found[int(log["segment"][t]), int(log["clock"][t])] = (seen, log["values"][t].tobytes())
    return found


def test_the_decoder_knows_nothing_of_the_measured_behaviour(runs: dict[str, Logged]) -> None:
    """Bit for bit the same outputs from the same spikes, whether the behaviour streams are there or not."""
    ours, theirs = decoded(runs["recorded"].log), decoded(runs["absent"].log)
    same = [key for key in ours if key in theirs and ours[key][0] == theirs[key][0]]
    assert len(same) >= 50
    assert [key for key in same if ours[key][1] != theirs[key][1]] == []
    assert len({ours[key][1] for key in same}) > 40  # and they are not all one


def test_a_log_that_is_full_or_lost_costs_no_summary(begun: dict[str, Run]) -> None:
    """Full is said at once; where the log cannot be written the summary is whole, and the exit code 2."""
    run = begun["lost"]
    run.ends(2)
    words = run.out.read_text()
    assert re.search(r"^log holds the first 1 s of \d+\.?\d* s; scores cover that part", words, re.MULTILINE)
    assert "ended by seconds" in words.splitlines()[-1]
    assert re.search(r"--save-log \S+run\.npz: not written \(No such file or directory\)", run.err.read_text())


# --- a replay without leave, and signals ---


@pytest.fixture(scope="module")
def replay(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rig on free ports whose streams `neds-rt play` offers, in the LSL session of replays."""
    prefix = f"play-{uuid.uuid4().hex[:8]}"
    player = start("play", demo() / "session.npz", "--prefix", prefix, "--split", "test", "--wait", 600)
    player.until("its streams", "waiting for a consumer", player.out)
    rig = tmp_path_factory.mktemp("rig") / "rig.toml"
    rig.write_text(
        f'rig = "test"\ncheckpoint = "{demo() / "neds.safetensors"}"\n'
        f'[input]\nspikes = "{prefix}-spikes"\nmarkers = "{prefix}-markers"\nwait_s = 30.0\n'
        "[output]\ndecode_port = 0\nlatest_port = 0\n"
    )
    return rig


@pytest.fixture(scope="module")
def refused(start: Start, replay: Path) -> list[Run]:
    """Runs of that rig without --allow-replay: in the session of animals, and in the session of replays."""
    hidden, seen = replay.with_name("hidden.toml"), replay.with_name("seen.toml")
    hidden.write_text(replay.read_text().replace("wait_s = 30.0", "wait_s = 1.0"))
    seen.write_text(replay.read_text() + '[lsl]\nsession_id = "neds-rt-replay"\n')
    return [start("run", rig, "--headless") for rig in (hidden, seen)]


@pytest.fixture(scope="module")
def allowed(start: Start, replay: Path, refused: list[Run]) -> Run:
    """A run of that rig with --allow-replay."""
    return start("run", replay, "--headless", "--allow-replay", "--seconds", 6, "--json")


@pytest.fixture(scope="module")
def endless(start: Start, allowed: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A demo that runs until told to stop, in a folder of scripts called like modules that the player imports.

    It, `refused` and `allowed` start at once, to save time.
    """
    lab = tmp_path_factory.mktemp("lab")
    for name in ("random", "queue", "numpy", "pylsl", "kernels"):
        (lab / f"{name}.py").write_text("print('my random walk'); raise SystemExit(0)\n")
    return start("run", "--headless", "--json", cwd=lab)


def test_a_signal_ends_a_run_cleanly(endless: Run) -> None:
    """END to subscribers, the summary, exit code 0, and no child left; cli/test_processes.py has the other signals."""
    run = endless
    with Subscriber(run.address(), max_age_ms=1e9) as link:
        deadline = time.monotonic() + START_S
        message = None
        while (message is None or message.state != "RUNNING") and time.monotonic() < deadline:
            message = link.receive(100.0)
            assert run.process.poll() is None, run.err.read_text()
        assert message is not None
        assert message.outputs["wheel_speed"].value is not None
        player = run.player()

        run.process.send_signal(signal.SIGTERM)
        run.ends(0)

        assert not player.is_running() or player.status() == psutil.STATUS_ZOMBIE
        assert run.relatives() == []
        link.receive(0)
        assert link.ended
        status = link.status()
    assert status is not None
    assert status.flag_names["END"] == Flag.END
    assert run.summary["stopped_by"] == "signal"
    assert run.summary["tokens"]["published"] > 0
    assert "Traceback" not in run.err.read_text()


def test_a_signal_as_soon_as_there_is_a_player_ends_both(start: Start) -> None:
    """Before anything has been imported."""
    run = start("run", "--headless", "--json")
    player = run.player()

    run.process.send_signal(signal.SIGTERM)
    code = run.process.wait(START_S)

    assert code in (0, 128 + signal.SIGTERM)  # 0 where the loop had begun
    assert not player.is_running() or player.status() == psutil.STATUS_ZOMBIE
    assert run.relatives() == []
    assert "Traceback" not in run.err.read_text()


@pytest.mark.slow
def test_no_signal_of_the_start_up_is_lost(start: Start, rng: np.random.Generator) -> None:
    """At moments from the first line to the loop, each kind: an end, whatever was being imported or compiled."""
    runs = {number: start("run", "--headless", "--json", "--seconds", 60) for number in ENDING}
    for run in runs.values():
        run.address()
    begun = time.monotonic()
    for moment, (number, run) in zip(sorted(rng.uniform(0.0, 4.0, len(runs))), runs.items(), strict=True):
        time.sleep(max(0.0, begun + moment - time.monotonic()))
        run.process.send_signal(number)
    for number, run in runs.items():
        assert run.process.wait(START_S / 2) in (0, 128 + number)
        assert run.relatives() == []
        assert "Traceback" not in run.err.read_text()
        assert '"seconds"' not in run.out.read_text()


def test_a_player_whose_parent_was_killed_ends_by_itself(start: Start) -> None:
    run = start("run", "--headless", "--json")
    player = run.player()

    run.process.kill()
    run.process.wait(START_S)

    psutil.wait_procs([player], timeout=START_S / 2)  # half of what it would wait for a consumer
    assert run.relatives() == []


def test_a_replay_is_refused_unless_it_is_allowed(refused: list[Run]) -> None:
    """A rig that expects an animal does not see it, and says where it is; one that does see it says what it is."""
    for run in refused:
        run.ends(2)
        assert run.out.read_text() == ""
    hidden, visible = (run.err.read_text().splitlines()[-1] for run in refused)
    assert hidden.endswith("-spikes' is there as a replay or a made-up stream; add --allow-replay to take it")
    assert "was not found" not in hidden
    assert visible.startswith("neds-rt: stream 'play-")
    assert visible.endswith("-spikes' is a replay; add --allow-replay to decode it")


def test_a_replay_that_is_allowed_is_decoded(allowed: Run) -> None:
    allowed.ends(0)
    assert allowed.summary["source"] == "replay"
    assert allowed.summary["tokens"]["published"] > 0
    assert allowed.summary["streamed_vs_offline_max_abs"] <= 1e-4
    assert allowed.summary["counts_vs_recording_diff"] is None  # the rig names no recording


def test_a_sender_that_comes_back_with_other_units_ends_the_run(
    start: Start,
    lsl_session: str,
    make_outlet: Callable[..., pylsl.StreamOutlet],
    make_rig: Callable[..., Path],
    session: Session,
    stream_name: str,
) -> None:
    """LSL connects again by name alone; decoding other units with this checkpoint would look like an estimate."""
    others = replace(session.units, ids=session.units.ids + 100)
    outlet = make_outlet(stream_name, session.units)
    link = f'session_id = "{lsl_session}"\nresolve_scope = "machine"'
    run = start("run", make_rig(input=f'spikes = "{stream_name}"\nwait_s = 30', lsl=link), "--headless", "--json")

    def send(until: Callable[[], bool]) -> None:
        sent, deadline = 0, time.monotonic() + START_S
        while not until() and time.monotonic() < deadline:
            outlet.push_chunk([[sent % 12], [-2 - sent]], pylsl.local_clock())  # pyright: ignore[reportArgumentType]
            sent += 1
            time.sleep(0.01)

    with Subscriber(run.address(), max_age_ms=1e9) as link_out:
        messages = (link_out.receive(0.0) for _ in iter(int, 1))
        send(lambda: (found := next(messages)) is not None and found.state == "RUNNING")
    del outlet
    outlet = make_outlet(stream_name, others)
    send(lambda: run.process.poll() is not None)

    run.ends(2)
    assert "has another unit map" in run.err.read_text().splitlines()[-1]
    assert run.summary["stopped_by"] == "stream_changed"
