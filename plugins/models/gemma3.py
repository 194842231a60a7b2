"""Gemma 3 (arXiv 2503.19786): Gemma 2 without caps, with normalised queries and keys and two bases of positions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from framework.models.family import RopeConfig, integer, number, rope_of_layers
from framework.registry import FAMILIES
from plugins.models.gemma2 import Gemma2


@FAMILIES.register("gemma3_text")
class Gemma3(Gemma2):
    """The text models of Gemma 3. Layers with a window have positions of base `rope_local_base_freq`, never scaled."""

    architecture = "Gemma3ForCausalLM"
    defaults = {**Gemma2.defaults, "attn_logit_softcapping": None, "final_logit_softcapping": None}
    examples = (
        {
            "sliding_window": 24,
            "sliding_window_pattern": 3,
            "query_pre_attn_scalar": 8,
            "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        },
    )
    pattern = 6

    def rope(self, values: Mapping[str, Any], max_model_len: int | None) -> RopeConfig:
        rope = rope_of_layers(values, "full_attention", number(values, "rope_theta", 1e6, at_least=1e-9))
        # max_position_embeddings is the length after scaling here, and not before it
        return dataclasses.replace(rope, longest=integer(values, "max_position_embeddings"))

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        theta = number(values, "rope_local_base_freq", 1e4, at_least=1e-9)
        local = rope_of_layers(values, "sliding_attention", theta)
        return {**super().traits(values), "qk_norm": "head", "window_rope": local}
