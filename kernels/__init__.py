"""Attention and step kernels with their plain-torch reference."""

NEDS_RT = True


class KernelError(Exception):
    """Settings of this machine keep the kernels from running; one sentence with the remedy."""
