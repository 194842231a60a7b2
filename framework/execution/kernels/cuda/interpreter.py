"""Whether Triton's kernels are interpreted on the CPU, as tests do."""

from __future__ import annotations

import os


def interpreted() -> bool:
    """Triton reads the same variable when a kernel is defined."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"
