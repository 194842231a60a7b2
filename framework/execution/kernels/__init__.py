"""Our own kernels: C++ for CPUs, Triton for GPUs."""

from framework import __version__

OWN = f"ServeLab {__version__}"
"""The name and version of these kernels in records."""
