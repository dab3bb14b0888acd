"""A spike stream's description, from a table of units, for a sender without neds-rt: needs Python alone.

`neds-rt init` puts a copy of this file beside sender.py, and neds-rt's own senders use it. docs/lsl.md of neds-rt says
what the stream has to be.
"""

import hashlib
import os
from pathlib import Path

SCHEMA, LAYOUT = "1", "events_unit"
KEYS = ("source_id", "region", "depth_um")
KEEP_ALIVE_MODULUS = 2**31 - 1
PORTS = "[ports]\nPortRange = 256\n"  # liblsl's own 32 are used up by 16 streams of a machine; more may not be found
LAB_FILES = ("lsl_api.cfg", "~/lsl_api/lsl_api.cfg", "/etc/lsl_api/lsl_api.cfg")


def read(path):
    """Units and their recorded rates from units.tsv: [(source_id, region, depth_um), ...] as text, [Hz, ...]."""
    rows = [line.split("\t") for line in Path(path).read_text(encoding="utf-8").splitlines()[1:]]
    return [tuple(row[:3]) for row in rows], [float(row[3]) for row in rows]


def has_lab_file():
    """Whether liblsl reads a lab's own settings; pylsl.set_config_content would keep it from that."""
    return any(Path(name).expanduser().is_file() for name in (os.environ.get("LSLAPICFG", ""), *LAB_FILES))


def unit_map_sha256(units):
    """The hash that a checkpoint is bound to: of each unit's three texts and their order."""
    return hashlib.sha256("\n".join("\t".join(unit) for unit in units).encode()).hexdigest()


def describe(info, units, source, rate_hz, ordered=True):
    """Write the neds_rt block and the unit table into a pylsl.StreamInfo; source: live, replay or synthetic.

    ordered: spikes are sent in the order of their stamps, over all units.
    """
    block = info.desc().append_child("neds_rt")
    for key, value in {
        "schema": SCHEMA, "layout": LAYOUT, "source": source, "keep_alive": "1", "ordered": str(int(ordered)),
        "clock": "lsl", "stamp": "spike", "id_base": "0", "unit_map_sha256": unit_map_sha256(units),
        "rate_hz": f"{rate_hz:.1f}",
    }.items():  # fmt: skip
        block.append_child_value(key, value)
    table = block.append_child("units")
    for row, unit in enumerate(units):
        entry = table.append_child("unit")
        for key, value in zip(("id", *KEYS), (str(row), *unit), strict=True):
            entry.append_child_value(key, value)


def keep_alive(sent):
    """The sample that says: so many spikes have been sent, all of those before its stamp."""
    return -1 - sent % KEEP_ALIVE_MODULUS
