"""The order in which cells run."""

from __future__ import annotations

import random


def run_order(num_cells: int, order: str, seed: int) -> list[int]:
    """Indices of the cells as they are to run.

    Random by default: a machine that warms up, or slows down, would otherwise favour whatever level of a factor the
    command line names first. The seed makes it the same order again.

    Raises:
        ValueError: `order` is neither random nor given.
    """
    indices = list(range(num_cells))
    if order == "random":
        random.Random(seed).shuffle(indices)
    elif order != "given":
        raise ValueError(f"hydra.launcher.order={order}: must be random or given")
    return indices
