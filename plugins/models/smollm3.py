"""SmolLM3 (Hugging Face, 2025): Llama with layers that have no positions (NoPE, arXiv 2501.18795)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Family, flag, integer, layer_windows
from framework.registry import FAMILIES


@FAMILIES.register("smollm3")
class SmolLM3(Family):
    """SmolLM3. Layers with a 0 in `no_rope_layers` have no positions, else every `no_rope_layer_interval`-th."""

    architecture = "SmolLM3ForCausalLM"
    defaults = {"num_key_value_heads": 4, "rope_theta": 2e6, "tie_word_embeddings": True}
    examples = ({"no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 24},)

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        num_layers, interval = integer(values, "num_hidden_layers"), integer(values, "no_rope_layer_interval", 4)
        rotates = values.get("no_rope_layers")
        if rotates is None:
            rotates = [int((layer + 1) % interval != 0) for layer in range(num_layers)]
        if not isinstance(rotates, list | tuple) or len(rotates) < num_layers or set(rotates) - {0, 1}:
            raise ValueError(
                f"no_rope_layers={rotates!r} must be a list with a 0 or a 1 for each of {num_layers} layers; "
                f"correct the config"
            )
        traits: dict[str, Any] = {"nope_layers": tuple(layer for layer in range(num_layers) if not rotates[layer])}
        if flag(values, "use_sliding_window"):
            types = ["full_attention" if rotates[layer] else "sliding_attention" for layer in range(num_layers)]
            traits |= layer_windows(values, types)
        return traits | {"mlp_bias": flag(values, "mlp_bias")}
