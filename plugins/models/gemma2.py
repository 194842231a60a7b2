"""Gemma 2 (arXiv 2408.00118): windows on every other layer, capped scores and logits, norms with 1 + w."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Family, Norms, activation, flag, integer, layer_windows, number
from framework.registry import FAMILIES


@FAMILIES.register("gemma2")
class Gemma2(Family):
    """Gemma 2 of Google. Its caps of attention scores need a backend that has them, such as `sdpa`."""

    architecture = "Gemma2ForCausalLM"
    defaults = {
        "num_key_value_heads": 4,
        "head_dim": 256,
        "tie_word_embeddings": True,
        "query_pre_attn_scalar": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    }
    examples = ({"sliding_window": 24, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0},)
    pattern = 2
    """Every so many layers one has no window."""

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        if flag(values, "use_bidirectional_attention"):
            raise ValueError("use_bidirectional_attention=true is not supported; only causal language models are")

        def cap(key: str) -> float | None:
            return None if values.get(key) is None else number(values, key, at_least=1e-9)

        pattern = integer(values, "sliding_window_pattern", self.pattern)
        types = [
            "sliding_attention" if (layer + 1) % pattern else "full_attention"
            for layer in range(integer(values, "num_hidden_layers"))
        ]
        return {
            "activation": activation(values, "hidden_activation"),
            "norms": Norms(
                after_attention="post_attention_layernorm",
                before_mlp="pre_feedforward_layernorm",
                after_mlp="post_feedforward_layernorm",
            ),
            "norm_offset": True,
            "embedding_scale": integer(values, "hidden_size") ** 0.5,
            "attention_scale": number(values, "query_pre_attn_scalar", at_least=1e-9) ** -0.5,
            "attention_softcap": cap("attn_logit_softcapping"),
            "logit_softcap": cap("final_logit_softcapping"),
            **layer_windows(values, types),
        }
