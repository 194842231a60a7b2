"""How many KV blocks fit."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from omegaconf import DictConfig

from framework.interfaces.attention import AttentionSpec

_CPU_LIMIT_BYTES = 4 << 30
"""A CPU's memory belongs to others too; ask for more with engine.num_blocks."""


def kv_block_bytes(spec: AttentionSpec) -> int:
    """Bytes of one block over all layers, keys and values."""
    token_bytes = 2 * spec.num_layers * spec.num_kv_heads * spec.head_size * spec.kv_dtype.itemsize
    return spec.block_size * token_bytes


def num_kv_blocks(engine: DictConfig, device: torch.device, block_bytes: int, max_model_len: int) -> int:
    """`engine.num_blocks`, or as many as can ever be used, as far as memory goes. Call after the weights are loaded.

    Raises:
        ValueError: not even one block fits, or `engine.num_blocks` asks for more memory than there is.
    """
    available = _available_bytes(device)
    if engine.num_blocks is not None:
        if engine.num_blocks * block_bytes > available:
            raise ValueError(
                f"engine.num_blocks={engine.num_blocks} takes {engine.num_blocks * block_bytes / 2**30:.1f} GiB, but "
                f"{available / 2**30:.1f} GiB are free on {device}; at most {available // block_bytes} blocks fit"
            )
        return int(engine.num_blocks)
    budget = int(available * engine.kv_memory_fraction)
    if device.type == "cpu":
        budget = min(budget, _CPU_LIMIT_BYTES)
    useful = engine.max_num_seqs * math.ceil(max_model_len / engine.block_size)
    num = min(useful, budget // block_bytes)
    if num < 1:
        raise ValueError(
            f"no KV block fits: one takes {block_bytes / 2**20:.1f} MiB and {budget / 2**20:.1f} MiB are free on "
            f"{device}; lower engine.block_size, use a smaller model or executor.dtype, or free memory"
        )
    return int(num)


def _available_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise ValueError("this kernel's /proc/meminfo has no MemAvailable; set engine.num_blocks")
