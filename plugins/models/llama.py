"""Llama 2 and 3 (arXiv 2302.13971, 2407.21783): the model that other families are described against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Family, flag
from framework.registry import FAMILIES


@FAMILIES.register("llama")
class Llama(Family):
    """Llama 2 and 3, and the many models that were published as `LlamaForCausalLM`."""

    architecture = "LlamaForCausalLM"
    examples = ({"hidden_act": "gelu"}, {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True})

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"mlp_bias": flag(values, "mlp_bias")}
