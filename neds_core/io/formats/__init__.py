"""Readers of what labs have on their disks: one module a format, each with `suits` and `read` (see `importing`)."""
