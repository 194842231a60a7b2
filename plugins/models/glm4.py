"""GLM-4-0414: GLM-4 with norms after each block as well as before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Norms
from framework.registry import FAMILIES
from plugins.models.glm import Glm


@FAMILIES.register("glm4")
class Glm4(Glm):
    """GLM-4-9B-0414, GLM-4-32B-0414 and GLM-Z1."""

    architecture = "Glm4ForCausalLM"

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        after = {"after_attention": "post_self_attn_layernorm", "after_mlp": "post_mlp_layernorm"}
        return {**super().traits(values), "norms": Norms(**after)}
