"""What follows from a configuration: objectives, and copies with other values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from framework.config.settings import PluginChoice, Settings
from framework.interfaces.cost_model import ITEM_BYTES


def with_exact_attention(
    cfg: Settings, num_blocks: int, effective: Mapping[str, Any] = MappingProxyType({})
) -> Settings:
    """A copy of `cfg` that runs attention as plain PyTorch does, over a KV cache of the model's own type.

    Args:
        num_blocks: blocks of the KV cache of the engine that `cfg` was built into.
        effective: what that engine took for `block_size`, `dtype` and `kv_dtype`. The copy gets the same block size,
            and as many blocks as fit into the same memory if its numbers are wider, but enough for a request of
            `engine.max_model_len`.
    """
    if effective:
        block_size: int = effective["block_size"]
        same_memory = num_blocks * ITEM_BYTES[effective["kv_dtype"]] // ITEM_BYTES[effective["dtype"]]
        longest = -(-(cfg.engine.max_model_len or 1) // block_size)
        num_blocks = min(num_blocks, max(same_memory, longest))
        cfg = with_sizes(cfg, {"block_size": block_size})
    return dataclasses.replace(
        cfg,
        attention=PluginChoice(name="sdpa"),
        graph=PluginChoice(name="eager"),
        executor=PluginChoice({**cfg.executor, "kv_dtype": "auto", "kernels": "auto"}),
        engine=dataclasses.replace(cfg.engine, num_blocks=num_blocks),
    )


def objectives(cfg: Settings) -> dict[str, float]:
    """The objectives of requests that state none: fields of `RequestSpec`."""
    limits = {"ttft_slo_s": cfg.slo.ttft_s, "tpot_slo_s": cfg.slo.tpot_s, "e2e_slo_s": cfg.slo.e2e_s}
    return {name: limit_s for name, limit_s in limits.items() if limit_s is not None}


def with_sizes(cfg: Settings, sizes: Mapping[str, Any]) -> Settings:
    """A copy of `cfg` with these values of `engine`, so that every rank takes the same."""
    return dataclasses.replace(cfg, engine=dataclasses.replace(cfg.engine, **sizes))
