"""Converters from published file layouts to the native `Session` and checkpoint."""
