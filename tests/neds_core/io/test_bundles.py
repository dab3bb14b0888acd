"""The recordings that ship are what their READMEs say, and what their converters make of the sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neds_core import checkpoint
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import DataError
from neds_core.io import bundles

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
STEINMETZ = ROOT / "examples" / "steinmetz2019" / "sessions"


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """Everything in a bundle, read once."""
    with np.load(path) as bundle:
        return dict(bundle)


def shipped(name: str) -> Session:
    """A recording under examples/: session.npz of a folder, or the file itself."""
    path = ROOT / "examples" / name
    return session_file.load(path if path.suffix else path / "session.npz")


@pytest.mark.parametrize(
    ("name", "shape", "n_segments", "outputs"),
    [
        (
            "ibl-dy016", (14_100, 449), 300,
            ["wheel_speed", "whisker_motion_energy", "pupil_diameter", "paw_speed", "choice"],
        ),
        ("steinmetz2019", (7_440, 788), 372, ["wheel_direction", "go", "stimulus_side"]),
        ("rat-linear-track", (48_000, 31), 1, ["position_x", "position_y"]),
        ("mouse-head-direction", (26_467, 15), 1, ["head_direction_cos", "head_direction_sin"]),
    ],
)  # fmt: skip
def test_shipped_recordings_have_their_shape(
    name: str, shape: tuple[int, int], n_segments: int, outputs: list[str]
) -> None:
    """20 ms bins, all valid, in segments of equal length that cover them; licence and citation are inside."""
    one = shipped(name)

    assert one.bin_ns == 20_000_000
    assert one.counts.shape == shape
    assert len(one.units) == shape[1]
    assert one.valid.all()
    assert [s.name for s in one.specs] == outputs
    edges = np.linspace(0, shape[0], n_segments + 1).astype(int)
    np.testing.assert_array_equal(one.segments, np.stack([edges[:-1], edges[1:]], 1))
    assert (np.diff(one.segment_ids) > 0).all()
    assert one.licence
    assert one.citation


def test_inferred_labels_say_so() -> None:
    """No score of the IBL choice is evidence; what the other mouse reported was measured."""
    inferred, measured = shipped("ibl-dy016").spec("choice"), shipped("steinmetz2019").spec("wheel_direction")

    assert inferred.labels == "inferred"
    assert "no score of them is evidence" in inferred.labels_note
    assert measured.labels == "measured"


@pytest.mark.parametrize(
    ("name", "n_bins", "shortest", "trials"),
    [
        ("bci-monkey-20131218", 4788, 12, [42, 42, 42, 41]),
        ("bci-monkey-20131218/session-block2.npz", 7446, 14, [41, 42, 42, 42]),
    ],
)
def test_the_monkeys_trials_are_of_one_target(name: str, n_bins: int, shortest: int, trials: list[int]) -> None:
    """45 ms bins in 167 trials of different length that cover the block; the target is all that can be decoded."""
    one = shipped(name)

    assert one.bin_ns == 45_000_000
    assert one.counts.shape == (n_bins, 87)
    assert one.valid.all()
    assert [s.name for s in one.specs] == ["target"]
    np.testing.assert_array_equal(one.segments[1:, 0], one.segments[:-1, 1])
    assert (one.segments[0, 0], one.segments[-1, 1]) == (0, n_bins)
    assert np.diff(one.segments).min() == shortest
    target = one.values["target"]
    assert all((target[a:b] == target[a]).all() for a, b in one.segments)
    assert np.bincount(target[one.segments[:, 0]]).tolist() == trials
    assert one.licence == "MIT"
    assert one.citation


def steps_of(path: Path, angle: list[float], frozen: list[int]) -> Path:
    """A bundle of one block with 3 units and these steps."""
    counts = np.arange(3 * len(angle), dtype=np.uint8).reshape(-1, 3)
    arrays = {"spikes": counts, "thetas": np.array(angle), "isFreezePeriod": np.array(frozen, np.uint8)}
    np.savez(path, **{f"block2_{key}": value for key, value in arrays.items()})  # pyright: ignore[reportArgumentType]
    return path


def test_a_monkeys_trial_begins_where_the_cursor_is_held(tmp_path: Path) -> None:
    """The angle there names the target, whatever it is later; steps before the first such place are of no trial."""
    frozen = [0, 1, 1, 0, 0, 1, 0, 1, 1]
    angle = [77.0, 270.0, 270.0, 281.5, 90.0, 0.0, 359.0, 89.99999, 90.0]

    one = bundles.bci_monkey(steps_of(tmp_path / "made-up.npz", angle, frozen), 2)

    assert one.segments.tolist() == [[1, 5], [5, 7], [7, 9]]
    assert one.spec("target").classes == ("plus_x", "minus_y", "minus_x", "plus_y")
    assert one.values["target"].tolist() == [-1, 3, 3, 3, 3, 0, 0, 1, 1]
    np.testing.assert_array_equal(one.counts, np.arange(27).reshape(9, 3))
    assert session_file.load(saved(one, tmp_path)).values["target"].tolist() == one.values["target"].tolist()


def saved(one: Session, folder: Path) -> Path:
    """Where it was written to."""
    session_file.save(one, folder / "session.npz")
    return folder / "session.npz"


def test_what_is_no_block_of_the_monkey_is_refused(tmp_path: Path) -> None:
    """Another block's number, and a start that points at none of the four targets."""
    path = steps_of(tmp_path / "made-up.npz", [0.0, 0.0, 45.0], [1, 0, 1])

    with pytest.raises(DataError, match=r"not 3; choose one of them"):
        bundles.bci_monkey(path, 3)
    with pytest.raises(DataError, match=r"starts at another angle"):
        bundles.bci_monkey(path, 2)


@pytest.mark.parametrize(
    ("recording", "name", "expected"),
    [
        ("ibl-dy016", "choice", {-1: 101, 0: 147, 1: 52}),
        ("steinmetz2019", "wheel_direction", {-1: 134, 0: 146, 1: 92}),
        ("steinmetz2019", "go", {0: 238, 1: 134}),
    ],
)
def test_labels_are_constant_in_their_trials(recording: str, name: str, expected: dict[int, int]) -> None:
    """As often as the READMEs say."""
    one = shipped(recording)
    label = one.values[name].reshape(len(one.segments), -1)

    assert (label == label[:, :1]).all()
    values, n = np.unique(label[:, 0], return_counts=True)
    assert dict(zip(values.tolist(), n.tolist(), strict=True)) == expected


def test_the_rat_is_tracked_from_bin_1292_on() -> None:
    """15,077 spikes with their times, and a position that is undefined until the tracker found the rat."""
    one = shipped("rat-linear-track")
    assert one.events is not None
    t_ns, unit = one.events

    assert len(t_ns) == len(unit) == one.counts.sum() == 15_077
    for axis in "xy":
        known = np.isfinite(one.values[f"position_{axis}"])
        np.testing.assert_array_equal(known, np.arange(48_000) >= 1292)


# Spikes of each unit between the first and the last tracked sample (670.6407 to 1199.9807 s), counted in the source.
HEAD_DIRECTION_SPIKES = [2709, 4461, 3652, 4068, 3949, 6062, 10622, 746, 1525, 294, 2423, 2615, 967, 423, 102]


def test_the_mouse_has_the_sources_spikes_and_turns_its_head() -> None:
    """44,618 spikes of 7 thalamic and 8 hippocampal units; cosine and sine of one angle, known in every bin."""
    one = shipped("mouse-head-direction")
    assert one.events is not None

    assert one.counts.sum(0).tolist() == HEAD_DIRECTION_SPIKES
    assert np.bincount(one.events[1]).tolist() == HEAD_DIRECTION_SPIKES
    assert one.units.region.tolist() == ["adn"] * 7 + ["ca1"] * 8
    assert [(s.group, s.angle) for s in one.specs] == [("head_direction", "cos"), ("head_direction", "sin")]
    cos, sin = (one.values[s.name] for s in one.specs)
    np.testing.assert_allclose(cos**2 + sin**2, 1.0, atol=1e-6)
    quarters = np.histogram(np.degrees(np.arctan2(sin, cos)), [-180, -90, 0, 90, 180])[0]
    assert quarters.sum() == 26_467
    assert quarters.min() > 3000


def of_ibl() -> Session:
    folder = DATA / "ibl-dy016"
    return bundles.ibl_dy016(
        folder / "ibl_dy016_trials000-299.npz", folder / "ibl_dy016_trials000-299_inferred_choice_prior.npz"
    )


def of_steinmetz() -> Session:
    return bundles.steinmetz2019(STEINMETZ / "session09_Hench_2017-06-16.npz")


def of_rat() -> Session:
    return bundles.rat_linear_track(DATA / "rat-hippocampus-tracks" / "linear-track.npz")


def of_mouse() -> Session:
    return bundles.mouse_head_direction(DATA / "mouse-head-direction" / "A2929-200711.npz")


MONKEY = DATA / "bci-monkey-20131218" / "bci_20131218.npz"


def of_monkey(block: int) -> Session:
    return bundles.bci_monkey(MONKEY, block)


SOURCES: dict[str, Callable[[], Session]] = {
    "ibl-dy016": of_ibl,
    "steinmetz2019": of_steinmetz,
    "rat-linear-track": of_rat,
    "mouse-head-direction": of_mouse,
    "bci-monkey-20131218": lambda: of_monkey(1),
    "bci-monkey-20131218/session-block2.npz": lambda: of_monkey(2),
    "bci-monkey-20131218/online-block1.npz": lambda: bundles.bci_monkey_online(MONKEY, 1),
    "bci-monkey-20131218/online-block2.npz": lambda: bundles.bci_monkey_online(MONKEY, 2),
}
with_sources = pytest.mark.skipif(not DATA.is_dir(), reason=f"the published bundles are not at {DATA}")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "steinmetz2019" else with_sources) for name in SOURCES]
)
def test_shipped_recordings_are_their_conversions(name: str) -> None:
    """Converted again, every array comes out the same."""
    ours, theirs = shipped(name), SOURCES[name]()

    for field in ("name", "bin_ns", "specs", "licence", "citation"):
        assert getattr(ours, field) == getattr(theirs, field)
    for field in ("counts", "valid", "segments", "segment_ids"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))
    for spec in ours.specs:
        np.testing.assert_array_equal(ours.values[spec.name], theirs.values[spec.name])
    assert ours.units.sha256 == theirs.units.sha256
    assert ours.moments.keys() == theirs.moments.keys()
    for moment, ms in ours.moments.items():
        np.testing.assert_array_equal(ms, theirs.moments[moment])
    assert ours.starts.keys() == theirs.starts.keys()
    for name, values in ours.starts.items():
        np.testing.assert_array_equal(values, theirs.starts[name])


@with_sources
@pytest.mark.parametrize("block", [1, 2])
def test_the_shipped_online_decoders_are_the_sources(block: int) -> None:
    """Their matrices as recorded, of the very units that the recording has."""
    made = checkpoint.load(ROOT / "examples" / "bci-monkey-20131218" / f"online-decoder-block{block}.safetensors")
    source, space = arrays_of(MONKEY), made.state_space
    assert space is not None
    assert made.header.brought is not None
    assert made.header.brought.licence == "MIT"
    for key, matrix in (("M1", space.a), ("M2", space.b), ("M0", space.offset)):
        np.testing.assert_array_equal(matrix, np.reshape(source[f"block{block}_nDecoder_{key}"], matrix.shape))
    assert made.units.sha256 == shipped(f"bci-monkey-20131218/online-block{block}.npz").units.sha256


def test_a_run_of_steps_ends_where_the_next_goes_on_from_elsewhere(tmp_path: Path) -> None:
    """Each begins with the velocity that its first step goes on from; a bin has the next step's velocity."""
    path = steps_of(tmp_path / "made-up.npz", [0.0] * 6, [1, 1, 0, 0, 1, 0])
    now = np.array([[1.0, 0], [2, 0], [3, 0], [9, 9], [5, 0], [6, 0]])
    after = np.array([[2.0, 0], [3, 0], [4, 0], [8, 8], [6, 0], [7, 0]])
    np.savez(path, **arrays_of(path), block2_vel=now, block2_velNext=after)  # pyright: ignore[reportArgumentType]

    one = bundles.bci_monkey_online(path, 2)

    assert one.segments.tolist() == [[0, 3], [3, 4], [4, 6]]
    assert one.starts["cursor_vel_x"].tolist() == [1.0, 9.0, 5.0]
    assert one.starts["cursor_vel_y"].tolist() == [0.0, 9.0, 0.0]
    assert one.values["cursor_vel_x"].tolist() == [2.0, 3.0, 4.0, 8.0, 6.0, 7.0]
    np.testing.assert_array_equal(one.moments["cursor_freed"], [90.0, np.nan, 45.0])


@with_sources
def test_the_ibl_conversion_keeps_bins_2_to_48() -> None:
    """Trial by trial against the source: counts, traces, regions and labels."""
    one = shipped("ibl-dy016")
    source = arrays_of(DATA / "ibl-dy016" / "ibl_dy016_trials000-299.npz")
    labels = arrays_of(DATA / "ibl-dy016" / "ibl_dy016_trials000-299_inferred_choice_prior.npz")

    for trial, (start, stop) in enumerate(one.segments):
        np.testing.assert_array_equal(one.counts[start:stop].T, source["counts"][trial][:, 2:49])
        assert one.values["choice"][start] == labels["choice"][trial]
        for spec in one.specs[:4]:
            np.testing.assert_array_equal(
                one.values[spec.name][start:stop], source[spec.name][trial, 2:49].astype("f4")
            )
    assert one.units.region.tolist() == source["unit_region"].tolist()
    assert one.segment_ids.tolist() == source["trial_index"].tolist() == labels["trial_index"].tolist()


def test_the_steinmetz_conversion_sums_pairs_of_bins() -> None:
    """And names the mouse's report: 1 left, -1 right, 0 no-go."""
    one = shipped("steinmetz2019")
    source = arrays_of(STEINMETZ / "session09_Hench_2017-06-16.npz")
    report = {1: (0, 0), -1: (1, 0), 0: (-1, 1)}  # wheel direction and go

    fine = source["counts"]
    for trial, (start, stop) in enumerate(one.segments):
        np.testing.assert_array_equal(one.counts[start:stop].T, fine[trial, :, ::2] + fine[trial, :, 1::2])
        told = one.values["wheel_direction"][start], one.values["go"][start]
        assert told == report[int(source["response_type"][trial])]
    assert (one.spec("wheel_direction").classes, one.spec("go").classes) == (("left", "right"), ("go", "no_go"))
    assert one.units.region.tolist() == source["brain_area"].tolist()


def test_steinmetz_sessions_are_named_by_mouse_and_date() -> None:
    """17 files; the sides are those of the contrasts."""
    paths = sorted(STEINMETZ.glob("*.npz"))
    found = {path: bundles.steinmetz2019(path) for path in (paths[0], paths[8])}

    assert len(paths) == 17
    assert [one.name for one in found.values()] == ["steinmetz2019-Cori-2016-12-14", "steinmetz2019-Hench-2017-06-16"]
    for path, one in found.items():
        session_file.check(one, one.name)
        source = arrays_of(path)
        side = one.values["stimulus_side"][one.segments[:, 0]]
        difference = source["contrast_left"] - source["contrast_right"]
        np.testing.assert_array_equal(np.select([side == 0, side == 1], [1, -1]), np.sign(difference))


@with_sources
def test_the_rat_conversion_keeps_times_and_takes_the_last_position() -> None:
    """Each unit's spike times to half a nanosecond; position is the last sample at or before the bin's right edge."""
    one = shipped("rat-linear-track")
    source = arrays_of(DATA / "rat-hippocampus-tracks" / "linear-track.npz")
    assert one.events is not None
    t_ns, unit = one.events
    origin_s = source["pos_clock_30khz"][0] / 30_000
    index = source["spike_times_index"]

    for u in range(31):
        times = np.sort(source["spike_times_s"][index[u] : index[u + 1]] - origin_s) * 1e9
        times = times[(times > -0.5) & (times < 960e9 - 0.5)]
        # 1 ns: rounding to whole nanoseconds, and float64 seconds of some thousands
        np.testing.assert_allclose(t_ns[unit == u], times, atol=1.0, rtol=0)
    clock_ticks = source["pos_clock_30khz"].astype(np.int64) - int(source["pos_clock_30khz"][0])
    for b in (1292, 5000, 20_001, 47_999):
        last = np.flatnonzero(clock_ticks <= (b + 1) * 600)[-1]  # 600 ticks of 30 kHz are 20 ms
        assert one.values["position_x"][b] == source["pos_x_px"][last]
        assert one.values["position_y"][b] == source["pos_y_px"][last]


@with_sources
def test_the_mouse_conversion_keeps_times_and_takes_the_last_direction() -> None:
    """Each unit's spikes at the source's microsecond; the angle is of the last sample up to the right edge."""
    one = shipped("mouse-head-direction")
    source = arrays_of(DATA / "mouse-head-direction" / "A2929-200711.npz")
    assert one.events is not None
    t_ns, unit = one.events
    ends = [0, *source["spike_times_index"].tolist()]
    seconds = source["pos_time_s"]

    for u in range(15):
        steps = np.rint(source["spike_times_s"][ends[u] : ends[u + 1]] * 1e6).astype(np.int64)  # of 1 us
        since = (steps - 670_640_700) * 1000
        assert t_ns[unit == u].tolist() == since[(since >= 0) & (since < 26_467 * 20_000_000)].tolist()
    cos, sin = (one.values[f"head_direction_{side}"] for side in ("cos", "sin"))
    for b in (0, 1, 777, 20_001, 26_466):
        last = np.flatnonzero(seconds <= 670.6407 + (b + 1) * 0.02 + 1e-9)[-1]
        off = np.angle(np.exp(1j * (np.arctan2(sin[b], cos[b]) - source["head_direction_rad"][last])))
        assert abs(off) < 1e-6


@with_sources
@pytest.mark.parametrize("block", [1, 2])
def test_the_monkeys_targets_lie_where_the_cursor_goes(block: int) -> None:
    """The names of the targets: mean cursor velocity some steps into a trial points along the axis that is named."""
    one = of_monkey(block)
    velocity = arrays_of(DATA / "bci-monkey-20131218" / "bci_20131218.npz")[f"block{block}_vel"]
    target, starts = one.values["target"], one.segments[:, 0]

    for c, name in enumerate(one.spec("target").classes):
        mean = np.mean([velocity[a + 6 : a + 12].mean(0) for a in starts if target[a] == c], axis=0)
        axis = "xy".index(name[-1])
        assert int(np.abs(mean).argmax()) == axis
        assert (mean[axis] > 0) == name.startswith("plus")
