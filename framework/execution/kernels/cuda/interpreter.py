"""Whether Triton interprets the kernels on the CPU, which tests use."""

from __future__ import annotations

import os


def interpreted() -> bool:
    """Whether kernels are interpreted. Triton reads the same variable when a kernel is defined."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"
