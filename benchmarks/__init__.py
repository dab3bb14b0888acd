"""Latency, kernels, accuracy: tables, JSON and figures."""

NEDS_RT = True
