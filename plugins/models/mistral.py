"""Mistral (arXiv 2310.06825): Llama without biases, and in its first version with a window on every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Family, layer_windows
from framework.registry import FAMILIES


@FAMILIES.register("mistral")
class Mistral(Family):
    """Mistral 7B and its successors. A config without `sliding_window` has one of 4,096 tokens."""

    architecture = "MistralForCausalLM"
    defaults = {"num_key_value_heads": 8, "sliding_window": 4096}
    examples = ({"sliding_window": 24},)

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"qkv_bias": False, "output_bias": False, **layer_windows({**values, "layer_types": None})}
