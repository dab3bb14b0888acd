"""Whether LSL reaches this machine from itself: a stream of one sample, found and read."""

from __future__ import annotations

import uuid

import pylsl
from pylsl.util import TimeoutError as LslTimeout

from runtime.io.lsl_resolve import find

VALUE = 7


def fault(wait_s: float) -> str:
    """What does not work, '' where a stream of ours is found and its sample arrives. Each step waits up to wait_s."""
    name = f"neds-rt-doctor-{uuid.uuid4().hex[:8]}"
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "Check", 1, pylsl.IRREGULAR_RATE, pylsl.cf_int32, name))
    info = find(name, wait_s)
    if info is None:
        return f"a stream of this machine was not found in {wait_s:g} s"
    inlet = pylsl.StreamInlet(info)
    try:
        inlet.open_stream(wait_s)
        outlet.wait_for_consumers(wait_s)
        outlet.push_sample([VALUE])
        sample, _ = inlet.pull_sample(wait_s)
    except LslTimeout:
        return f"a stream of this machine was found and did not answer in {wait_s:g} s"
    return "" if sample == [VALUE] else f"a stream of this machine sent nothing in {wait_s:g} s"
