"""Seed-OSS (ByteDance, 2025): Llama with a bias setting for the output projection of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Family, flag
from framework.registry import FAMILIES


@FAMILIES.register("seed_oss")
class SeedOss(Family):
    """Seed-OSS 36B of ByteDance."""

    architecture = "SeedOssForCausalLM"
    defaults = {"num_key_value_heads": 8, "head_dim": 128, "attention_bias": True}
    examples = ({"attention_out_bias": True},)

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"output_bias": flag(values, "attention_out_bias"), "mlp_bias": flag(values, "mlp_bias")}
