"""Whether torchrun started this process, its rank, and the number of ranks. Imports no torch."""

from __future__ import annotations

import os


def world_rank() -> int | None:
    """The rank of this process if torchrun started several; None if there is only this one."""
    return int(os.environ["RANK"]) if int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ else None
