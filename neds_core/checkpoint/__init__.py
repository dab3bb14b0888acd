"""Checkpoints: what one is, what it says of its decoders, and its file."""

from neds_core.checkpoint.checkpoint import (
    FORMAT as FORMAT,
    Checkpoint as Checkpoint,
    load as load,
    our_version as our_version,
    parse as parse,
    same_scale as same_scale,
    save as save,
    versions as versions,
)
from neds_core.checkpoint.header import (
    Header as Header,
    Imported as Imported,
    LinearHeader as LinearHeader,
    Member as Member,
    Record as Record,
)
