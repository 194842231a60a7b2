"""How many KV blocks a memory budget holds, and how long a request may get in them, on real and simulated devices."""

from __future__ import annotations

import math

from framework.execution.device.sizes import Sizes
from framework.interfaces.settings import EngineSettings


def choose_blocks(
    engine: EngineSettings,
    sizes: Sizes,
    block_bytes: int,
    available_bytes: int,
    budget_bytes: int,
    max_model_len: int,
    device: str,
) -> int:
    """`engine.num_blocks`, or as many as can ever be used, as far as the budget goes.

    Args:
        available_bytes: what is free on the device when weights and activations have theirs.
        budget_bytes: what `engine.kv_memory_fraction` leaves of it for a cache whose size is open.

    Raises:
        ValueError: not even one block fits, or `engine.num_blocks` asks for more memory than there is.
    """
    if engine.num_blocks is not None:
        return _check_blocks(engine.num_blocks, block_bytes, available_bytes, device)
    useful = sizes.max_num_seqs * math.ceil(max_model_len / sizes.block_size)
    return _blocks_within(engine.kv_memory_fraction, useful, block_bytes, budget_bytes, device)


def _blocks_within(fraction: float, useful: int, block_bytes: int, budget_bytes: int, device: str) -> int:
    """As many blocks as fit, and no more than are `useful` to as many requests as may run, each at its longest.

    Raises:
        ValueError: not even one block fits.
    """
    num = min(useful, budget_bytes // block_bytes)
    if num < 1:
        raise ValueError(
            f"no KV block fits: one takes {block_bytes / 2**20:.1f} MiB and {budget_bytes / 2**20:.1f} MiB are left on "
            f"{device} within engine.kv_memory_fraction={fraction}; raise it, lower engine.block_size "
            f"or engine.max_num_batched_tokens, use a smaller model or executor.dtype, or free memory"
        )
    return num


def _check_blocks(num_blocks: int, block_bytes: int, available_bytes: int, device: str) -> int:
    """`num_blocks`, if there is memory for it.

    Raises:
        ValueError: there is not.
    """
    if num_blocks * block_bytes > available_bytes:
        raise ValueError(
            f"engine.num_blocks={num_blocks} takes {num_blocks * block_bytes / 2**30:.1f} GiB, but "
            f"{available_bytes / 2**30:.1f} GiB are free on {device}; at most {available_bytes // block_bytes} blocks "
            f"fit"
        )
    return num_blocks


_SHORTEST_REQUEST = 2
"""The tokens of the shortest request: one of the prompt and one of the answer."""


def fit_length(asked: int | None, block_size: int, num_blocks: int, max_model_len: int) -> int:
    """A request must fit into the cache alone, or it could never end; `asked` is `engine.max_model_len`.

    Raises:
        ValueError: `engine.max_model_len` asks for more than the cache holds, or it has no room for any request.
    """
    capacity_tokens = num_blocks * block_size
    if capacity_tokens < _SHORTEST_REQUEST:
        raise ValueError(
            f"a KV cache of engine.num_blocks={num_blocks} blocks of engine.block_size={block_size} tokens "
            f"holds no request, which has at least {_SHORTEST_REQUEST} tokens (a prompt and an answer); raise either"
        )
    if capacity_tokens >= max_model_len:
        return max_model_len
    if asked is not None:
        raise ValueError(
            f"engine.max_model_len={max_model_len} tokens do not fit into the KV cache of {num_blocks} blocks of "
            f"{block_size} ({capacity_tokens} tokens); lower it, or raise engine.num_blocks or "
            f"engine.kv_memory_fraction"
        )
    return capacity_tokens
