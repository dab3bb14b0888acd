"""Latency of the live loop: the suite that measures it belongs here."""
