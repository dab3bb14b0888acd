"""Latency of the live loop: measured through its sockets, compared, and watched (`neds-rt bench latency`)."""
