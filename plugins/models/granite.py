"""Granite 3 (IBM, 2024): Llama with a multiplier at four places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Family, flag, number
from framework.registry import FAMILIES


@FAMILIES.register("granite")
class Granite(Family):
    """The dense models of Granite 3 and later."""

    architecture = "GraniteForCausalLM"
    examples = (
        {"embedding_multiplier": 3.0, "residual_multiplier": 0.3, "attention_multiplier": 0.1, "logits_scaling": 2.0},
    )

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        def factor(key: str) -> float:
            return number(values, key, 1.0, at_least=1e-9)

        return {
            "mlp_bias": flag(values, "mlp_bias"),
            "embedding_scale": factor("embedding_multiplier"),
            "residual_scale": factor("residual_multiplier"),
            "attention_scale": factor("attention_multiplier"),
            "logit_scale": 1 / factor("logits_scaling"),
        }
