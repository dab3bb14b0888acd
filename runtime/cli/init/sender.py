"""`sender.py` of a new rig folder, as text, and the README beside it."""

SENDER = '''\
"""Send the spikes of units.tsv, and markers, to neds-rt over LSL. Needs pylsl alone: python -m pip install pylsl

The spikes are made up, at the recorded rates, until `spikes_between` gives your sorter's. Then say SOURCE = "live".
"""

import contextlib
import json
import random
import time
from pathlib import Path

import pylsl
import unit_stream

SPIKES, MARKERS = {spikes}, {markers}  # stream names of rig.toml; "" without trials
SOURCE = "synthetic"
TRIAL_S, PAUSE_S = {trial_s:.3g}, 0.5  # of the made-up trials
UNITS, RATES_HZ = unit_stream.read(Path(__file__).with_name("units.tsv"))


def spikes_between(start_s, stop_s):
    """Stamps on the LSL clock, in order, and their rows in units.tsv: what fired after start_s and up to stop_s."""
    stamps, at_s = [], start_s + random.expovariate(sum(RATES_HZ))
    while at_s <= stop_s:
        stamps.append(at_s)
        at_s += random.expovariate(sum(RATES_HZ))
    return stamps, random.choices(range(len(UNITS)), RATES_HZ, k=len(stamps))


session = "" if SOURCE == "live" else "[lab]\\nSessionID = neds-rt-replay\\n"  # neds-rt looks there with --allow-replay
if session or not unit_stream.has_lab_file():  # before any other call of pylsl; your lsl_api.cfg may need PORTS as well
    pylsl.set_config_content(session + unit_stream.PORTS)
info = pylsl.StreamInfo(SPIKES, "Spikes", 1, pylsl.IRREGULAR_RATE, pylsl.cf_int32, SPIKES)
unit_stream.describe(info, UNITS, SOURCE, sum(RATES_HZ))
spikes = pylsl.StreamOutlet(info)
markers = MARKERS and pylsl.StreamOutlet(pylsl.StreamInfo(MARKERS, "Markers", 1, 0.0, pylsl.cf_string, MARKERS))
sent, trial, upto_s, next_s = 0, 0, pylsl.local_clock(), pylsl.local_clock() + PAUSE_S
with contextlib.suppress(KeyboardInterrupt):
    while True:
        time.sleep(0.005)
        now_s = pylsl.local_clock()
        stamps, rows = spikes_between(upto_s, now_s)
        sent, upto_s = sent + len(rows), now_s
        spikes.push_chunk([*rows, unit_stream.keep_alive(sent)], [*stamps, now_s])
        if MARKERS and now_s > next_s - 0.2:  # ahead of its time
            trial += 1
            markers.push_sample([json.dumps({{"event": "segment_start", "segment": trial}})], next_s)
            markers.push_sample([json.dumps({{"event": "segment_end", "segment": trial}})], next_s + TRIAL_S)
            next_s += TRIAL_S + PAUSE_S
'''

README = """\
# {rig}

A rig for neds-rt, made by `neds-rt init` from {what}. In this folder:

```
{neds_rt} train train.toml --out neds.safetensors
{neds_rt} run rig.toml --play
{python} sender.py
{neds_rt} check rig.toml --allow-replay
{neds_rt} run rig.toml --allow-replay
```

1. Train a decoder. It says which units and outputs it uses, and ends with how to score it.
2. Rehearse: the recording's test part is played over LSL and decoded.
3. In another terminal, send: made-up spikes of these units at the recorded rates, with `pylsl` alone.
4. Check the rig while they come. The last line is `GO`.
5. Decode them. The values mean nothing yet, because the spikes are made up.

Then put your sorter into `spikes_between` of `sender.py`, set `SOURCE = "live"` there, and leave out `--allow-replay`.
A `#` in front of a stream under `[input.behaviours]` of `rig.toml` goes when that stream is sent.
"""

FIRST_DAY = """\
# {rig}

A rig for neds-rt, made by `neds-rt init` from {what}. First put in what is yours:

| file | what to put in |
| --- | --- |
| `units.tsv` | Your units in the order of the stream, `nan` for a depth and `?` for a region that are not known. |
| `sender.py` | Your sorter in `spikes_between`, `SOURCE = "live"`; your task's trials, or `MARKERS = ""`. |
| `rig.toml` | The streams of measured behaviour under `[input.behaviours]`; `markers = ""` without trials. |
| `train.toml` | Those behaviours as `outputs`. |

```
{python} sender.py
{neds_rt} collect rig.toml --out day1
{neds_rt} train train.toml --out neds.safetensors
{neds_rt} check rig.toml
{neds_rt} run rig.toml
```

1. Send, and leave it running; the others go into another terminal.
2. Record a session until Ctrl-C: `day1/session.npz`.
3. Train a decoder on it. Then check the rig: the last line is `GO`.
4. Decode.
"""

FILES = """
| file | what it is |
| --- | --- |
| `rig.toml`, `train.toml` | Every key, with what it is for. A `#` in front of a key leaves it unset. |
| `units.tsv` | The units, in the stream's order. A checkpoint is bound to their ids, regions and depths. |
| `sender.py` | Sends spikes and markers. |
| `unit_stream.py` | What the stream says of itself, and the hash of the unit map. Needs Python alone. |
"""
