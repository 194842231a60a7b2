"""How much of a tile fits into the shared memory of a multiprocessor.

This is known before a kernel is compiled, so that no kernel fails because of its size.

A pipelined loop holds the inputs of several iterations in shared memory at once. A program can have between 64 and 227
KiB of it, depending on the GPU. Tiles were measured in 16 bits on an H200. For a wider type or on a smaller GPU, the
loop first fetches fewer iterations ahead, and then has shorter iterations.
"""

from __future__ import annotations

import functools

import torch
import triton

from framework.execution.kernels.cuda.interpreter import interpreted

HOPPER_BYTES = 227 * 1024
_RESERVED_BYTES = 8 * 1024
"""Room for what a kernel exchanges between its warps."""
_FEWEST_STAGES = 2
_SHORTEST = 16
"""The length that a matrix instruction takes at once."""


@functools.cache
def shared_bytes() -> int:
    """Bytes of shared memory that a program may have on the current device; under the interpreter, on a Hopper GPU."""
    if interpreted():
        return HOPPER_BYTES
    properties = triton.runtime.driver.active.utils.get_device_properties(torch.cuda.current_device())
    return int(properties["max_shared_mem"])


def fit(
    length: int, stages: int, bytes_per_length: int, *, fixed_bytes: int = 0, limit: int | None = None
) -> tuple[int, int]:
    """The longest iteration that fits, up to `length`, and the most pipeline stages that fit with it, up to `stages`.

    Args:
        length: of an iteration, in inputs of a product or in keys. It is halved until it fits.
        stages: n stages hold the inputs of n - 1 iterations.
        bytes_per_length: the bytes of an iteration of length 1.
        fixed_bytes: bytes that are held all the time.
        limit: in bytes; by default that of the current device.
    """
    available = (shared_bytes() if limit is None else limit) - _RESERVED_BYTES - fixed_bytes
    while length > _SHORTEST and (_FEWEST_STAGES - 1) * length * bytes_per_length > available:
        length //= 2
    return length, max(_FEWEST_STAGES, min(stages, 1 + available // (length * bytes_per_length)))
