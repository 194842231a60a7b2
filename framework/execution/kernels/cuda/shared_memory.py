"""How much of a tile fits on a multiprocessor: known before a kernel is compiled, so that none fails for its size.

A pipelined loop holds the inputs of several iterations in shared memory at once, of which a card has between 64 and
227 KiB for a program. Tiles were measured in 16 bits on an H200; a wider type or a smaller card takes fewer iterations
ahead, then shorter ones.
"""

from __future__ import annotations

import functools

import torch
import triton

from framework.execution.kernels.cuda.interpreter import interpreted

HOPPER_BYTES = 227 * 1024
_RESERVED_BYTES = 8 * 1024
"""For what a kernel exchanges between its warps"""
_FEWEST_STAGES = 2
_SHORTEST = 16
"""What a matrix instruction takes at once"""


@functools.cache
def shared_bytes() -> int:
    """Bytes that a program may have on the current device; under the interpreter, those of a Hopper GPU."""
    if interpreted():
        return HOPPER_BYTES
    properties = triton.runtime.driver.active.utils.get_device_properties(torch.cuda.current_device())
    return int(properties["max_shared_mem"])


def fit(
    length: int, stages: int, bytes_per_length: int, *, fixed_bytes: int = 0, limit: int | None = None
) -> tuple[int, int]:
    """The longest iteration, and the most pipeline stages with it, that are at most those wanted and fit.

    Args:
        length: of an iteration: inputs of a product, or keys; halved until it fits.
        stages: `n` stages hold the inputs of `n - 1` iterations.
        bytes_per_length: bytes of an iteration of length 1.
        fixed_bytes: held all the time.
        limit: by default that of the current device.
    """
    available = (shared_bytes() if limit is None else limit) - _RESERVED_BYTES - fixed_bytes
    while length > _SHORTEST and (_FEWEST_STAGES - 1) * length * bytes_per_length > available:
        length //= 2
    return length, max(_FEWEST_STAGES, min(stages, 1 + available // (length * bytes_per_length)))
