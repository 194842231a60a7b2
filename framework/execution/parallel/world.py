"""Whether torchrun started this process, and as which of how many. Imports no torch."""

from __future__ import annotations

import os


def world_rank() -> int | None:
    """This process's rank if torchrun started several; None if there is only this one."""
    return int(os.environ["RANK"]) if int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ else None
