"""The number of programs that a GPU runs at once."""

from __future__ import annotations

import functools

import torch

_INTERPRETED = 4
"""The number under the interpreter, which runs programs one by one."""


@functools.cache
def num_processors(device: torch.device) -> int:
    """The number of multiprocessors of `device`."""
    if device.type != "cuda":
        return _INTERPRETED
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
