"""Every error a user can cause. The CLI prints the sentence and exits with 2."""


class NedsError(Exception):
    """A problem that one sentence explains, remedy included."""


class ConfigError(NedsError):
    """A configuration file or option is wrong."""


class DataError(NedsError):
    """A recording is wrong."""


class CheckpointError(NedsError):
    """A checkpoint is corrupt, foreign, or does not fit."""


class StreamError(NedsError):
    """A live stream or socket is missing or does not fit."""
