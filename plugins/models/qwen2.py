"""Qwen2 and Qwen2.5 (arXiv 2407.10671): Llama with biases of queries, keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Family, upper_windows
from framework.registry import FAMILIES


@FAMILIES.register("qwen2")
class Qwen2(Family):
    """Qwen2 and Qwen2.5. The layers from `max_window_layers` on have a window if `use_sliding_window` says so."""

    architecture = "Qwen2ForCausalLM"
    defaults = {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28}
    examples = ({"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 2},)

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"qkv_bias": True, "output_bias": False, **upper_windows(values)}
