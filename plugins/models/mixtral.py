"""Mixtral (arXiv 2401.04088): Mistral with experts in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Experts, Family, expert_counts, integer, layer_windows
from framework.registry import FAMILIES


@FAMILIES.register("mixtral")
class Mixtral(Family):
    """Mixtral of Mistral AI."""

    architecture = "MixtralForCausalLM"
    defaults = {
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    }
    examples = ({"num_local_experts": 5}, {"num_local_experts": 4, "num_experts_per_tok": 3, "sliding_window": 24})

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        number, per_token = expert_counts(values, "num_local_experts")
        experts = Experts(
            number=number,
            per_token=per_token,
            size=integer(values, "intermediate_size"),
            layers=tuple(range(integer(values, "num_hidden_layers"))),
            normalise=True,
            router="block_sparse_moe.gate",
            expert="block_sparse_moe.experts.{}",
            projections=("w1", "w3", "w2"),
        )
        windows = layer_windows({**values, "layer_types": None})
        return {"qkv_bias": False, "output_bias": False, "experts": experts, **windows}
