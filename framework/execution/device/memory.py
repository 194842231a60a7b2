"""How many KV blocks fit, and what to say when something does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from framework.execution.device.capacity import choose_blocks
from framework.execution.device.sizes import Sizes
from framework.interfaces.settings import EngineSettings

_CPU_LIMIT_BYTES = 4 << 30
"""The largest KV cache on a CPU, since others use its memory too. Ask for more with engine.num_blocks."""


@contextmanager
def explain_out_of_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn the device's out-of-memory error into one that names the stage and the key that lowers it.

    Raises:
        ValueError: when the device ran out of memory inside.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise ValueError(f"out of GPU memory while {what}: {str(error).split('. GPU')[0]}; lower {remedy}") from error


def num_kv_blocks(
    engine: EngineSettings,
    sizes: Sizes,
    device: torch.device,
    block_bytes: int,
    max_model_len: int,
    activation_bytes: int = 0,
    *,
    num_sharing: int = 1,
) -> int:
    """`engine.num_blocks`, or as many as can ever be used, as far as memory goes. Call after the weights are loaded.

    Args:
        activation_bytes: what the largest step needs beside weights and cache, as measured.
        num_sharing: ranks that take what is free at the same time.

    Raises:
        ValueError: not even one block fits, or `engine.num_blocks` asks for more memory than there is.
    """
    available = _available_bytes(device) // num_sharing - activation_bytes
    budget = int(available * engine.kv_memory_fraction)
    if device.type == "cpu":
        budget = min(budget, _CPU_LIMIT_BYTES)
    else:  # the fraction is of the whole device, weights and activations included
        total = torch.cuda.get_device_properties(device).total_memory
        budget = int(available - total * (1 - engine.kv_memory_fraction))
    return choose_blocks(engine, sizes, block_bytes, available, budget, max_model_len, str(device))


def _available_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise ValueError("this kernel's /proc/meminfo has no MemAvailable; set engine.num_blocks")
