"""Attention and step kernels with their plain-torch reference."""

NEDS_RT = True
