"""What follows from a configuration: objectives, and copies with other values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from framework.config.settings import PluginChoice, Settings


def with_exact_attention(cfg: Settings, num_blocks: int) -> Settings:
    """A copy of `cfg` that runs attention as plain PyTorch does, over a KV cache of the model's own type."""
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
