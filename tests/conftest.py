"""What many tests need: a recording with a known relation, a NEDS whose outputs vary, a checkpoint of both."""

from __future__ import annotations

import os
import re
import resource
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from neds_core import checkpoint
from neds_core.checkpoint import Checkpoint
from neds_core.config import FitConfig, LinearConfig, ModelConfig, TrainConfig
from neds_core.data import filters, scalers, session as sessions, session_file
from neds_core.data.session import BehaviourSpec, Session, UnitTable
from neds_core.linear import baseline
from neds_core.linear.linear import Bank
from neds_core.model.embed import UnitTokenizer
from neds_core.model.model import NEDS

# A busy machine is not a failure. Every run draws others: what one misses the next may find.
settings.register_profile("neds-rt", deadline=None, max_examples=50)
settings.load_profile("neds-rt")

if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup; what the tests start would ignore it as well

# Paths below this folder that run one after the other, ahead of all others (Makefile): what they assert depends on when
# something comes, or they send signals to their own process. Each process has an LSL session and free ports of its own.
SERIAL = (
    "runtime/cli/test_check.py", "runtime/cli/test_init.py", "runtime/cli/test_processes.py", "runtime/io/test_lsl.py",
    "runtime/io/test_lsl_inlets.py", "runtime/io/test_lsl_source.py", "runtime/io/test_publish.py",
    "runtime/io/test_system.py",
    "runtime/live/test_input_health.py", "runtime/live/test_run.py", "runtime/views/test_terminal.py",
    "runtime/test_client.py", "runtime/test_wire_doc.py",
)  # fmt: skip
SLOW_TIMEOUT_S = 600.0  # of a test marked slow; pyproject.toml has that of the others


def is_serial(path: Path) -> bool:
    """Whether SERIAL names this file or its folder."""
    return any(path.is_relative_to(Path(__file__).parent / name) for name in SERIAL)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files without a test that -m could select: to import them all takes each process 10 s."""
    path, wanted = collection_path, config.option.markexpr
    if not path.match("test_*.py"):
        return None
    text, alone = path.read_text(encoding="utf-8"), is_serial(path)
    has = {"serial": alone or "mark.serial" in text, "slow": "mark.slow" in text}
    lacks = any(re.search(rf"(?<!not )\b{name}\b", wanted) and not there for name, there in has.items())
    return lacks or (alone and "not serial" in wanted) or None


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as serial what must not share the machine with other tests, and give slow tests more time."""
    for item in items:
        if is_serial(item.path):
            item.add_marker(pytest.mark.serial)
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))


BIN_NS = 20_000_000
TRIALS, TRIAL_BINS = 60, 25
SPECS = (
    BehaviourSpec("wheel_speed", "continuous", "rad/s", "unsigned"),
    BehaviourSpec("choice", "class", classes=("left", "right")),
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums of one thread come in one order."""
    torch.set_num_threads(1)


def unit_table(n: int) -> UnitTable:
    """n units with gaps in their ids, two regions, and some unknown depths."""
    depth = np.where(np.arange(n) % 3 == 0, np.nan, np.arange(n) * 20.0)
    return UnitTable(np.arange(n) * 7 + 3, np.array(["ca1", "vis"])[np.arange(n) % 2], depth.astype(np.float32))


def planted(seed: int = 0) -> Session:
    """60 trials of 25 bins, 12 units at about 30 Hz that follow wheel_speed and choice; the last is all but silent.

    Every 10th trial has no choice label, bins 7 of every 6th trial have no wheel, and bin 3 of every 15th is faulty.
    """
    rng = np.random.default_rng(seed)
    n_bins = TRIALS * TRIAL_BINS
    latent = np.zeros(n_bins)
    for t in range(1, n_bins):
        latent[t] = 0.9 * latent[t - 1] + np.sqrt(1 - 0.9**2) * rng.normal()
    choice = rng.integers(0, 2, TRIALS).repeat(TRIAL_BINS)
    tuning = rng.normal(0, 0.7, (2, 12))
    log_rate = np.log(0.6) + latent[:, None] * tuning[0] + (choice[:, None] - 0.5) * 2 * tuning[1]
    counts = rng.poisson(np.exp(log_rate.clip(max=2.5))).astype(np.uint8)
    counts[:, 11] = 0
    counts[5, 11] = 1
    trial, phase = np.divmod(np.arange(n_bins), TRIAL_BINS)
    wheel = np.where((trial % 6 == 1) & (phase == 7), np.nan, 2.0 + 3.0 * latent).astype(np.float32)
    edges = np.arange(TRIALS + 1, dtype=np.int64) * TRIAL_BINS
    return Session(
        name="planted",
        bin_ns=BIN_NS,
        units=unit_table(12),
        counts=counts,
        valid=~((trial % 15 == 2) & (phase == 3)),
        specs=SPECS,
        values={"wheel_speed": wheel, "choice": np.where(trial % 10 == 4, -1, choice)},
        segments=np.stack([edges[:-1], edges[1:]], axis=1),
        segment_ids=np.arange(TRIALS, dtype=np.int64) + 100,
        licence="CC0-1.0",
        citation="made up",
    )


def die_within(write: Callable[[], object], n_bytes: int) -> None:
    """Write in a child that the kernel ends within the write, as soon as one of its files has n_bytes.

    By SIGXFSZ, which it then sends unless a process ignores it: nothing more runs, as with SIGKILL.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: the child does this alone
        child = os.fork()
    if not child:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            write()
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGXFSZ


@pytest.fixture(scope="session")
def killed_within() -> Callable[[Callable[[], object], int], None]:
    """See `die_within`."""
    return die_within


@pytest.fixture(scope="session")
def session() -> Session:
    """See `planted`."""
    return planted()


@pytest.fixture(scope="session")
def unbroken() -> Session:
    """One segment of 400 bins, 5 units with spike times, and one trace."""
    rng = np.random.default_rng(1)
    n_bins, n_units = 400, 5
    t_ns = np.sort(rng.integers(0, n_bins * BIN_NS, 1500))
    unit = rng.integers(0, n_units, len(t_ns)).astype(np.int32)
    return Session(
        name="unbroken",
        bin_ns=BIN_NS,
        units=unit_table(n_units),
        counts=sessions.bin_events(t_ns, unit, BIN_NS, n_bins, n_units),
        valid=np.ones(n_bins, bool),
        specs=SPECS[:1],
        values={"wheel_speed": rng.normal(size=n_bins).astype(np.float32)},
        segments=np.array([[0, n_bins]], np.int64),
        segment_ids=np.zeros(1, np.int64),
        events=(t_ns, unit),
    )


@pytest.fixture(scope="session")
def tiny() -> TrainConfig:
    """A configuration that trains on the planted session within seconds."""
    return TrainConfig(
        recording="session.npz",
        outputs=("wheel_speed", "choice"),
        model=ModelConfig(width=16, layers=2, heads=2, band=5, registers=1, unit_dropout=0.1),
        fit=FitConfig(steps=80, batch=16, window_bins=20, learning_rate=1e-2, check_every=10, threads=1),
        linear=LinearConfig(lags=(3,), filter_taus_ms=((40.0, 200.0),), penalties=(10.0, 1e3), folds=3),
    )


TRAINING = """recording = "session.npz"
outputs = {outputs}
{more}
[model]
width = 16
layers = 1
heads = 2
band = 5
[fit]
steps = {steps}
check_every = 3
save_every = 5
batch = 4
window_bins = 20
threads = 1
[linear]
lags = [1]
filter_taus_ms = [[40.0]]
penalties = [100.0]
folds = 3
"""


@pytest.fixture
def prepared(session: Session, tmp_path: Path) -> Callable[..., Path]:
    """Writes a recording (the planted one) and a training of it that takes a second; returns the training's file."""

    def write(
        one: Session = session, outputs: tuple[str, ...] = ("wheel_speed", "choice"), steps: int = 6, more: str = ""
    ) -> Path:
        session_file.save(one, tmp_path / "session.npz")
        path = tmp_path / "train.toml"
        path.write_text(TRAINING.format(outputs=list(outputs), steps=steps, more=more), encoding="utf-8")
        return path

    return write


def take_filters(model: NEDS, session: int, mean: np.ndarray | np.float32, gain: np.ndarray | np.float32) -> None:
    """Filters of 20 ms bins into a model that has some."""
    if (taus_ms := model.config.filter_taus_ms) and isinstance(tokenizer := model.tokenizer(session), UnitTokenizer):
        shape = tuple(tokenizer.filter_mean.shape)
        each = (np.broadcast_to(one, shape).copy() for one in (mean, gain))
        tokenizer.adopt(filters.Filters(filters.shares(taus_ms, BIN_NS), *each))


def random_neds(
    config: ModelConfig, n_units: tuple[int, ...] = (6,), specs: tuple[BehaviourSpec, ...] = SPECS, seed: int = 0
) -> NEDS:
    """A NEDS in eval mode with weights far from their small start: attention is sharp and outputs vary by about 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # biases keep what torch gave them: which test came before must not matter
        model = NEDS(config, n_units, specs)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=rng)
            if parameter.ndim == 2:
                parameter.copy_(1.5 * noise * parameter.shape[1] ** -0.5)
            else:
                parameter.add_(0.3 * noise)
        for session in range(len(n_units)):
            take_filters(model, session, np.float32(0.2), np.float32(3.0))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def make_neds() -> Callable[..., NEDS]:
    """See `random_neds`."""
    return random_neds


@pytest.fixture(scope="session")
def make_checkpoint(session: Session, tiny: TrainConfig) -> Callable[..., Checkpoint]:
    """Builder of a checkpoint of the planted session: random NEDS, fitted linear decoders, a blend of both."""

    train = sessions.split(session).train

    def make(
        layers: int = 2, band: int = 5, clock_bins: int = 0, seed: int = 0, filter_taus_ms: tuple[float, ...] = ()
    ) -> Checkpoint:
        scale = scalers.fit(train, SPECS, tiny.min_rate_hz, filter_taus_ms)
        size = ModelConfig(
            width=16, layers=layers, heads=2, band=band, registers=1, clock_bins=clock_bins,
            filter_taus_ms=filter_taus_ms,
        )  # fmt: skip
        model = random_neds(size, (len(session.units),), seed=seed)
        model.units[0].mean.copy_(torch.from_numpy(scale.spike_mean))
        model.units[0].gain.copy_(torch.from_numpy(scale.spike_gain))
        if scale.filters is not None:
            take_filters(model, 0, scale.filters.mean, scale.filters.gain)
        banks = Bank(taus_ms=(40.0, 200.0), clock_bins=clock_bins), Bank(lags=3, root=True, clock_bins=clock_bins)
        linear = {s.name: baseline.refit(train, s, scale, bank, 100.0) for s, bank in zip(SPECS, banks, strict=True)}
        header = checkpoint.Header(
            format=checkpoint.FORMAT,
            name=f"tiny-{seed}" if seed else "tiny",
            bin_ns=session.bin_ns,
            config=TrainConfig(tiny.recording, tiny.outputs, model=size),
            specs=SPECS,
            unit_map_sha=session.units.sha256,
            mean=scale.mean,
            sd=scale.sd,
            prior={k: v.tolist() for k, v in scale.prior.items()},
            linear={k: checkpoint.LinearHeader(v.bank, v.penalty) for k, v in linear.items()},
            blend={"wheel_speed": 0.35, "choice": 0.8},
            record=checkpoint.Record("2025-01-01T00:00:00Z", "planted", "0" * 64, 0, 42, 6, 1, 0.5, 1.0, {}),
        )
        return Checkpoint(header, model, session.units, scale, linear)

    return make
