"""GLM-4 as first published (arXiv 2406.12793): rotation of neighbours in half of each head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Family, RopeConfig
from framework.registry import FAMILIES


@FAMILIES.register("glm")
class Glm(Family):
    """GLM-4 9B of 2024, in the format of `transformers` (`glm-4-9b-chat-hf`)."""

    architecture = "GlmForCausalLM"
    defaults = {
        "num_key_value_heads": 2,
        "head_dim": 128,
        "rms_norm_eps": 1.5625e-07,
        "attention_bias": True,
        "partial_rotary_factor": 0.5,
    }

    def rope(self, values: Mapping[str, Any], max_model_len: int | None) -> RopeConfig:
        return RopeConfig.from_hf(values, max_model_len=max_model_len, may_be_partial=True, interleaved=True)

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"output_bias": False, "fused_gate_up": True}
