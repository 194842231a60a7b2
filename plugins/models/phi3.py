"""Phi-3, Phi-3.5 and Phi-4 (arXiv 2404.14219, 2503.01743): fused projections, LongRoPE, rotation of a part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Family, RopeConfig, layer_windows
from framework.registry import FAMILIES

_FACTORS = [1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.0, 3.6, 4.3]
_LENGTHS = {"original_max_position_embeddings": 128, "max_position_embeddings": 256}


@FAMILIES.register("phi3")
class Phi3(Family):
    """Phi-3, Phi-3.5-mini, Phi-4 and Phi-4-mini.

    LongRoPE has a list of factors up to the original length, and another one for longer sequences. With
    `engine.max_model_len` open or within the original length, the first one runs, as in `transformers`. Above it, the
    second one runs for every sequence, with a warning: no KV cache can follow a change in the middle.
    """

    architecture = "Phi3ForCausalLM"
    defaults = {"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096}
    examples = (
        {"rope_scaling": {"type": "longrope", "short_factor": _FACTORS[:8], "long_factor": _FACTORS[1:]}, **_LENGTHS},
        {  # any sequence is longer than the original length
            "rope_scaling": {"type": "longrope", "short_factor": _FACTORS[:8], "long_factor": _FACTORS[1:]},
            "original_max_position_embeddings": 4,
        },
        {"partial_rotary_factor": 0.75, "tie_word_embeddings": True, "sliding_window": 24},
    )

    def rope(self, values: Mapping[str, Any], max_model_len: int | None) -> RopeConfig:
        renamed = dict(values)
        for key in ("rope_scaling", "rope_parameters"):
            rope = values.get(key)
            if isinstance(rope, Mapping) and (rope.get("rope_type") or rope.get("type")) in ("su", "yarn"):
                renamed[key] = {**rope, "rope_type": "longrope"}  # what transformers makes of older checkpoints
        return RopeConfig.from_hf(renamed, max_model_len=max_model_len, may_be_partial=True)

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        windows = layer_windows({**values, "layer_types": None})
        return {"qkv_bias": False, "output_bias": False, "fused_qkv": True, "fused_gate_up": True, **windows}
