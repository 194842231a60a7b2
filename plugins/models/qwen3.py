"""Qwen3 (arXiv 2505.09388): Llama with normalised queries and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Family, upper_windows
from framework.registry import FAMILIES


@FAMILIES.register("qwen3")
class Qwen3(Family):
    """The dense models of Qwen3. Windows are as in Qwen2."""

    architecture = "Qwen3ForCausalLM"
    defaults = {"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096, "max_window_layers": 28}

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"qk_norm": "head", **upper_windows(values)}
