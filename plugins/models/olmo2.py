"""OLMo 2 (arXiv 2501.00656): norms after each block instead of before it, and over all queries and all keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Family, Norms
from framework.registry import FAMILIES


@FAMILIES.register("olmo2")
class Olmo2(Family):
    """OLMo 2 of Ai2."""

    architecture = "Olmo2ForCausalLM"
    defaults = {"rms_norm_eps": 1e-5}

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        after = {"after_attention": "post_attention_layernorm", "after_mlp": "post_feedforward_layernorm"}
        return {"qk_norm": "all", "norms": Norms(before_attention=None, before_mlp=None, **after)}
