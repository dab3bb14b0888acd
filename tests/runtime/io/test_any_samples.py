"""Any samples and descriptions at all, without a network: what arrives is counted, and only our own errors come out."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pylsl
import pytest
from hypothesis import given, settings, strategies as st

from neds_core.data.session import Session
from neds_core.errors import StreamError
from runtime.core.binning import Binner
from runtime.io.keep_alives import MOST_OPEN
from runtime.io.lsl_description import Description, describe, read_description
from runtime.io.lsl_inlets import SANE_S, BehaviourInlet, MarkerInlet, SpikeInlet
from runtime.io.lsl_resolve import channel_labels
from runtime.io.markers import read_marker
from runtime.io.unit_maps import difference

NOW_S = 5_000.0
INT32 = np.iinfo(np.int32)
stamps = st.one_of(
    st.floats(NOW_S - 1.0, NOW_S + 0.01),
    st.sampled_from([NOW_S, np.nan, np.inf, -np.inf, 0.0, 1e9, -1e300]),
    st.floats(),
)
values = st.one_of(st.integers(0, 11), st.integers(-60, -1), st.integers(INT32.min, INT32.max))
samples = st.lists(st.tuples(values, stamps), max_size=40)


class Fake:
    """A liblsl inlet that gives the next chunk it was handed."""

    def __init__(self, info: Any, **options: Any) -> None:
        self.chunks: list[tuple[Any, list[float]]] = []

    def samples_available(self) -> int:
        return len(self.chunks)

    def pull_chunk(self, dest_obj: np.ndarray | None = None, **options: Any) -> tuple[Any, Any]:
        given, times = self.chunks.pop(0) if self.chunks else ([], [])
        if dest_obj is not None:
            dest_obj[: len(given), 0] = given
        return given, np.array(times, np.float64) if options.get("as_numpy") else times


@pytest.fixture(scope="module")
def no_network() -> Iterator[SimpleNamespace]:
    """Inlets are fakes; the stream's facts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pylsl, "StreamInlet", Fake)
        patch.setattr("runtime.io.lsl_inlets.now_ns", lambda: int(NOW_S * 1e9))
        yield SimpleNamespace(name=lambda: "s", hostname=lambda: "elsewhere")


@settings(max_examples=100)
@given(st.lists(samples, max_size=5), st.booleans())
def test_every_sample_is_a_spike_a_keep_alive_or_not_yet_known(
    no_network: Any, chunks: list[list[tuple[int, float]]], keep_alive: bool
) -> None:
    inlet = SpikeInlet(no_network, Description("events_unit", "live", keep_alive, False, "sha", 0.0))
    binner = Binner(12, 20_000_000, max_age_ns=10**10, future_ns=2_000_000)
    binner.start(int(NOW_S * 1e9))
    inlet.inlet.chunks = [([v for v, _ in c], [t for _, t in c]) for c in chunks]  # pyright: ignore[reportAttributeAccessIssue]
    for _ in chunks:
        binner.feed(inlet.pull(0.0), int(NOW_S * 1e9))
    sent = [value for chunk in chunks for value, _ in chunk]
    counters, waiting = binner.counters(), len(inlet._sent._open)
    assert counters["received"] == inlet.received <= len(sent) - waiting
    assert inlet.received >= (sum(value >= 0 for value in sent) if keep_alive else len(sent))
    assert waiting <= MOST_OPEN
    assert inlet.lost_upstream >= 0
    assert counters["received"] == sum(n for name, n in counters.items() if name != "received")


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("counted", [True, False])
def test_what_is_sent_again_counts_once_though_the_clock_map_moves(
    no_network: Any, keep_alive: bool, counted: bool
) -> None:
    """Chunks of 2 ms of a remote sender, each tenth once more with its keep-alive, after a probe of its clock."""
    inlet = SpikeInlet(no_network, Description("events_unit", "live", keep_alive, False, "sha", 0.0))
    binner = Binner(12, 20_000_000, max_age_ns=10**10, future_ns=2_000_000)
    binner.start(5_000_000_000)
    rng, sent, repeated, now_ns = np.random.default_rng(0), 0, 0, 0
    for k in range(1000):
        n = int(rng.poisson(2.0))
        units = rng.integers(0, 12, n).tolist()
        stamps = np.sort(rng.uniform(3.0 + k * 2e-3, 3.002 + k * 2e-3, n)).tolist()
        for again in range(2 if k % 10 == 9 and k > 100 else 1):
            inlet.clock._line = (10**9, 2 * 10**9 + 3_000 * (k + again), 1e-6)
            repeated += n * again
            sent += n * (counted or not again)
            value, end_s = -1 - sent, 3.002 + k * 2e-3
            more = ([value], [end_s]) if keep_alive else ([], [])
            inlet.inlet.chunks = [(units + more[0], stamps + more[1])]  # pyright: ignore[reportAttributeAccessIssue]
            now_ns = round(end_s * 1e9) + 2 * 10**9 + 6_000_000
            binner.feed(inlet.pull(0.0), now_ns)
            binner.alive(inlet.keep_alive_ns, now_ns)
        while binner.complete_ns >= binner.edge_ns or now_ns >= binner.edge_ns + 15_000_000:
            binner.close(np.zeros(12, np.uint16))
    counters = binner.counters()
    assert counters["resent"] == repeated > 100
    assert counters["binned"] == counters["received"] - repeated == inlet.received - repeated == inlet.delays.n
    assert inlet.lost_upstream == 0


def test_a_late_keep_alive_of_a_pull_does_not_hide_the_newest(no_network: Any) -> None:
    """One that is sent again behind the next is old."""
    inlet = SpikeInlet(no_network, Description("events_unit", "live", True, False, "sha", 0.0))
    ends = [3.0 + k * 0.02 for k in range(4)]
    inlet.inlet.chunks = [([-1] * 4, ends), ([-1] * 3, [3.08, 3.04, 3.06])]  # pyright: ignore[reportAttributeAccessIssue]
    inlet.pull(0.0)
    assert inlet.pull(0.0).size == 0
    assert inlet.keep_alive_ns == 3_080_000_000


json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)
marker = st.fixed_dictionaries(
    {"event": st.one_of(st.sampled_from(["segment_start", "segment_end", "recording_end"]), json_like)},
    optional={
        "segment": st.one_of(st.integers(-3, 5), st.floats(), json_like), "bin": st.one_of(st.integers(), st.floats()),
        "labels": st.one_of(st.dictionaries(st.text(max_size=5), json_like, max_size=2), json_like), "more": json_like,
    },
)  # fmt: skip
told = st.one_of(
    marker.map(msgspec.json.encode), json_like.map(msgspec.json.encode), st.binary(max_size=30),
    st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass")),
)  # fmt: skip


@settings(max_examples=100)
@given(st.lists(st.tuples(told, stamps), max_size=8))
def test_every_marker_is_read_or_counted_as_bad(no_network: Any, sent: list[tuple[bytes, float]]) -> None:
    inlet = MarkerInlet(no_network)
    inlet.inlet.chunks = [([[text] for text, _ in sent], [t for _, t in sent])]  # pyright: ignore[reportAttributeAccessIssue]
    marks = inlet.pull()
    read = [(read_marker(text.rstrip(b"\0")), abs(stamp) < SANE_S) for text, stamp in sent]
    known = [marker for marker, sane in read if marker is not None and sane]
    assert inlet.bad == len(sent) - len(known)
    shown = [(m.event, int(m.segment)) for m in known if m.event in ("segment_start", "segment_end")]
    assert [(mark.event, mark.segment) for mark in marks] == shown
    assert inlet.ended == any(marker.event == "recording_end" for marker in known)
    assert all(-(2**62) < mark.t_ns < 2**62 and -1 <= mark.segment <= 2**62 for mark in marks)
    assert all(mark.first_bin is None or mark.first_bin >= 0 for mark in marks)
    assert (inlet.last + inlet.last_bad).isprintable()
    msgspec.json.encode(marks)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(), stamps), max_size=8), st.integers(-(2**62), 2**62))
def test_any_behaviour_is_kept_or_left_out(no_network: Any, sent: list[tuple[float, float]], since_ns: int) -> None:
    inlet = BehaviourInlet("wheel_speed", no_network)
    inlet.inlet.chunks = [([[value] for value, _ in sent], [t for _, t in sent])]  # pyright: ignore[reportAttributeAccessIssue]
    assert len(inlet.pull()) == sum(abs(t) < 1e9 for _, t in sent)
    newest = inlet.latest(since_ns)
    assert newest is None or np.isfinite(newest)


written = st.one_of(
    st.text(max_size=12), st.sampled_from(["", "1", "0", "lsl", "nan", "1e99", "-1", "inf", "1_0", "٣"])
)
keys = st.sampled_from(
    ["schema", "layout", "source", "keep_alive", "clock", "stamp", "id_base", "rate_hz", "units", "unit"]
)


@settings(max_examples=100)
@given(
    st.dictionaries(keys, written, max_size=4),
    st.lists(st.dictionaries(written.filter(str.isalpha), written), max_size=3),
)
def test_any_description_is_read_or_refused_in_one_sentence(
    session: Session, edits: dict[str, str], units: list[dict[str, str]]
) -> None:
    """And whatever it says of its units can be compared with the checkpoint's."""
    info = pylsl.StreamInfo("s", "Spikes", 1, 0.0, pylsl.cf_int32, "s")
    describe(info, session.units, "live", 100.0)
    block = info.desc().child("neds_rt")
    for key, value in edits.items():
        block.remove_child(block.child(key))
        block.append_child_value(key, value.replace("\x00", ""))
    for unit in units:
        row = block.child("units").append_child("unit")
        for key, value in unit.items():
            row.append_child_value(key, value.replace("\x00", ""))
    try:
        found = read_description(info)
    except StreamError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert all(difference(found.units, session.units))
        assert 0.0 <= found.rate_hz < 1e8
    assert refusal.isprintable()
    assert channel_labels(info) == [""]
