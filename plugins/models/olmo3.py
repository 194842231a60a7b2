"""OLMo 3 (Ai2, 2025): OLMo 2 with a window on three of four layers, whose positions are never scaled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import RopeConfig, integer, layer_windows, number, rope_of_layers
from framework.registry import FAMILIES
from plugins.models.olmo2 import Olmo2

_THETA = 500_000.0


@FAMILIES.register("olmo3")
class Olmo3(Olmo2):
    """OLMo 3 of Ai2. As in `transformers`, a `rope_theta` outside `rope_parameters` is for layers without a window."""

    architecture = "Olmo3ForCausalLM"
    defaults = {**Olmo2.defaults, "sliding_window": 4096}
    examples = ({"sliding_window": 24, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},)

    def rope(self, values: Mapping[str, Any], max_model_len: int | None) -> RopeConfig:
        return rope_of_layers(values, "full_attention", number(values, "rope_theta", _THETA, at_least=1e-9))

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        num_layers = integer(values, "num_hidden_layers")
        types = ["full_attention" if layer % 4 == 3 else "sliding_attention" for layer in range(num_layers)]
        local = rope_of_layers(values, "sliding_attention", _THETA)
        return {**super().traits(values), "window_rope": local, **layer_windows(values, types)}
