"""The mixtures of experts of Qwen3 (arXiv 2505.09388): Qwen3 with experts in every layer, or in some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Experts, Family, expert_counts, flag, integer, layer_windows
from framework.registry import FAMILIES


@FAMILIES.register("qwen3_moe")
class Qwen3Moe(Family):
    """Qwen3-30B-A3B, Qwen3-235B-A22B and Qwen3-Coder."""

    architecture = "Qwen3MoeForCausalLM"
    defaults = {
        "num_key_value_heads": 4,
        "sliding_window": 4096,
        "decoder_sparse_step": 1,
        "moe_intermediate_size": 768,
        "num_experts_per_tok": 8,
    }
    examples = (
        {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "norm_topk_prob": True},
        {"num_experts": 5, "num_experts_per_tok": 2, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
    )

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        # transformers 5 writes the second name, published checkpoints have the first one
        key = "num_local_experts" if "num_local_experts" in values else "num_experts"
        number, per_token = expert_counts({"num_experts": 128, **values}, key)
        dense, step = values.get("mlp_only_layers") or [], integer(values, "decoder_sparse_step")
        if not isinstance(dense, list | tuple):
            raise ValueError(f"mlp_only_layers={dense!r} must be a list of layers, or null; correct the config")
        layers = [
            layer
            for layer in range(integer(values, "num_hidden_layers"))
            if layer not in dense and (layer + 1) % step == 0
        ]
        experts = Experts(
            number=number,
            per_token=per_token,
            size=integer(values, "moe_intermediate_size"),
            layers=tuple(layers),
            normalise=flag(values, "norm_topk_prob"),
            router="mlp.gate",
            expert="mlp.experts.{}",
            projections=("gate_proj", "up_proj", "down_proj"),
        )
        windows = layer_windows({**values, "layer_types": None}) if flag(values, "use_sliding_window") else {}
        return {"qk_norm": "head", "experts": experts, **windows}
