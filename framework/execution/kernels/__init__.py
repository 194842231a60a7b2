"""Our own kernels: C++ for CPUs, Triton for GPUs."""

from framework import __version__

OWN = f"ServeLab {__version__}"
"""Whose they are and of which version, as records name them."""
