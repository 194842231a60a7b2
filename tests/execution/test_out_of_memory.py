"""Out of memory names the stage, what was wanted and the key that lowers it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from framework.execution.device.capacity import fit_length
from framework.execution.device.memory import explain_out_of_memory
from framework.execution.graphs.cache import GraphCache
from framework.interfaces.graph import GraphKey

MESSAGE = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 139.81 GiB of which 1 GiB"


def test_the_stage_the_amount_and_the_key() -> None:
    with (
        pytest.raises(ValueError, match=r"while loading the weights: .*allocate 2.50 GiB; lower executor.dtype"),
        explain_out_of_memory("loading the weights", "executor.dtype"),
    ):
        raise torch.OutOfMemoryError(MESSAGE)


def test_a_cache_without_room_for_any_request() -> None:
    with pytest.raises(
        ValueError, match=r"KV cache of engine.num_blocks=1 blocks of engine.block_size=1 tokens holds no"
    ):
        fit_length(None, 1, 1, 128)
    assert fit_length(None, 1, 2, 128) == 2


def test_while_capturing() -> None:
    def capture(key: GraphKey, pool: Any) -> Any:
        raise torch.OutOfMemoryError(MESSAGE)

    cache = GraphCache(torch.device("cpu"), capture)
    with pytest.raises(ValueError, match=r"capturing the graph of 32 tokens: .*2.50 GiB; .*kv_memory_fraction"):
        cache.get(GraphKey(num_tokens=32, num_rows=32))
    assert GraphKey(num_tokens=32, num_rows=32) not in cache
